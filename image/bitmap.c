/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image/bitmap.h"

#include <errno.h>
#include <glib.h>
#include <stdlib.h>
#include <string.h>

#include "image/image.h"

#define PAGE	  4096u
#define PAGE_BITS (PAGE * 8ull)

struct bitmap {
	uint64_t size; /* bytes of the disk */
	unsigned shift;
	uint64_t bits;
	uint8_t **pages; /* NULL: all clear */
};

static uint64_t page_count(const struct bitmap *b)
{
	return (b->bits + PAGE_BITS - 1) / PAGE_BITS;
}

struct bitmap *bitmap_new(uint64_t size, unsigned granularity_bits)
{
	uint64_t bits = (size >> granularity_bits) +
			((size & ((UINT64_C(1) << granularity_bits) - 1)) != 0);
	struct bitmap *b;

	if (bits > BITMAP_MAX_BYTES * 8ull)
		return NULL;
	b = g_new(struct bitmap, 1);
	*b = (struct bitmap){.size = size, .shift = granularity_bits, .bits = bits};
	b->pages = g_try_new0(uint8_t *, page_count(b));
	if (!b->pages && bits) {
		g_free(b);
		return NULL;
	}
	return b;
}

void bitmap_free(struct bitmap *b)
{
	if (!b)
		return;
	for (uint64_t i = 0; i < page_count(b); i++)
		free(b->pages[i]);
	g_free(b->pages);
	g_free(b);
}

unsigned bitmap_granularity_bits(const struct bitmap *b)
{
	return b->shift;
}

uint64_t bitmap_size(const struct bitmap *b)
{
	return b->size;
}

uint64_t bitmap_length(const struct bitmap *b)
{
	return (b->bits + 7) / 8;
}

/* ---- bits --------------------------------------------------------------------------------------
 */

static uint8_t *page_for_writing(struct bitmap *b, uint64_t page)
{
	if (!b->pages[page])
		b->pages[page] = calloc(1, PAGE);
	return b->pages[page];
}

/* Bits first..last of one page. */
static void set_in_page(uint8_t *page, unsigned first, unsigned last)
{
	unsigned from = first / 8, to = last / 8;
	uint8_t head = 0xff << first % 8, tail = 0xff >> (7 - last % 8);

	if (from == to) {
		page[from] |= head & tail;
		return;
	}
	page[from] |= head;
	memset(page + from + 1, 0xff, to - from - 1);
	page[to] |= tail;
}

static int set_bits(struct bitmap *b, uint64_t first, uint64_t last)
{
	for (uint64_t page = first / PAGE_BITS; page <= last / PAGE_BITS; page++) {
		uint64_t start = page * PAGE_BITS;
		uint8_t *bytes = page_for_writing(b, page);

		if (!bytes)
			return -ENOMEM;
		set_in_page(bytes, MAX(first, start) - start,
			    MIN(last, start + PAGE_BITS - 1) - start);
	}
	return 0;
}

int bitmap_set(struct bitmap *b, uint64_t offset, uint64_t len)
{
	if (len == 0 || offset >= b->size)
		return 0;
	len = MIN(len, b->size - offset);
	return set_bits(b, offset >> b->shift, (offset + len - 1) >> b->shift);
}

static bool get_bit(const struct bitmap *b, uint64_t bit)
{
	const uint8_t *page = b->pages[bit / PAGE_BITS];

	return page && (page[bit % PAGE_BITS / 8] >> bit % 8 & 1);
}

/* The first bit from `bit` on that is `wanted`; b->bits when there is none. Whole pages and bytes
 * that cannot have it are passed over. */
static uint64_t find_bit(const struct bitmap *b, uint64_t bit, bool wanted)
{
	uint8_t dull = wanted ? 0 : 0xff;

	while (bit < b->bits && get_bit(b, bit) != wanted) {
		const uint8_t *page = b->pages[bit / PAGE_BITS];

		if (!page)
			bit = (bit / PAGE_BITS + 1) * PAGE_BITS;
		else if (bit % 8 == 0 && page[bit % PAGE_BITS / 8] == dull)
			bit += 8;
		else
			bit++;
	}
	return MIN(bit, b->bits);
}

bool bitmap_next(const struct bitmap *b, uint64_t *offset, uint64_t *len)
{
	uint64_t first, after;

	if (*offset >= b->size)
		return false;
	first = find_bit(b, *offset >> b->shift, true);
	if (first == b->bits)
		return false;
	after = find_bit(b, first, false);
	*offset = MAX(*offset, first << b->shift);
	*len = (after == b->bits ? b->size : after << b->shift) - *offset;
	return true;
}

int bitmap_merge(struct bitmap *b, const struct bitmap *other)
{
	uint64_t offset = 0, len = 0;
	int ret = 0;

	for (; ret == 0 && bitmap_next(other, &offset, &len); offset += len)
		ret = bitmap_set(b, offset, len);
	return ret;
}

struct bitmap *bitmap_resized(const struct bitmap *b, uint64_t size)
{
	struct bitmap *new = bitmap_new(size, b->shift);

	if (new &&bitmap_merge(new, b) < 0) {
		bitmap_free(new);
		return NULL;
	}
	return new;
}

/* ---- bytes -------------------------------------------------------------------------------------
 */

bool bitmap_get_bytes(const struct bitmap *b, uint64_t at, void *buf, size_t len)
{
	bool any = false;

	memset(buf, 0, len);
	for (size_t done = 0; done < len && at + done < bitmap_length(b);) {
		size_t within = (at + done) % PAGE, n = MIN(len - done, PAGE - within);
		const uint8_t *page = b->pages[(at + done) / PAGE];

		if (page) {
			memcpy((uint8_t *)buf + done, page + within, n);
			any = any || !buffer_is_zero(page + within, n);
		}
		done += n;
	}
	return any;
}

/* So that no bit is ever set behind the disk's end. */
static void clear_tail(struct bitmap *b)
{
	uint8_t *page = b->bits % 8 ? b->pages[b->bits / PAGE_BITS] : NULL;

	if (page)
		page[b->bits % PAGE_BITS / 8] &= 0xff >> (8 - b->bits % 8);
}

int bitmap_or_bytes(struct bitmap *b, uint64_t at, const void *buf, size_t len)
{
	uint64_t length = bitmap_length(b);

	len = at < length ? MIN(len, length - at) : 0;
	for (size_t done = 0; done < len;) {
		size_t within = (at + done) % PAGE, n = MIN(len - done, PAGE - within);
		const uint8_t *from = (const uint8_t *)buf + done;

		if (!buffer_is_zero(from, n)) {
			uint8_t *page = page_for_writing(b, (at + done) / PAGE);

			if (!page)
				return -ENOMEM;
			for (size_t i = 0; i < n; i++)
				page[within + i] |= from[i];
		}
		done += n;
	}
	clear_tail(b);
	return 0;
}
