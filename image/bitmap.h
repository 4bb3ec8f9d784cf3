/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Dirty bitmaps: which granules of a disk were written to. In memory here, whatever a
 * format makes of them on disk. Pages without a bit set take no memory.
 */
#ifndef IMGFS_IMAGE_BITMAP_H
#define IMGFS_IMAGE_BITMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BITMAP_MIN_GRANULARITY_BITS 9
#define BITMAP_MAX_GRANULARITY_BITS 31
#define BITMAP_MAX_BYTES	    (512u << 20) /* of bits, all pages together */

struct bitmap;

/* All clear. size: bytes of the disk. NULL: no memory, or more bits than BITMAP_MAX_BYTES. */
struct bitmap *bitmap_new(uint64_t size, unsigned granularity_bits);
void bitmap_free(struct bitmap *b); /* NULL is allowed */
unsigned bitmap_granularity_bits(const struct bitmap *b);
uint64_t bitmap_size(const struct bitmap *b);	/* of the disk */
uint64_t bitmap_length(const struct bitmap *b); /* bytes that the bits take */

/* Sets each bit whose granule [offset, offset+len) touches; what lies past the disk is ignored.
 * 0, or -ENOMEM with some bits set. */
int bitmap_set(struct bitmap *b, uint64_t offset, uint64_t len);
/* The next run of set granules at or after *offset, in bytes of the disk, cut at its end:
 * true and *offset, *len; false: there is none. */
bool bitmap_next(const struct bitmap *b, uint64_t *offset, uint64_t *len);
/* Sets in b what is set in other, whose granularity and size may differ: a coarser granule is set
 * when any part of it is. 0 or -ENOMEM. */
int bitmap_merge(struct bitmap *b, const struct bitmap *other);
/* The same bits for a disk of another size; what is new is clear. NULL as bitmap_new. */
struct bitmap *bitmap_resized(const struct bitmap *b, uint64_t size);

/*
 * Bits as bytes, the lowest bit of a byte for the lowest granule: len bytes from byte `at` on.
 * Copies out (zeroes past the end); true: some bit is set.
 */
bool bitmap_get_bytes(const struct bitmap *b, uint64_t at, void *buf, size_t len);
/* Sets what is set there; bits past the disk's end are ignored. 0 or -ENOMEM. */
int bitmap_or_bytes(struct bitmap *b, uint64_t at, const void *buf, size_t len);

#endif
