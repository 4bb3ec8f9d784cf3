/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A format for the unit tests of the core: clusters of FAKE_CLUSTER bytes in a
 * table in memory, whose data lies in the image's main file. It implements all of the write path,
 * fails when told to, and knows whether a table entry ever pointed at bytes that were not
 * written.
 */
#ifndef IMGFS_TESTS_FAKE_FORMAT_H
#define IMGFS_TESTS_FAKE_FORMAT_H

#include "image/image.h"

#define FAKE_CLUSTER  4096u
#define FAKE_CLUSTERS 64u
#define FAKE_SIZE     (FAKE_CLUSTER * FAKE_CLUSTERS)

struct fake {
	struct {
		enum extent_kind kind;
		uint64_t host;
		uint32_t coded_len;
	} entry[FAKE_CLUSTERS];
	unsigned maps, reserves, commits, abandons, unmaps;
	int fail_map, fail_commit; /* -errno for the next call */
	bool bad_host;		   /* the next claim's place cannot be written */
};

extern const struct format format_fake;
extern const struct format *const fake_formats[];

struct fake *fake_of(struct image *img);
/* An image over an empty file in memory, or a file with these bytes. */
struct image *fake_open(const void *data, uint64_t size, unsigned flags);
/* Runs a test's body in a coroutine of a fresh loop. */
void in_loop(void (*body)(void));

#endif
