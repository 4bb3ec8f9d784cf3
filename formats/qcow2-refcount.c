/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: reference counts of host clusters ("Host cluster management"), read and changed
 * through the metadata cache. Changes are of phase QCOW2_NEW: a count that is raised must be
 * durable before what needs it, and one that is lowered can be at any time.
 */
#include "formats/qcow2.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "image/cache.h"

uint64_t qcow2_refcount_entry(const void *block, uint64_t i, unsigned order)
{
	const uint8_t *p = (const uint8_t *)block + (i << order) / 8;

	switch (order) {
	case 3:
		return *p;
	case 4:
		return be16_get(*(const be16_t *)p);
	case 5:
		return be32_get(*(const be32_t *)p);
	case 6:
		return be64_get(*(const be64_t *)p);
	default: /* parts of a byte, the lowest bits first */
		return *p >> ((i << order) & 7) & ((1u << (1u << order)) - 1);
	}
}

void qcow2_set_refcount_entry(void *block, uint64_t i, unsigned order, uint64_t count)
{
	uint8_t *p = (uint8_t *)block + (i << order) / 8;
	unsigned mask, shift;

	switch (order) {
	case 3:
		*p = count;
		break;
	case 4:
		*(be16_t *)p = be16_make(count);
		break;
	case 5:
		*(be32_t *)p = be32_make(count);
		break;
	case 6:
		*(be64_t *)p = be64_make(count);
		break;
	default:
		shift = (i << order) & 7;
		mask = ((1u << (1u << order)) - 1) << shift;
		*p = (*p & ~mask) | (count << shift & mask);
	}
}

static uint64_t max_count(const struct qcow2 *q)
{
	return UINT64_MAX >> (64 - (1u << q->header.refcount_order));
}

unsigned qcow2_block_bits(const struct qcow2 *q)
{
	return q->cluster_bits + 3 - q->header.refcount_order;
}

uint64_t qcow2_reftable_entries(const struct qcow2 *q)
{
	return ((uint64_t)q->header.reftable_clusters << q->cluster_bits) / 8;
}

/* Where the refcount block of this index lies; 0: there is none. */
static int find_block(struct image *img, uint64_t index, uint64_t *offset)
{
	const struct qcow2 *q = qcow2_of(img);
	uint64_t entry;
	be64_t e;
	int ret;

	*offset = 0;
	if (index >= qcow2_reftable_entries(q))
		return 0;
	ret = cache_read(img->cache, img->file, q->header.reftable_offset + index * 8, &e,
			 sizeof(e));
	if (ret < 0) {
		image_fault(img, ret, 0, "the refcount table cannot be read");
		return ret;
	}
	entry = be64_get(e);
	if (!entry)
		return 0;
	if ((entry & QCOW2_REFTABLE_RESERVED) || (entry & (q->cluster_size - 1)) ||
	    !qcow2_inside(entry, q->cluster_size, q->file_size + q->cluster_size - 1) ||
	    qcow2_fixed_overlap(q, entry, q->cluster_size))
		return qcow2_mark_corrupt(img, 0,
					  "entry %" PRIu64 " of the refcount table, 0x%" PRIx64
					  ", is not the place of a refcount block",
					  index, entry);
	*offset = entry;
	return 0;
}

int qcow2_counts_get(struct image *img, uint64_t cluster, uint64_t n, struct qcow2_counts *c)
{
	const struct qcow2 *q = qcow2_of(img);
	unsigned order = q->header.refcount_order, bits = qcow2_block_bits(q);
	uint64_t within = cluster & ((1ull << bits) - 1), at = (within << order) / 8, block;
	const void *data;
	size_t left;
	int ret = find_block(img, cluster >> bits, &block);

	*c = (struct qcow2_counts){.n = MIN(n, (1ull << bits) - within)};
	if (ret < 0 || !block)
		return ret;
	ret = cache_get(img->cache, img->file, block + at, &c->block, &data, &left);
	if (ret < 0) {
		image_fault(img, ret, 0, "the refcount block at 0x%" PRIx64 " cannot be read",
			    block);
		return ret;
	}
	c->data = (uint8_t *)data;
	c->first = order < 3 ? within & ((8 >> order) - 1) : 0;
	c->n = MIN(c->n, ((uint64_t)left * 8 >> order) - c->first);
	return 0;
}

void qcow2_counts_put(struct qcow2_counts *c)
{
	if (c->block)
		cache_put(c->block);
	c->block = NULL;
}

int qcow2_refcount(struct image *img, uint64_t host, uint64_t *count)
{
	const struct qcow2 *q = qcow2_of(img);
	struct qcow2_counts c;
	int ret = qcow2_counts_get(img, host >> q->cluster_bits, 1, &c);

	*count = 0;
	if (ret < 0 || !c.block)
		return ret;
	*count = qcow2_refcount_entry(c.data, c.first, q->header.refcount_order);
	qcow2_counts_put(&c);
	return 0;
}

/* ---- changing ----------------------------------------------------------------------------------
 */

static int no_count(struct image *img, uint64_t cluster)
{
	return qcow2_mark_corrupt(img, 0,
				  "the cluster at offset 0x%" PRIx64
				  " of the file is in use, but its refcount is 0",
				  cluster << qcow2_of(img)->cluster_bits);
}

/* Can the counts of n clusters be raised (by 1) or lowered (by -1)? Changes none. */
static int may_change(struct image *img, uint64_t cluster, uint64_t n, int by)
{
	const struct qcow2 *q = qcow2_of(img);

	while (n > 0) {
		struct qcow2_counts c;
		int ret = qcow2_counts_get(img, cluster, n, &c);

		if (ret < 0)
			return ret;
		if (!c.block)
			return no_count(img, cluster);
		for (uint64_t i = 0; i < c.n && ret == 0; i++) {
			uint64_t count =
				qcow2_refcount_entry(c.data, c.first + i, q->header.refcount_order);

			if (count == 0)
				ret = no_count(img, cluster + i);
			else if (by > 0 && count == max_count(q))
				ret = -EOVERFLOW;
		}
		qcow2_counts_put(&c);
		if (ret < 0)
			return ret;
		cluster += c.n;
		n -= c.n;
	}
	return 0;
}

/* Nothing refers to it any more. */
static void note_free(struct image *img, uint64_t cluster)
{
	struct qcow2 *q = qcow2_of(img);
	struct qcow2_writer *w = q->writer;
	uint64_t host = cluster << q->cluster_bits;

	g_hash_table_remove(w->tables, (gpointer)(uintptr_t)cluster);
	cache_drop_range(img->cache, img->file, host, q->cluster_size);
	if (w->coded_at && (w->coded_at - 1) >> q->cluster_bits == cluster)
		w->coded_at = 0;
}

/* Longer searches are not sent back for a short run: they would go through all of the file. */
static void lower_hints(struct qcow2_writer *w, uint64_t cluster, uint64_t run)
{
	for (unsigned k = 0; k < QCOW2_HINTS && run >> k; k++)
		w->hint[k] = MIN(w->hint[k], cluster);
}

static int change(struct image *img, uint64_t cluster, uint64_t n, int by)
{
	const struct qcow2 *q = qcow2_of(img);
	unsigned order = q->header.refcount_order;
	uint64_t run = 0;

	while (n > 0) {
		struct qcow2_counts c;
		int ret = qcow2_counts_get(img, cluster, n, &c);

		if (ret < 0)
			return ret;
		for (uint64_t i = 0; i < c.n; i++) {
			uint64_t count = qcow2_refcount_entry(c.data, c.first + i, order) + by;

			qcow2_set_refcount_entry(c.data, c.first + i, order, count);
			run = count ? 0 : run + 1;
			if (count)
				continue;
			note_free(img, cluster + i);
			lower_hints(q->writer, cluster + i + 1 - run, run);
		}
		cache_dirty(c.block, c.data, (((c.first + c.n) << order) + 7) / 8, QCOW2_NEW);
		qcow2_counts_put(&c);
		cluster += c.n;
		n -= c.n;
	}
	return 0;
}

static int change_region(struct image *img, uint64_t host, uint64_t len, int by)
{
	const struct qcow2 *q = qcow2_of(img);
	uint64_t first = host >> q->cluster_bits, n;
	int ret;

	if (!len)
		return 0;
	n = ((host + len - 1) >> q->cluster_bits) - first + 1;
	ret = may_change(img, first, n, by);
	return ret < 0 ? ret : change(img, first, n, by);
}

int qcow2_ref(struct image *img, uint64_t host, uint64_t len)
{
	int ret = qcow2_begin(img);

	return ret < 0 ? ret : change_region(img, host, len, 1);
}

int qcow2_unref(struct image *img, uint64_t host, uint64_t len)
{
	return change_region(img, host, len, -1);
}
