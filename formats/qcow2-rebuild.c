/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: a new refcount structure ("Host cluster management") for an image whose old one is lost or
 * has entries of another width. Order of writes: blocks and table where nothing is, sync, then the
 * header's sector, sync. Cut before the last one, the old structure still holds, and what was
 * written lies past the end of what it counts.
 */
#include "formats/qcow2.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "image/cache.h"

struct rebuild {
	struct image *img;
	struct qcow2 *q;
	const struct qcow2_count_source *source;
	uint64_t clusters; /* counted */
	unsigned order, block_bits;
	uint64_t first, n; /* where the new clusters are: blocks, then the table */
	uint64_t table_clusters;
	GArray *blocks; /* uint64_t: indices, ascending */
};

static int count_of(const struct rebuild *r, uint64_t cluster, uint64_t *count)
{
	*count = cluster >= r->first && cluster < r->first + r->n;
	if (*count || cluster >= r->clusters)
		return 0;
	return r->source->get(r->source->arg, cluster, count);
}

/* Does a count that is not 0 belong into block i? */
static int block_needed(const struct rebuild *r, uint64_t i, bool *needed)
{
	uint64_t start = i << r->block_bits, end = (i + 1) << r->block_bits;
	int err = 0;

	*needed = start < r->first + r->n && r->first < end;
	for (uint64_t c = start; !err && !*needed && c < MIN(end, r->clusters); c++) {
		uint64_t count;

		err = count_of(r, c, &count);
		*needed = count != 0;
	}
	return err;
}

static int find_blocks(struct rebuild *r)
{
	uint64_t end = MAX(r->clusters, r->first + r->n);
	bool needed;
	int err = 0;

	g_array_set_size(r->blocks, 0);
	for (uint64_t i = 0; !err && i << r->block_bits < end; i++) {
		err = block_needed(r, i, &needed);
		if (!err && needed)
			g_array_append_val(r->blocks, i);
	}
	return err;
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
		int err = find_blocks(r);

		if (err)
			return err;
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
		uint64_t count;
		int err = count_of(r, (i << r->block_bits) + c, &count);

		if (err)
			return err;
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

	for (guint w = 0; !err && w < r->blocks->len; w++) {
		err = write_block(r, w, buf);
		if (r->source->progress && r->source->progress->tell)
			r->source->progress->tell(r->source->progress->arg, w + 1, r->blocks->len);
	}
	if (!err)
		err = write_table(r);
	return err ? err : qcow2_sync(r->img, r->img->file);
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

int qcow2_rebuild_refcounts(struct image *img, const struct qcow2_count_source *source,
			    uint64_t clusters, unsigned order)
{
	struct qcow2 *q = qcow2_of(img);
	struct rebuild r = {
		.img = img,
		.q = q,
		.source = source,
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
	if (q->writer)
		qcow2_writer_forget(q->writer);
	return err;
}

/* ---- another width -----------------------------------------------------------------------------
 */

struct stored {
	struct image *img;
	GHashTable *structure; /* clusters of the old table and its blocks, which will be free */
	uint64_t greatest, where;
};

static int get_stored(void *arg, uint64_t cluster, uint64_t *count)
{
	struct stored *s = arg;
	int err;

	*count = 0;
	/* Each block is read once in a walk. Kept, those of a large disk would be most of the
	 * memory that this takes; nothing is dirty. */
	if (!(cluster & ((1ull << qcow2_block_bits(qcow2_of(s->img))) - 1)))
		cache_drop_file(s->img->cache, s->img->file);
	if (g_hash_table_contains(s->structure, (gpointer)(uintptr_t)cluster))
		return 0;
	err = qcow2_refcount(s->img, cluster << qcow2_of(s->img)->cluster_bits, count);
	if (*count > s->greatest) {
		s->greatest = *count;
		s->where = cluster;
	}
	return err;
}

static int note_structure(struct stored *s)
{
	const struct qcow2 *q = qcow2_of(s->img);
	uint64_t table = q->header.reftable_offset >> q->cluster_bits;
	int err = 0;

	for (uint64_t i = 0; i < q->header.reftable_clusters; i++)
		g_hash_table_add(s->structure, (gpointer)(uintptr_t)(table + i));
	for (uint64_t i = 0; !err && i < qcow2_reftable_entries(q); i++) {
		uint64_t block;
		be64_t entry;

		err = cache_read(s->img->cache, s->img->file, q->header.reftable_offset + i * 8,
				 &entry, sizeof(entry));
		block = (be64_get(entry) & QCOW2_REFTABLE_OFFSET_MASK) >> q->cluster_bits;
		if (!err && block)
			g_hash_table_add(s->structure, (gpointer)(uintptr_t)block);
	}
	return err;
}

int qcow2_change_refcount_order(struct image *img, unsigned order,
				const struct image_progress *progress, GError **error)
{
	struct qcow2 *q = qcow2_of(img);
	struct stored s = {.img = img, .structure = g_hash_table_new(NULL, NULL)};
	struct qcow2_count_source source = {get_stored, &s, progress};
	uint64_t clusters = (q->file_size + q->cluster_size - 1) >> q->cluster_bits;
	/* What is dirty would be lost with the old structure's blocks. */
	int err = qcow2_flush(img);

	if (!err)
		err = file_flush(img->file);
	if (!err)
		err = note_structure(&s);
	if (!err)
		err = qcow2_rebuild_refcounts(img, &source, clusters, order);
	g_hash_table_unref(s.structure);
	if (err == -ERANGE)
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_UNSUPPORTED,
			    "Cannot decrease refcount entry width to %u bits: Cluster at offset "
			    "0x%" PRIx64 " has a refcount of %" PRIu64,
			    1u << order, s.where << q->cluster_bits, s.greatest);
	return err;
}

/* ---- the header --------------------------------------------------------------------------------
 */

int qcow2_header_store_fixed(struct image *img)
{
	const struct qcow2_header *h = &qcow2_of(img)->header;
	struct qcow2_header_disk d, old;
	size_t len = h->version >= 3 ? QCOW2_HEADER_V3 : QCOW2_HEADER_V2;
	int err = file_read(img->file, 0, &d, len);

	if (err)
		return err;
	old = d;
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
	return qcow2_header_switch(img, &old, &d, len);
}
