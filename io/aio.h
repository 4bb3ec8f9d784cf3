/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The engines that do what cannot be done in place: one table each. Internal to
 * io/.
 */
#ifndef IMGFS_IO_AIO_H
#define IMGFS_IO_AIO_H

#include "io/loop.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

/* One transfer, as the kernel takes it: at most AIO_PARTS buffers. */
struct aio_transfer {
	int fd;
	bool write;
	const struct iovec *iov;
	int niov;
	uint64_t offset;
};
#define AIO_PARTS 64
/* The kernel cuts longer transfers anyway. */
#define AIO_MAX_BYTES ((size_t)1 << 30)

struct aio_ops {
	const char *name;
	/* Makes the engine ready on this loop; cheap when it is. 0, or -errno if it
	 * cannot be used here. */
	int (*prepare)(struct loop *loop);
	/* Yields until done: bytes (perhaps fewer than asked for) or -errno. Only
	 * inside a coroutine, and after prepare. */
	ssize_t (*transfer)(struct loop *loop, const struct aio_transfer *t);
};

extern const struct aio_ops aio_threads; /* always there */
extern const struct aio_ops aio_native;	 /* prepare: -ENOSYS when built without it */
extern const struct aio_ops aio_uring;	 /* the same */

/* Where the engines keep their state in the loop. */
enum { AIO_SLOT_NATIVE, AIO_SLOT_URING };

/* io_uring if this loop can have it, else threads. */
const struct aio_ops *aio_best(struct loop *loop);

/* The same by a plain system call in place; restarted after EINTR. */
ssize_t aio_transfer_here(const struct aio_transfer *t);

#endif
