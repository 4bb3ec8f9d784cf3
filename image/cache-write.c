/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The metadata cache: changing blocks, and writing them back phase by phase. Sectors
 * that follow one another in the file go out as one request, straight from the blocks.
 */
#include "config.h"

#include <errno.h>
#include <string.h>

#include "image/cache-internal.h"

#define RUN_PARTS 1024 /* buffers of one request: what the kernel takes at a time */

void cache_dirty(struct cache_block *b, const void *data, size_t len, unsigned phase)
{
	size_t start = (const uint8_t *)data - b->data;

	g_assert(b->pins > 0 && phase < CACHE_PHASES && len > 0 && start + len <= CACHE_BLOCK);
	/* Dropped while it was pinned: what it held is not wanted any more. */
	if (b->dead)
		return;
	for (size_t i = start / CACHE_SECTOR; i <= (start + len - 1) / CACHE_SECTOR; i++) {
		if (b->phase[i] == CACHE_CLEAN)
			cache_block_set_dirty(b, i, phase);
		else
			b->phase[i] = MIN(b->phase[i], phase);
	}
}

int cache_write(struct cache *c, struct file *f, uint64_t offset, const void *buf, size_t len,
		unsigned phase)
{
	while (len > 0) {
		size_t at = offset % CACHE_BLOCK, n = MIN(len, CACHE_BLOCK - at);
		struct cache_block *b;
		int ret = cache_pin(c, f, offset / CACHE_BLOCK, n == CACHE_BLOCK, &b);

		if (ret < 0)
			return ret;
		memcpy(b->data + at, buf, n);
		cache_dirty(b, b->data + at, n, phase);
		cache_put(b);
		buf = (const char *)buf + n;
		offset += n;
		len -= n;
	}
	return 0;
}

bool cache_has_dirty(const struct cache *c, const struct file *f, unsigned phase)
{
	for (const struct cache_block *b = c->dirty.oldest; b; b = b->newer)
		if (b->file == f && memchr(b->phase, phase, CACHE_SECTORS))
			return true;
	return false;
}

bool cache_wants_flush(const struct cache *c, const struct file *f)
{
	size_t n = 0;

	if (c->nb_dirty < c->limit / 2)
		return false;
	/* Flushing a file that has next to none of them would not help, and cost syncs. */
	for (const struct cache_block *b = c->dirty.oldest; b; b = b->newer)
		n += b->file == f;
	return n >= c->limit / 4;
}

/* ---- writing back ---------------------------------------------------------------------------- */

/* Sectors that follow one another, in blocks [first, last] of a sorted array. */
struct run {
	uint64_t start, end; /* bytes of the file */
	unsigned first, last;
};

static uint64_t sector_offset(const struct cache_block *b, unsigned sector)
{
	return b->number * CACHE_BLOCK + sector * CACHE_SECTOR;
}

static void mark_clean(const GPtrArray *blocks, const struct run *r, unsigned phase)
{
	for (unsigned k = r->first; k <= r->last; k++) {
		struct cache_block *b = g_ptr_array_index(blocks, k);

		for (unsigned i = 0; i < CACHE_SECTORS; i++)
			if (b->phase[i] == phase && sector_offset(b, i) >= r->start &&
			    sector_offset(b, i) < r->end)
				cache_block_set_clean(b, i);
	}
}

static int write_run(struct file *f, const GPtrArray *blocks, const struct run *r, unsigned phase)
{
	g_autofree struct iovec *iov = g_new(struct iovec, r->last - r->first + 1);
	int n = 0, ret;

	for (unsigned k = r->first; k <= r->last; k++) {
		struct cache_block *b = g_ptr_array_index(blocks, k);
		uint64_t start = MAX(r->start, sector_offset(b, 0));
		uint64_t end = MIN(r->end, sector_offset(b, CACHE_SECTORS));

		iov[n++] = (struct iovec){b->data + (start - sector_offset(b, 0)), end - start};
	}
	ret = file_writev(f, r->start, iov, n);
	if (ret == 0)
		mark_clean(blocks, r, phase);
	return ret;
}

static int write_blocks(struct file *f, const GPtrArray *blocks, unsigned phase)
{
	struct run r = {0};
	int ret = 0;

	for (unsigned k = 0; k < blocks->len; k++) {
		struct cache_block *b = g_ptr_array_index(blocks, k);

		for (unsigned i = 0; i < CACHE_SECTORS; i++) {
			uint64_t at = sector_offset(b, i);

			if (b->phase[i] != phase)
				continue;
			if (r.end > r.start && (at != r.end || k - r.first >= RUN_PARTS)) {
				int failed = write_run(f, blocks, &r, phase);

				ret = ret ? ret : failed;
				r.end = r.start = 0;
			}
			if (r.end == r.start)
				r = (struct run){.start = at, .first = k};
			r.end = at + CACHE_SECTOR;
			r.last = k;
		}
	}
	if (r.end > r.start) {
		int failed = write_run(f, blocks, &r, phase);

		ret = ret ? ret : failed;
	}
	return ret;
}

static int by_number(const void *a, const void *b)
{
	const struct cache_block *x = *(struct cache_block *const *)a,
				 *y = *(struct cache_block *const *)b;

	return (x->number > y->number) - (x->number < y->number);
}

int cache_write_phase(struct cache *c, struct file *f, unsigned phase)
{
	g_autoptr(GPtrArray) blocks = g_ptr_array_new();
	int ret;

	for (struct cache_block *b = c->dirty.oldest; b; b = b->newer)
		if (b->file == f && memchr(b->phase, phase, CACHE_SECTORS))
			g_ptr_array_add(blocks, b);
	if (!blocks->len)
		return 0;
	g_ptr_array_sort(blocks, by_number);
	/* Pinned, so that becoming clean does not end a block while the array names it. */
	for (unsigned i = 0; i < blocks->len; i++)
		cache_block_pin(g_ptr_array_index(blocks, i));
	ret = write_blocks(f, blocks, phase);
	for (unsigned i = 0; i < blocks->len; i++)
		cache_put(g_ptr_array_index(blocks, i));
	return ret;
}

/* ---- forgetting ------------------------------------------------------------------------------ */

static void drop_from(struct cache_block *b, uint64_t start, uint64_t end)
{
	uint64_t from = b->number * CACHE_BLOCK;

	if (start <= from && end >= from + CACHE_BLOCK) {
		cache_block_drop(b);
		return;
	}
	/* Its other sectors may be dirty: the block stays. */
	for (unsigned i = 0; i < CACHE_SECTORS; i++) {
		uint64_t at = sector_offset(b, i);

		if (at + CACHE_SECTOR > start && at < end)
			b->stale |= 1u << i;
	}
	cache_block_pin(b);
	for (unsigned i = 0; i < CACHE_SECTORS; i++)
		if ((b->stale >> i & 1) && b->phase[i] != CACHE_CLEAN)
			cache_block_set_clean(b, i);
	cache_put(b);
}

void cache_drop_range(struct cache *c, struct file *f, uint64_t offset, uint64_t len)
{
	uint64_t first = offset / CACHE_BLOCK, last, end = offset + len;

	if (!len)
		return;
	last = (end - 1) / CACHE_BLOCK;
	if (last - first < c->count) {
		for (uint64_t n = first; n <= last; n++) {
			struct cache_block *b = cache_find(c, f, n);

			if (b)
				drop_from(b, offset, end);
		}
		return;
	}
	/* A long range: the blocks are fewer than the numbers. */
	for (unsigned k = 0; k <= c->mask; k++) {
		struct cache_block *next;

		for (struct cache_block *b = c->buckets[k]; b; b = next) {
			next = b->chain;
			if (b->file == f && b->number >= first && b->number <= last)
				drop_from(b, offset, end);
		}
	}
}
