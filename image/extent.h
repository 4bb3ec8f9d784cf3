/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a map answers: where the bytes of a range of a disk are. */
#ifndef IMGFS_IMAGE_EXTENT_H
#define IMGFS_IMAGE_EXTENT_H

#include <stdbool.h>
#include <stdint.h>

struct file;
struct codec;
struct cryptor;
struct image;

enum extent_kind {
	EXTENT_HOLE,  /* not described here: the backing image decides, else zeroes */
	EXTENT_ZERO,  /* reads as zeroes whatever lies below */
	EXTENT_DATA,  /* file[host .. host+len) */
	EXTENT_CODED, /* file[host .. host+coded_len) decodes to unit_len bytes, the
		       * disk's bytes from unit_start on */
};

enum extent_flags {
	EXTENT_WRITABLE = 1 << 0,     /* DATA: may be overwritten in place */
	EXTENT_HAS_HOST = 1 << 1,     /* ZERO, HOLE: file and host name space kept for it */
	EXTENT_MAYBE_SPARSE = 1 << 2, /* DATA: the host file's own holes are worth asking for */
	EXTENT_SPARSE = 1 << 3,	      /* DATA: holes of the host file are the disk's: image_map says
				       * ZERO of them; who only wants the place does not ask */
};

struct extent {
	uint64_t start, len; /* bytes of the disk; len > 0 */
	enum extent_kind kind;
	unsigned flags;
	struct file *file; /* borrowed: lives as long as the image */
	uint64_t host;
	uint32_t coded_len, unit_len; /* CODED; coded_len may include padding after the stream */
	uint64_t unit_start;
	const struct codec *codec;
	const struct cryptor *cryptor; /* DATA and CODED: NULL when not encrypted */
	/* Filled by the core (image_map), not by drivers: */
	struct image *layer; /* whose extent this is; NULL when no layer describes it */
	unsigned depth;	     /* 0 is the top of the chain; for an unallocated range the deepest */
};

/* Does it read as zeroes without asking any file? */
static inline bool extent_is_zero(const struct extent *e)
{
	return e->kind == EXTENT_HOLE || e->kind == EXTENT_ZERO;
}

#endif
