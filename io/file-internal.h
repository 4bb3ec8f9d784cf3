/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a kind of file must do. file.c checks ranges and access once, keeps the
 * size and the failed flush; the kinds do the rest. Internal to io/.
 */
#ifndef IMGFS_IO_FILE_INTERNAL_H
#define IMGFS_IO_FILE_INTERNAL_H

#include "io/file.h"

/* What happens to a range other than reading and writing it. */
enum file_change { CHANGE_ALLOCATE, CHANGE_ZERO, CHANGE_PUNCH };

/*
 * Offsets and ends fit into an off_t, len > 0 and is the sum of the vector, and
 * writing operations come only to writable files. All return 0 or -errno unless
 * said otherwise. NULL is allowed where "optional" stands.
 */
struct file_ops {
	/* Zeroes past the end. May yield. */
	int (*readv)(struct file *f, uint64_t offset, const struct iovec *iov, int niov,
		     size_t len);
	/* Bytes had without waiting. Never yields. */
	size_t (*read_nowait)(struct file *f, uint64_t offset, void *buf, size_t len);
	/* All of it; file.c notes the new size afterwards. May yield. */
	int (*writev)(struct file *f, uint64_t offset, const struct iovec *iov, int niov,
		      size_t len);
	int (*flush)(struct file *f);			/* may yield */
	int (*truncate)(struct file *f, uint64_t size); /* may yield */
	/* CHANGE_ALLOCATE and CHANGE_ZERO may grow the file. Optional; may yield. */
	int (*change)(struct file *f, enum file_change what, uint64_t offset, uint64_t len);
	/* Both files have these ops. Bytes copied. Optional; may yield. */
	int64_t (*copy_range)(struct file *from, uint64_t from_offset, struct file *to,
			      uint64_t to_offset, uint64_t len);
	/* offset < size. Where the run that begins at offset ends; the caller cuts it. */
	int (*extent)(struct file *f, uint64_t offset, bool *is_data, uint64_t *end);
	void (*readahead)(struct file *f, uint64_t offset, uint64_t len); /* optional */
	/* Size and allocated bytes as of now. */
	int (*measure)(struct file *f, uint64_t *size, int64_t *allocated);
	/* NULL: it is what it is. f->writable is file.c's. */
	bool (*set_writable)(struct file *f, bool writable, GError **error);
	void (*close)(struct file *f); /* frees f itself, not what file.c made */
};

struct file {
	const struct file_ops *ops;
	unsigned refs;
	char *name;
	struct stat st;
	int fd; /* -1: none */
	bool writable;
	bool ignore_flush; /* CACHE_UNSAFE */
	bool sync_changes; /* durable on return; writev sees to it by itself */
	uint32_t alignment;
	uint64_t size;
	int flush_error; /* the first one, for ever */
	/* Begins and ends of changes so far, and how many had come when the last flush that
	 * succeeded began: if no more did, there is nothing to flush. */
	uint64_t changes, flushed;

	/* The last run found by file_extent; nothing when the end is 0. */
	struct {
		uint64_t start, end;
		bool is_data;
	} run;
};

/* Fills in what all kinds share; takes no ownership of anything. */
void file_init(struct file *f, const struct file_ops *ops, const char *name);
/* Frees what file_init made. */
void file_fini(struct file *f);

/* file_allocate, file_zero and file_punch as one. */
int file_change(struct file *f, enum file_change what, uint64_t offset, uint64_t len);

/* For kinds that pass everything on to another file: it looks like inner, and its holes and sizes
 * are inner's. */
void file_inner_look(struct file *f, struct file *inner);
int file_inner_extent(struct file *f, struct file *inner, uint64_t offset, bool *is_data,
		      uint64_t *end);
int file_inner_measure(struct file *inner, uint64_t *size, int64_t *allocated);

#endif
