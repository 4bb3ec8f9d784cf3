/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A request while it is answered. Its handler copies what it needs out of libfuse's buffer (which
 * the next request overwrites) and starts a coroutine, which runs at once and mostly to its end:
 * what is in caches is answered without going back to the loop.
 */
#ifndef IMGFS_FS_CALL_H
#define IMGFS_FS_CALL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "fs/fuse.h"

struct worker;

struct call {
	struct worker *worker;
	fuse_req_t req;
	void (*run)(struct call *c); /* replies */
	uint64_t node, offset, len;
	size_t size;
	int whence, mode;
	bool plus;
	struct fuse_file_info fi; /* as libfuse gave it; all zero where there is none */
	struct stat attr;	  /* setattr */
	uint64_t to_node, to_offset;
	const void *data; /* of a write: in `buffer` */
	void *buffer;	  /* the received request, NULL: was not kept; freed with the call */
	char name[];	  /* lookup, getxattr */
};

/* name: copied; NULL is allowed. */
struct call *call_new(fuse_req_t req, void (*run)(struct call *c), uint64_t node, const char *name);
/* Runs it in a coroutine that counts as a request in flight, and frees it. */
void call_start(struct call *c);
/*
 * Keeps the buffer in which the request that is being handled was received, and what points into
 * it, until the call ends.
 */
void call_keep_buffer(struct call *c);
/*
 * Replies an error (positive). EIO of the tree, opening a snapshot or reading a table: said in the
 * log with its cause.
 */
void call_error(struct call *c, int err);

#endif
