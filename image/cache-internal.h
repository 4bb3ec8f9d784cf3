/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the two halves of the metadata cache, cache.c and cache-write.c, share. */
#ifndef IMGFS_IMAGE_CACHE_INTERNAL_H
#define IMGFS_IMAGE_CACHE_INTERNAL_H

#include <glib.h>

#include "image/cache.h"
#include "io/co.h"
#include "io/file.h"

#define CACHE_SECTOR  512
#define CACHE_SECTORS (CACHE_BLOCK / CACHE_SECTOR)
#define CACHE_CLEAN   0xff

struct cache_block {
	struct cache *cache;
	struct file *file;
	uint64_t number;		   /* offset / CACHE_BLOCK */
	struct cache_block *chain;	   /* next in the hash bucket */
	struct cache_block *older, *newer; /* of the list that it is on */
	unsigned pins;
	bool loading, dead; /* dead: out of the table, freed at the last put */
	uint8_t nb_dirty;   /* sectors */
	uint8_t stale;	    /* sectors to be read again before they are used */
	uint8_t phase[CACHE_SECTORS];
	int error;
	struct co_queue loaded;
	uint8_t *data;
};
G_STATIC_ASSERT(CACHE_SECTORS <= 8);

struct cache_list {
	struct cache_block *oldest, *newest;
};

struct cache {
	unsigned refs;
	size_t limit, count, nb_dirty; /* blocks */
	struct cache_block **buckets;
	size_t mask;
	struct cache_list clean, dirty; /* clean: those that nobody has pinned */
	struct co_queue room;		/* those that wait for a block to be unpinned */
	uint64_t hits, misses;
};

/* cache.c */
/* The block if it is there. Not pinned. */
struct cache_block *cache_find(struct cache *c, const struct file *f, uint64_t number);
/* Pins a block, loading it; fresh: the caller overwrites all of it, so it is not read. May yield.
 */
int cache_pin(struct cache *c, struct file *f, uint64_t number, bool fresh,
	      struct cache_block **block);
/* A block of the table, loaded already. */
void cache_block_pin(struct cache_block *b);
/* One clean sector becomes dirty, or a dirty one clean. */
void cache_block_set_dirty(struct cache_block *b, uint8_t sector, uint8_t phase);
void cache_block_set_clean(struct cache_block *b, uint8_t sector);
/* Forgets it with its changes; while pinned it lives on, out of the table. */
void cache_block_drop(struct cache_block *b);

#endif
