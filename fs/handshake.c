/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "fs/handshake.h"

#include <linux/fuse.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

/* One request, the first, is INIT; only the thread that serves the mount so early is here then. */
static bool answered;

/* libfuse gives the answer as one header and one body. */
static struct fuse_init_out *init_answer(const struct iovec *iov, int count)
{
	const struct fuse_out_header *head = iov[0].iov_base;

	if (count != 2 || iov[0].iov_len != sizeof(*head) || head->error ||
	    iov[1].iov_len < offsetof(struct fuse_init_out, flags) + sizeof(uint32_t))
		return NULL;
	return iov[1].iov_base;
}

/* The kernel takes no notice of a flag that it did not offer. */
static ssize_t send_answer(int fd, struct iovec *iov, int count, void *userdata)
{
	if (!__atomic_exchange_n(&answered, true, __ATOMIC_ACQ_REL)) {
		struct fuse_init_out *out = init_answer(iov, count);

		if (out)
			out->flags |= FUSE_HANDLE_KILLPRIV_V2;
	}
	return writev(fd, iov, count);
}

static ssize_t receive(int fd, void *buf, size_t len, void *userdata)
{
	return read(fd, buf, len);
}

int handshake_watch(struct fuse_session *fuse)
{
	static const struct fuse_custom_io io = {.writev = send_answer, .read = receive};

	return fuse_session_custom_io(fuse, &io, fuse_session_fd(fuse));
}
