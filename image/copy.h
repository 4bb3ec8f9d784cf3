/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The one copy engine: convert, dd, and later commit and rebase. */
#ifndef IMGFS_IMAGE_COPY_H
#define IMGFS_IMAGE_COPY_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

struct image;
struct throttle;

#define COPY_COROUTINES_MAX	16
#define COPY_COROUTINES_DEFAULT 8
#define COPY_SPARSE_DEFAULT	4096
#define COPY_SPARSE_MAX		(16u << 20)

struct copy_job {
	struct image *source;
	uint64_t start, len; /* bytes of the source's disk */
	/* Of the source's chain: what no layer above it describes is not copied. NULL: all is. */
	struct image *base;
	struct image *target; /* writable */
	uint64_t target_start;
	/* Runs of zeroes of at least this many bytes are not written as data; a
	 * multiple of 512. 0: every byte is written. Where the target has clusters, only whole
	 * ones are left out. */
	uint32_t sparse;
	bool target_is_zero; /* zeroes need not be written at all */
	unsigned coroutines; /* 1..COPY_COROUTINES_MAX */
	bool out_of_order;   /* else writes begin in the order of the disk */
	bool salvage;	     /* what cannot be read becomes zeroes, and is told */
	bool offload;	     /* try to copy inside the kernel */
	bool live;   /* the source is written to meanwhile: each piece is mapped as it is read */
	bool locked; /* the caller has all of the source's disk for himself (control_lock) */
	bool encode; /* whole clusters compressed, by the target's codec; not out of order */
	struct throttle *throttle; /* counts what is read and written; NULL: no limit */
	/* Called now and then; may be NULL. done: bytes of this job. */
	void (*progress)(void *arg, uint64_t done);
	void (*salvaged)(void *arg, uint64_t offset, uint64_t len, const char *why);
	bool (*cancelled)(void *arg); /* asked before each piece */
	void *arg;
};

/*
 * Copies. false and *error: a sentence that says whether reading or writing
 * failed, where and why, or that it was cancelled. Nothing is flushed. Yields.
 */
bool image_copy(const struct copy_job *job, GError **error);

#endif
