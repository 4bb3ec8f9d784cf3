/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The metadata cache: blocks of files in a hash table with a list by age.
 * A block that is pinned or being read is not on the list. A hit allocates
 * nothing and does not yield. All users are coroutines of one loop.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image/cache.h"
#include "io/co.h"
#include "io/file.h"

#define MIN_BLOCKS 64

struct cache_block {
	struct cache *cache;
	struct file *file;
	uint64_t number;		   /* offset / CACHE_BLOCK */
	struct cache_block *chain;	   /* next in the hash bucket */
	struct cache_block *older, *newer; /* only while unpinned */
	unsigned pins;
	bool loading, dead; /* dead: out of the table, freed at the last put */
	int error;
	struct co_queue loaded;
	uint8_t *data;
};

struct cache {
	unsigned refs;
	size_t limit, count; /* blocks */
	struct cache_block **buckets;
	size_t mask;
	struct cache_block *oldest, *newest;
	struct co_queue room; /* those that wait for a block to be unpinned */
	uint64_t hits, misses;
};

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

static struct cache_block *find(struct cache *c, const struct file *f, uint64_t number)
{
	struct cache_block *b = *bucket(c, f, number);

	while (b && (b->number != number || b->file != f))
		b = b->chain;
	return b;
}

static void list_remove(struct cache_block *b)
{
	struct cache *c = b->cache;

	*(b->older ? &b->older->newer : &c->oldest) = b->newer;
	*(b->newer ? &b->newer->older : &c->newest) = b->older;
	b->older = b->newer = NULL;
}

static void list_append(struct cache_block *b)
{
	struct cache *c = b->cache;

	b->older = c->newest;
	b->newer = NULL;
	*(c->newest ? &c->newest->newer : &c->oldest) = b;
	c->newest = b;
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

void cache_unref(struct cache *c)
{
	if (!c || --c->refs)
		return;
	while (c->oldest) {
		struct cache_block *b = c->oldest;

		list_remove(b);
		unhash(b);
		destroy(b);
	}
	g_assert(c->count == 0);
	g_free(c->buckets);
	g_free(c);
}

void cache_drop_file(struct cache *c, struct file *f)
{
	struct cache_block *next;

	for (struct cache_block *b = c->oldest; b; b = next) {
		next = b->newer;
		if (b->file != f)
			continue;
		list_remove(b);
		unhash(b);
		destroy(b);
	}
	co_queue_wake_all(&c->room);
}

/* Gives up one reference; the last one of a dead block frees it. */
void cache_put(struct cache_block *b)
{
	struct cache *c = b->cache;

	g_assert(b->pins > 0);
	if (--b->pins)
		return;
	if (b->dead)
		destroy(b);
	else
		list_append(b);
	if (c->room.head)
		co_queue_wake_one(&c->room);
}

/* An unhashed block with one pin, or NULL: out of memory. Takes the oldest one's
 * memory when the cache is full. Yields while everything is pinned. */
static struct cache_block *take_block(struct cache *c)
{
	struct cache_block *b;
	void *data;

	while (c->count >= c->limit && !c->oldest)
		co_queue_wait(&c->room);
	if (c->count >= c->limit) {
		b = c->oldest;
		list_remove(b);
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
	return b;
}

static int load(struct cache *c, struct file *f, uint64_t number, struct cache_block **block)
{
	struct cache_block *b = take_block(c), *other;

	if (!b)
		return -ENOMEM;
	other = find(c, f, number);
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

	b->error = file_read(f, number * CACHE_BLOCK, b->data, CACHE_BLOCK);
	b->loading = false;
	if (b->error)
		unhash(b);
	co_queue_wake_all(&b->loaded);
	*block = b;
	return 0;
}

/* A block in the table: pins it and waits until it is loaded. */
static int use(struct cache_block *b)
{
	if (b->pins++ == 0)
		list_remove(b);
	while (b->loading)
		co_queue_wait(&b->loaded);
	return b->error;
}

int cache_get(struct cache *c, struct file *f, uint64_t offset, struct cache_block **block,
	      const void **data, size_t *left)
{
	uint64_t number = offset / CACHE_BLOCK;
	size_t in_block = offset % CACHE_BLOCK;
	struct cache_block *b = find(c, f, number);
	int ret;

	if (b) {
		c->hits++;
		ret = use(b);
	} else {
		ret = load(c, f, number, &b);
		if (ret < 0)
			return ret;
		ret = ret == 1 ? use(b) : b->error;
	}
	if (ret < 0) {
		cache_put(b);
		return ret;
	}
	*block = b;
	*data = b->data + in_block;
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
	stats->hits = c->hits;
	stats->misses = c->misses;
}
