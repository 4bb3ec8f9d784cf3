/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The bounded cache of metadata blocks of one image tree: L1 and L2 tables,
 * refcount blocks, block allocation tables. Least recently used blocks go
 * first. One budget for a chain, so memory does not grow with its depth or
 * with the size of the disk.
 */
#ifndef IMGFS_IMAGE_CACHE_H
#define IMGFS_IMAGE_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cache;
struct file;

#define CACHE_BLOCK	   4096 /* bytes; blocks begin at multiples of it in the file */
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

/*
 * Writing. A changed block is never written by itself, only when its driver flushes, phase after
 * phase with a sync between them: what a table entry points at is durable before the entry is.
 * That replaces "write that block first" edges between blocks, which can form cycles. Phases are
 * kept for each 512-byte sector, because with 512-byte clusters one block holds tables of
 * different kinds. The words for the phases are the driver's; qcow2's are in formats/qcow2.h.
 *
 * cache_dirty: the caller, who has the block pinned, has changed data[0 .. len) inside of it,
 * without a yield since cache_get or with a lock that keeps cache_write_phase away. A sector that
 * is dirty already keeps the lower phase. Dirty blocks are not given up, so they may exceed the
 * limit: cache_wants_flush says when a driver should flush its file before it goes on.
 */
#define CACHE_PHASES 4
void cache_dirty(struct cache_block *block, const void *data, size_t len, unsigned phase);
/* Changes a range of any length; whole blocks are not read first. 0 or -errno. May yield. */
int cache_write(struct cache *c, struct file *f, uint64_t offset, const void *buf, size_t len,
		unsigned phase);
/*
 * Writes the dirty sectors of this file and phase in ascending order, neighbours as one request.
 * Does not sync. What could not be written stays dirty. 0 or the first -errno. May yield.
 */
int cache_write_phase(struct cache *c, struct file *f, unsigned phase);
bool cache_has_dirty(const struct cache *c, const struct file *f, unsigned phase);
bool cache_wants_flush(const struct cache *c, const struct file *f);
/* Forgets a range with its changes: clusters that are free or that will be written around it. */
void cache_drop_range(struct cache *c, struct file *f, uint64_t offset, uint64_t len);

/* For tests and statistics. */
struct cache_stats {
	size_t bytes, limit, dirty;
	uint64_t hits, misses;
};
void cache_get_stats(const struct cache *c, struct cache_stats *stats);

#endif
