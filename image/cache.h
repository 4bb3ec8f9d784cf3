/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The bounded cache of metadata blocks of one image tree: L1 and L2 tables,
 * refcount blocks, block allocation tables. Least recently used blocks go
 * first. One budget for a chain, so memory does not grow with its depth or
 * with the size of the disk.
 */
#ifndef IMGFS_IMAGE_CACHE_H
#define IMGFS_IMAGE_CACHE_H

#include <stddef.h>
#include <stdint.h>

struct cache;
struct file;

#define CACHE_BLOCK 4096 /* bytes; blocks begin at multiples of it in the file */
#define CACHE_DEFAULT_SIZE (32u << 20)

/* bytes: upper bound of what it holds; at least 64 blocks are always allowed. */
struct cache *cache_new(size_t bytes);
struct cache *cache_ref(struct cache *c);
void cache_unref(struct cache *c); /* nothing may be pinned at the last one */
/* Forgets all blocks of this file (before it is closed). */
void cache_drop_file(struct cache *c, struct file *f);

/*
 * The block that holds byte `offset` of f (bytes past the end of the file are
 * zero), pinned until cache_put. *data points at that very byte, *left says how
 * many bytes follow it in the block, including it. 0 or -errno (-EIO as from
 * file_read). Yields only when the block is not there.
 */
struct cache_block;
int cache_get(struct cache *c, struct file *f, uint64_t offset, struct cache_block **block,
	      const void **data, size_t *left);
void cache_put(struct cache_block *block);

/* Copies a range of any length out of the cache. 0 or -errno. May yield. */
int cache_read(struct cache *c, struct file *f, uint64_t offset, void *buf, size_t len);

/* For tests and statistics. */
struct cache_stats {
	size_t bytes, limit;
	uint64_t hits, misses;
};
void cache_get_stats(const struct cache *c, struct cache_stats *stats);

#endif
