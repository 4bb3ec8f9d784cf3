/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A guest that writes to a disk and remembers what it was told: which of its writes were
 * acknowledged, and which flushes. So for each byte and each moment it is known what may be there
 * after a power cut: the value as of the last flush, or any value written since.
 */
#ifndef IMGFS_TESTS_GUEST_H
#define IMGFS_TESTS_GUEST_H

#include "tests/crash/crash.h"

struct guest;

/* The disk as it is before the first operation; takes over the bytes. */
struct guest *guest_new(struct disk *before);
const struct disk *guest_before(const struct guest *g);
void guest_free(struct guest *g);

struct guest_work {
	uint64_t seed;
	unsigned batches;    /* of operations at one time */
	unsigned concurrent; /* operations in a batch, at most */
	uint64_t max_len;    /* of one operation */
	bool discards, zeroes;
	bool few_flushes; /* so that dirty tables pile up */
	bool through;	  /* the image's cache mode: what returned is durable */
	bool coded;	  /* compressed clusters too; the disk is a multiple of the cluster size */
};
/* Random operations and flushes, noted. In a coroutine. 0, or -errno of what failed. */
int guest_work(struct guest *g, struct image *img, const struct record_log *log,
	       const struct guest_work *w);

/*
 * One operation a letter, on cluster 0 unless said otherwise: W all of it, w a part, B all of
 * cluster 5, Z zeroes, U zeroes whose space is given up, D discard, C compressed, F flush; S makes
 * a snapshot "s", P goes back to it, X deletes it. A flush follows.
 */
int guest_script(struct guest *g, struct image *img, const struct record_log *log,
		 const char *letters);
/* Is the snapshot of the script there when it must be, as it was? */
bool guest_allows_snapshot(const struct guest *g, size_t position, const char *name,
			   GError **error);

/* May the disk look so after a cut at this position? */
bool guest_allows(struct guest *g, size_t position, const struct disk *d, GError **error);

/* A few more writes and a flush to an image of this name, as a guest that goes on after the cut;
 * d follows. Not in a coroutine. */
bool guest_goes_on(const char *name, uint64_t seed, struct disk *d, GError **error);

#endif
