/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the three parts of host files share: file-open.c, file-posix.c (the page
 * cache), file-direct.c (O_DIRECT). Internal to io/. */
#ifndef IMGFS_IO_FILE_POSIX_H
#define IMGFS_IO_FILE_POSIX_H

#include "io/aio.h"
#include "io/co.h"
#include "io/file-internal.h"
#include "io/pool.h"

/* A change under way on an O_DIRECT file; on the stack of whoever makes it. */
struct direct_range {
	struct direct_range *next; /* those that came later */
	uint64_t start, end;
	bool exclusive; /* reads blocks, changes a part of them and writes them back */
};

struct posix_file {
	struct file base;
	struct file_options opened;   /* as what it was opened */
	bool nowait;		      /* the file system knows RWF_NOWAIT */
	bool in_memory;		      /* tmpfs: knows no RWF_NOWAIT, but all of it is page cache */
	struct pool_turn writes;      /* the kernel lets one at a time write to a file of that */
	const struct aio_ops *engine; /* NULL: the best one, found at the first use */
	bool engine_ready;

	/* O_DIRECT only; base.alignment holds for offsets and lengths. */
	bool direct;
	uint32_t memory_alignment;
	struct direct_range *ranges;
	struct co_queue ranges_changed;
};

extern const struct file_ops posix_ops;

/* One transfer by the file's engine, or in place outside of coroutines. Bytes or
 * -errno; yields. */
ssize_t posix_transfer(struct posix_file *p, const struct aio_transfer *t);
/* Has the file ended, at `end`, before what is known of it? Somebody else has cut it then: the
 * bytes behind are lost, not zero. */
bool posix_was_cut(const struct posix_file *p, uint64_t end);
/* 0 or -errno; yields. */
int posix_set_size(struct posix_file *p, uint64_t size);

/* The size, also of a block device. 0 or -errno. */
int posix_size(int fd, const struct stat *st, uint64_t *size);
void posix_close(struct file *f);
/* file-open.c, as in struct file_ops. */
bool posix_set_writable(struct file *f, bool writable, GError **error);

/* file-direct.c: finds out the alignments and switches O_DIRECT on. 0 or -errno. */
int direct_set_up(struct posix_file *p);
/* As in struct file_ops. */
int direct_readv(struct posix_file *p, uint64_t offset, const struct iovec *iov, int niov,
		 size_t len);
int direct_writev(struct posix_file *p, uint64_t offset, const struct iovec *iov, int niov,
		  size_t len);
/* Around changes made by other means than direct_writev: keeps read-modify-writes
 * of the same blocks away. Nothing for files of the page cache. May yield. */
void direct_enter(struct posix_file *p, struct direct_range *r, uint64_t start, uint64_t end);
void direct_leave(struct posix_file *p, struct direct_range *r);

#endif
