/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Clusters made into compressed ones. */
#ifndef IMGFS_IMAGE_ENCODE_H
#define IMGFS_IMAGE_ENCODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct codec;

/* What became of a unit, where it is not the bytes that it takes encoded. */
enum { ENCODED_ZERO = -1, ENCODED_PLAIN = -2 };

struct encoding {
	const struct codec *codec;
	const uint8_t *plain; /* begins with the first unit */
	uint8_t *coded;	      /* as long as plain in whole units: unit i at i * unit */
	size_t len, unit;     /* bytes */
	bool padded;	  /* a last unit that is cut by len has zeroes behind it up to its end */
	bool find_zeroes; /* tell of units that are zero, instead of encoding them */
	uint64_t number;  /* of the first unit, on the disk */
	int64_t *result;  /* of each unit, also of a cut one */
};

/*
 * By the worker pool. A unit that does not become shorter is ENCODED_PLAIN, as is a cut one that is
 * not padded. 0, or -errno: the codec failed or is missing, and the results mean nothing. Yields.
 */
int encode_units(struct encoding *e);

#endif
