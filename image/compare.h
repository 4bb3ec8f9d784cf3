/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The one walk over two disks: compare and rebase. */
#ifndef IMGFS_IMAGE_COMPARE_H
#define IMGFS_IMAGE_COMPARE_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct image;
struct extent;

/*
 * Proof that two extents that begin at the same offset of two disks hold the same bytes, as far as
 * both go, without reading: both read as zeroes, or both are the same bytes of the same file.
 */
bool extent_known_equal(const struct extent *x, const struct extent *y);

#define COMPARE_ALIGN_MAX (2u << 20)

struct compare_job {
	struct image *a, *b; /* NULL: all zeroes. Past its end a disk reads as zeroes. */
	uint64_t start, len; /* bytes */
	/* A power of two, at most COMPARE_ALIGN_MAX: what is examined begins and ends at its
	 * multiples, except at the edges of what is wanted. */
	uint32_t align;
	unsigned coroutines;
	bool in_order; /* examine is called in the order of the disk */

	/* Are the bytes from offset on to be compared at all? 1 or 0, and *len shortened to what
	 * that is true of; or -errno. NULL: all are. May yield. */
	int (*wanted)(void *arg, uint64_t offset, uint64_t *len);
	/* Are two maps alike enough to go on? NULL: they always are. Does not yield. */
	bool (*alike)(void *arg, const struct extent *x, const struct extent *y);
	/* Called with bytes of which some differ; x or y NULL: zeroes, never both. 0 to go on, 1 to
	 * stop, -errno to fail. May yield. */
	int (*examine)(void *arg, uint64_t offset, const uint8_t *x, const uint8_t *y, size_t len);
	void (*progress)(void *arg, uint64_t offset); /* NULL: nobody listens */
	bool (*cancelled)(void *arg);		      /* NULL: never */
	void *arg;
};

enum compare_end {
	COMPARE_DONE,
	COMPARE_STOPPED,    /* by examine, or cancelled */
	COMPARE_UNALIKE,    /* *at: where; everything before was examined */
	COMPARE_NOT_MAPPED, /* *error says whose map, where and why */
	COMPARE_NOT_READ,   /* the same of data */
	COMPARE_FAILED,	    /* examine or wanted returned an error, which is theirs to tell */
};
/* at may be NULL. With in_order the end is that of the lowest offset. Yields. */
enum compare_end image_compare(const struct compare_job *job, uint64_t *at, GError **error);

#endif
