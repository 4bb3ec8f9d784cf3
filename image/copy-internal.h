/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The copy engine's own: copy.c walks and reads, copy-write.c writes. */
#ifndef IMGFS_IMAGE_COPY_INTERNAL_H
#define IMGFS_IMAGE_COPY_INTERNAL_H

#include "image/buffers.h"
#include "image/copy.h"
#include "image/image.h"

struct copy {
	const struct copy_job *job;
	struct co_group group;
	struct buffers buffers; /* of piece_size bytes */
	uint32_t piece_size;	/* a multiple of grain */
	/* What the target writes without reading first. Pieces begin and end at its multiples, on
	 * the target's disk, wherever that is possible. */
	uint32_t grain;
	struct co_queue turn;
	unsigned above;			 /* layers above the base; 0: there is no base */
	uint64_t next_piece, next_write; /* numbers of pieces: writes begin in that order */
	uint64_t done;
	bool failed;
	bool no_offload; /* the kernel refused once: not asked again */
	GError *error;	 /* of the first failure */
};

struct piece {
	struct copy *copy;
	struct extent extent;
	uint64_t offset; /* of the source's disk */
	size_t len;
	uint64_t number;
	bool had_turn; /* copy_await_turn was here */
};

/* Of the target's disk: where a byte of the source goes. */
static inline uint64_t copy_place(const struct copy_job *job, uint64_t offset)
{
	return job->target_start + (offset - job->start);
}
/* The first failure is kept, and whoever waits for a turn is woken. */
void copy_fail(struct copy *c, struct image *img, const char *doing, uint64_t offset, int err);

/* copy-write.c. 0 or -errno after copy_fail; all may yield. */
int copy_zeroes(struct copy *c, uint64_t offset, uint64_t len);
/* The bytes of a piece, as the job wants them: all, without zeroes, or encoded. buf has room for
 * piece_size bytes. Waits for the piece's turn. */
int copy_write_piece(struct piece *p, uint8_t *buf);
/* Waits until all earlier pieces have begun to write, or, when they are encoded, have been
 * written: encoded clusters lie in the order in which they are written. */
void copy_await_turn(struct piece *p);

#endif
