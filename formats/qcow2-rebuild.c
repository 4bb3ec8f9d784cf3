/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: a new refcount structure ("Host cluster management") for an image whose old one is lost or
 * has entries of another width. Order of writes: blocks and table where nothing is, sync, then the
 * header's sector, sync. Cut before the last one, the old structure still holds, and what was
 * written lies past the end of what it counts.
 */
#include "formats/qcow2.h"

#include <errno.h>
#include <string.h>

#include "image/cache.h"
#include "image/spacemap.h"

struct rebuild {
	struct image *img;
	struct qcow2 *q;
	const struct spacemap *counts, *minus;
	uint64_t clusters; /* counted */
	unsigned order, block_bits;
	uint64_t first, n; /* where the new clusters are: blocks, then the table */
	uint64_t table_clusters;
	GArray *blocks; /* uint64_t: indices, ascending */
};

static uint64_t count_of(const struct rebuild *r, uint64_t cluster)
{
	if (cluster >= r->first && cluster < r->first + r->n)
		return 1;
	if (cluster >= r->clusters)
		return 0;
	return spacemap_get(r->counts, cluster) - (r->minus ? spacemap_get(r->minus, cluster) : 0);
}

/* Does a count that is not 0 belong into block i? */
static bool block_needed(const struct rebuild *r, uint64_t i)
{
	uint64_t start = i << r->block_bits, end = (i + 1) << r->block_bits;

	if (start < r->first + r->n && r->first < end)
		return true;
	for (uint64_t c = start; c < MIN(end, r->clusters); c++)
		if (count_of(r, c))
			return true;
	return false;
}

static void find_blocks(struct rebuild *r)
{
	uint64_t end = MAX(r->clusters, r->first + r->n);

	g_array_set_size(r->blocks, 0);
	for (uint64_t i = 0; i << r->block_bits < end; i++)
		if (block_needed(r, i))
			g_array_append_val(r->blocks, i);
}

/* The new clusters are counted by the blocks that lie in them, so their number is found by trying
 * until it no longer grows. */
static int plan(struct rebuild *r)
{
	uint64_t file_end =
		(file_size(r->img->file) + r->q->cluster_size - 1) >> r->q->cluster_bits;

	r->first = MAX(file_end, r->clusters);
	for (;;) {
		uint64_t n, last;

		find_blocks(r);
		last = r->blocks->len ? g_array_index(r->blocks, uint64_t, r->blocks->len - 1) : 0;
		r->table_clusters = ((last + 1) * 8 + r->q->cluster_size - 1) >> r->q->cluster_bits;
		if (r->table_clusters << r->q->cluster_bits > QCOW2_MAX_REFTABLE_BYTES)
			return -EFBIG;
		n = r->blocks->len + r->table_clusters;
		if (n == r->n)
			return 0;
		r->n = n; /* never less than before: more clusters need no fewer blocks */
	}
}

static int write_block(struct rebuild *r, uint64_t which, uint8_t *buf)
{
	uint64_t i = g_array_index(r->blocks, uint64_t, which), n = 1ull << r->block_bits;

	memset(buf, 0, r->q->cluster_size);
	for (uint64_t c = 0; c < n; c++) {
		uint64_t count = count_of(r, (i << r->block_bits) + c);

		if (r->order < 6 && count >> (1u << r->order))
			return -ERANGE;
		if (count)
			qcow2_set_refcount_entry(buf, c, r->order, count);
	}
	return file_write(r->img->file, (r->first + which) << r->q->cluster_bits, buf,
			  r->q->cluster_size);
}

static int write_table(struct rebuild *r)
{
	uint64_t len = r->table_clusters << r->q->cluster_bits;
	g_autofree be64_t *table = g_try_malloc0(len);

	if (!table)
		return -ENOMEM;
	for (guint w = 0; w < r->blocks->len; w++)
		table[g_array_index(r->blocks, uint64_t, w)] =
			be64_make((r->first + w) << r->q->cluster_bits);
	return file_write(r->img->file, (r->first + r->blocks->len) << r->q->cluster_bits, table,
			  len);
}

static int write_all(struct rebuild *r)
{
	g_autofree uint8_t *buf = g_try_malloc(r->q->cluster_size);
	int err = buf ? 0 : -ENOMEM;

	for (guint w = 0; !err && w < r->blocks->len; w++)
		err = write_block(r, w, buf);
	if (!err)
		err = write_table(r);
	return err ? err : file_flush(r->img->file);
}

/* The point of commit. */
static int switch_over(struct rebuild *r)
{
	struct qcow2_header *h = &r->q->header, old = *h;
	int err;

	h->reftable_offset = (r->first + r->blocks->len) << r->q->cluster_bits;
	h->reftable_clusters = r->table_clusters;
	h->refcount_order = r->order;
	err = qcow2_header_store_fixed(r->img);
	if (err)
		*h = old;
	return err;
}

int qcow2_rebuild_refcounts(struct image *img, const struct spacemap *counts,
			    const struct spacemap *minus, uint64_t clusters, unsigned order)
{
	struct qcow2 *q = qcow2_of(img);
	struct rebuild r = {
		.img = img,
		.q = q,
		.counts = counts,
		.minus = minus,
		.clusters = clusters,
		.order = order,
		.block_bits = q->cluster_bits + 3 - order,
		.blocks = g_array_new(FALSE, FALSE, sizeof(uint64_t)),
	};
	int err = plan(&r);

	if (!err)
		err = write_all(&r);
	if (!err)
		err = switch_over(&r);
	g_array_unref(r.blocks);
	cache_drop_file(img->cache, img->file);
	qcow2_relayout(img);
	return err;
}

int qcow2_header_store_fixed(struct image *img)
{
	const struct qcow2_header *h = &qcow2_of(img)->header;
	struct qcow2_header_disk d;
	size_t len = h->version >= 3 ? QCOW2_HEADER_V3 : QCOW2_HEADER_V2;
	int err = file_read(img->file, 0, &d, len);

	if (err)
		return err;
	d.size = be64_make(h->size);
	d.l1_size = be32_make(h->l1_size);
	d.l1_offset = be64_make(h->l1_offset);
	d.reftable_offset = be64_make(h->reftable_offset);
	d.reftable_clusters = be32_make(h->reftable_clusters);
	d.nb_snapshots = be32_make(h->nb_snapshots);
	d.snapshots_offset = be64_make(h->snapshots_offset);
	if (h->version >= 3) {
		d.incompatible = be64_make(h->incompatible);
		d.compatible = be64_make(h->compatible);
		d.autoclear = be64_make(h->autoclear);
		d.refcount_order = be32_make(h->refcount_order);
	}
	err = file_write(img->file, 0, &d, len);
	return err ? err : file_flush(img->file);
}
