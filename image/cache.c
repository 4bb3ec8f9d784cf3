/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The metadata cache: blocks of files in a hash table. A block that is clean and that nobody has
 * pinned is on the list by age, from which blocks are given up; a dirty one, pinned or not, is on
 * the dirty list, and is never given up. A hit allocates nothing and does not yield. All users
 * are coroutines of one loop. The writing half is in cache-write.c.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image/cache-internal.h"

#define MIN_BLOCKS 64

struct cache *cache_new(size_t bytes)
{
	struct cache *c = g_new0(struct cache, 1);
	size_t buckets = MIN_BLOCKS;

	c->refs = 1;
	c->limit = MAX(bytes / CACHE_BLOCK, MIN_BLOCKS);
	while (buckets < c->limit)
		buckets *= 2;
	c->mask = buckets - 1;
	c->buckets = g_new0(struct cache_block *, buckets);
	return c;
}

struct cache *cache_ref(struct cache *c)
{
	c->refs++;
	return c;
}

static struct cache_block **bucket(struct cache *c, const struct file *f, uint64_t number)
{
	uint64_t h = (number ^ ((uintptr_t)f >> 4) * 0x9e3779b97f4a7c15u) * 0xff51afd7ed558ccdu;

	return &c->buckets[(h >> 32) & c->mask];
}

struct cache_block *cache_find(struct cache *c, const struct file *f, uint64_t number)
{
	struct cache_block *b = *bucket(c, f, number);

	while (b && (b->number != number || b->file != f))
		b = b->chain;
	return b;
}

static void list_remove(struct cache_list *l, struct cache_block *b)
{
	*(b->older ? &b->older->newer : &l->oldest) = b->newer;
	*(b->newer ? &b->newer->older : &l->newest) = b->older;
	b->older = b->newer = NULL;
}

static void list_append(struct cache_list *l, struct cache_block *b)
{
	b->older = l->newest;
	b->newer = NULL;
	*(l->newest ? &l->newest->newer : &l->oldest) = b;
	l->newest = b;
}

static void unhash(struct cache_block *b)
{
	struct cache_block **p = bucket(b->cache, b->file, b->number);

	while (*p != b)
		p = &(*p)->chain;
	*p = b->chain;
	b->dead = true;
}

static void destroy(struct cache_block *b)
{
	b->cache->count--;
	free(b->data);
	g_free(b);
}

/* Clean and unpinned: kept by age, unless dirty blocks made the cache outgrow its limit. */
static void retire(struct cache_block *b)
{
	struct cache *c = b->cache;

	if (!b->dead && c->count > c->limit)
		unhash(b);
	if (b->dead)
		destroy(b);
	else
		list_append(&c->clean, b);
	if (c->room.head)
		co_queue_wake_one(&c->room);
}

void cache_block_set_dirty(struct cache_block *b, uint8_t sector, uint8_t phase)
{
	b->phase[sector] = phase;
	if (b->nb_dirty++ == 0) {
		list_append(&b->cache->dirty, b);
		b->cache->nb_dirty++;
	}
}

void cache_block_set_clean(struct cache_block *b, uint8_t sector)
{
	b->phase[sector] = CACHE_CLEAN;
	if (--b->nb_dirty)
		return;
	list_remove(&b->cache->dirty, b);
	b->cache->nb_dirty--;
	if (!b->pins)
		retire(b);
}

void cache_block_drop(struct cache_block *b)
{
	for (uint8_t i = 0; i < CACHE_SECTORS; i++)
		b->phase[i] = CACHE_CLEAN;
	unhash(b);
	if (b->nb_dirty) {
		list_remove(&b->cache->dirty, b);
		b->cache->nb_dirty--;
		b->nb_dirty = 0;
	} else if (!b->pins) {
		list_remove(&b->cache->clean, b);
	}
	if (!b->pins)
		destroy(b);
}

void cache_unref(struct cache *c)
{
	if (!c || --c->refs)
		return;
	while (c->dirty.oldest)
		cache_block_drop(c->dirty.oldest);
	while (c->clean.oldest)
		cache_block_drop(c->clean.oldest);
	g_assert(c->count == 0);
	g_free(c->buckets);
	g_free(c);
}

static void drop_file_from(struct cache_list *l, const struct file *f)
{
	struct cache_block *next;

	for (struct cache_block *b = l->oldest; b; b = next) {
		next = b->newer;
		if (b->file == f)
			cache_block_drop(b);
	}
}

void cache_drop_file(struct cache *c, struct file *f)
{
	drop_file_from(&c->dirty, f);
	drop_file_from(&c->clean, f);
	co_queue_wake_all(&c->room);
}

/* Gives up one reference; the last one of a dead block frees it. */
void cache_put(struct cache_block *b)
{
	g_assert(b->pins > 0);
	if (--b->pins == 0 && !b->nb_dirty)
		retire(b);
}

/*
 * An unhashed block with one pin, or NULL: out of memory. Takes the oldest one's
 * memory when the cache is full. Yields while everything is pinned; where dirty blocks fill it,
 * it grows, because whoever could write them may be the one who asks.
 */
static struct cache_block *take_block(struct cache *c)
{
	struct cache_block *b;
	void *data;

	while (c->count >= c->limit && !c->clean.oldest && c->nb_dirty < c->limit / 2)
		co_queue_wait(&c->room);
	if (c->count >= c->limit && c->clean.oldest) {
		b = c->clean.oldest;
		list_remove(&c->clean, b);
		unhash(b);
		data = b->data;
	} else {
		/* Aligned, so that O_DIRECT reads right into it. */
		if (posix_memalign(&data, CACHE_BLOCK, CACHE_BLOCK))
			return NULL;
		b = g_new(struct cache_block, 1);
		c->count++;
	}
	memset(b, 0, sizeof(*b));
	b->cache = c;
	b->data = data;
	b->pins = 1;
	memset(b->phase, CACHE_CLEAN, sizeof(b->phase));
	return b;
}

/* Nothing is read of what lies past the end of the file. */
static int read_block(struct cache_block *b)
{
	uint64_t at = b->number * CACHE_BLOCK;

	if (at < file_size(b->file))
		return file_read(b->file, at, b->data, CACHE_BLOCK);
	memset(b->data, 0, CACHE_BLOCK);
	return 0;
}

/* The caller will overwrite all of it (fresh): not read. 1: somebody else put it there. */
static int load(struct cache *c, struct file *f, uint64_t number, bool fresh,
		struct cache_block **block)
{
	struct cache_block *b = take_block(c), *other;

	if (!b)
		return -ENOMEM;
	other = cache_find(c, f, number);
	if (other) { /* somebody was faster while take_block waited */
		b->dead = true;
		cache_put(b);
		*block = other;
		return 1;
	}
	c->misses++;
	b->file = f;
	b->number = number;
	b->loading = true;
	b->chain = *bucket(c, f, number);
	*bucket(c, f, number) = b;

	b->error = fresh ? 0 : read_block(b);
	b->loading = false;
	if (b->error && !b->dead)
		unhash(b);
	co_queue_wake_all(&b->loaded);
	*block = b;
	return 0;
}

/* Sectors of it were written around the cache since they were loaded. */
static int refresh(struct cache_block *b)
{
	for (unsigned i = 0; i < CACHE_SECTORS; i++) {
		uint64_t at = b->number * CACHE_BLOCK + i * CACHE_SECTOR;
		int ret;

		if (!(b->stale >> i & 1))
			continue;
		ret = file_read(b->file, at, b->data + i * CACHE_SECTOR, CACHE_SECTOR);
		if (ret < 0)
			return ret;
		b->stale &= ~(1u << i);
	}
	return 0;
}

void cache_block_pin(struct cache_block *b)
{
	if (b->pins++ == 0 && !b->nb_dirty)
		list_remove(&b->cache->clean, b);
}

/* A block in the table: pins it and waits until it is loaded. */
static int use(struct cache_block *b, bool fresh)
{
	cache_block_pin(b);
	while (b->loading)
		co_queue_wait(&b->loaded);
	if (b->error)
		return b->error;
	if (G_UNLIKELY(b->stale) && fresh)
		b->stale = 0;
	return G_UNLIKELY(b->stale) ? refresh(b) : 0;
}

int cache_pin(struct cache *c, struct file *f, uint64_t number, bool fresh,
	      struct cache_block **block)
{
	struct cache_block *b = cache_find(c, f, number);
	int ret;

	if (b) {
		c->hits++;
		ret = use(b, fresh);
	} else {
		ret = load(c, f, number, fresh, &b);
		if (ret < 0)
			return ret;
		ret = ret == 1 ? use(b, fresh) : b->error;
	}
	if (ret < 0) {
		cache_put(b);
		return ret;
	}
	*block = b;
	return 0;
}

int cache_get(struct cache *c, struct file *f, uint64_t offset, struct cache_block **block,
	      const void **data, size_t *left)
{
	size_t in_block = offset % CACHE_BLOCK;
	int ret = cache_pin(c, f, offset / CACHE_BLOCK, false, block);

	if (ret < 0)
		return ret;
	*data = (*block)->data + in_block;
	*left = CACHE_BLOCK - in_block;
	return 0;
}

int cache_read(struct cache *c, struct file *f, uint64_t offset, void *buf, size_t len)
{
	while (len > 0) {
		struct cache_block *b;
		const void *data;
		size_t left;
		int ret = cache_get(c, f, offset, &b, &data, &left);

		if (ret < 0)
			return ret;
		left = MIN(left, len);
		memcpy(buf, data, left);
		cache_put(b);
		buf = (char *)buf + left;
		offset += left;
		len -= left;
	}
	return 0;
}

void cache_get_stats(const struct cache *c, struct cache_stats *stats)
{
	stats->bytes = c->count * CACHE_BLOCK;
	stats->limit = c->limit * CACHE_BLOCK;
	stats->dirty = c->nb_dirty * CACHE_BLOCK;
	stats->hits = c->hits;
	stats->misses = c->misses;
}
