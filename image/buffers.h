/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Large buffers that are used again: one that comes fresh from the system costs a
 * page fault for every 4 KiB, as much time as the copy itself. What malloc keeps (io/memory.h)
 * does not help these: an aligned request is longer than the block that an equal one gave back
 * (a convert without this has ten times the page faults).
 */
#ifndef IMGFS_IMAGE_BUFFERS_H
#define IMGFS_IMAGE_BUFFERS_H

#include <stddef.h>

#define BUFFERS_IDLE_MAX 64

struct buffers {     /* of one loop; all zero but size when unused */
	size_t size; /* bytes of each */
	unsigned n_idle;
	void *idle[BUFFERS_IDLE_MAX];
};

/* A buffer of b->size bytes, aligned for O_DIRECT, with any content; NULL: no memory. */
void *buffers_take(struct buffers *b);
void buffers_give(struct buffers *b, void *buf); /* NULL is allowed */
/* Frees the idle ones; all must have been given back. */
void buffers_clear(struct buffers *b);

#endif
