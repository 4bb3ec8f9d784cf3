/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: counts that change in the same moment as what the header points at ("Host cluster
 * management").
 *
 * An entry's COPIED flag says that its cluster's count is 1. The two lie in different sectors, and
 * in place there is no order for them: qemu-img check calls it corruption both when the flag is set
 * and the count is higher, and when the count is 1 and the flag is not set, although nothing that
 * is shared is ever overwritten in either state, and `check -r leaks` makes both clean. (qemu-img
 * 7.2 itself, killed at each write of `snapshot -c` and `-d`, leaves such states at most of them.)
 * So where both change, neither is changed in place: the entries are in new tables, the counts in
 * new refcount blocks below a new refcount table, and one write of the header's sector makes all of
 * them the image's. Cut before it, the new clusters are leaks; cut after it, the old blocks are.
 */
#include "formats/qcow2.h"

#include <errno.h>
#include <string.h>

#include "image/cache.h"

struct moved_block {
	uint64_t index, from, to; /* of the refcount table; bytes of the file */
};

static uint64_t table_bytes(const struct qcow2 *q)
{
	return (uint64_t)q->header.reftable_clusters << q->cluster_bits;
}

static void set_table(struct qcow2 *q, uint64_t offset)
{
	q->header.reftable_offset = offset;
	qcow2_collect_fixed(q);
}

/* Which blocks count these regions: a byte for each entry of the refcount table. */
static void mark(const struct qcow2 *q, const GArray *regions, uint8_t *wanted, uint64_t entries)
{
	unsigned bits = q->cluster_bits + qcow2_block_bits(q);

	for (guint i = 0; regions && i < regions->len; i++) {
		const struct qcow2_region *r = &g_array_index(regions, struct qcow2_region, i);
		uint64_t last = r->len ? (r->host + r->len - 1) >> bits : 0;

		for (uint64_t k = r->host >> bits; r->len && k <= last && k < entries; k++)
			wanted[k] = 1;
	}
}

/* Finds and names the blocks. One that is missing is for who changes its counts to complain of. */
static int find_blocks(struct image *img, const uint8_t *wanted, uint64_t entries, GArray *blocks)
{
	const struct qcow2 *q = qcow2_of(img);
	int ret = 0;

	for (uint64_t i = 0; ret == 0 && i < entries; i++) {
		struct moved_block b = {.index = i};
		be64_t entry;

		if (!wanted[i])
			continue;
		ret = cache_read(img->cache, img->file, q->header.reftable_offset + i * 8, &entry,
				 sizeof(entry));
		b.from = be64_get(entry) & QCOW2_REFTABLE_OFFSET_MASK;
		if (ret == 0 && b.from)
			g_array_append_val(blocks, b);
	}
	return ret;
}

/* Clusters for the new blocks and the new table, which may need a larger table than there was. */
static int allocate(struct image *img, struct qcow2_shadow *s)
{
	struct qcow2 *q = qcow2_of(img);
	int ret = 0;

	for (guint i = 0; ret == 0 && i < s->blocks->len; i++) {
		struct moved_block *b = &g_array_index(s->blocks, struct moved_block, i);

		ret = qcow2_alloc(img, q->cluster_size, &b->to);
	}
	while (ret == 0 && s->len != table_bytes(q)) {
		if (s->new_table)
			qcow2_unref(img, s->new_table, s->len);
		s->new_table = 0;
		s->len = table_bytes(q);
		ret = qcow2_alloc(img, s->len, &s->new_table);
	}
	s->old_table = q->header.reftable_offset;
	return ret;
}

static int copy_blocks(struct image *img, const struct qcow2_shadow *s)
{
	struct qcow2 *q = qcow2_of(img);
	int ret = qcow2_copy_table(img, s->old_table, s->new_table, s->len);

	for (guint i = 0; ret == 0 && i < s->blocks->len; i++) {
		const struct moved_block *b = &g_array_index(s->blocks, struct moved_block, i);
		be64_t entry = be64_make(b->to);

		ret = qcow2_copy_table(img, b->from, b->to, q->cluster_size);
		if (ret == 0)
			ret = cache_write(img->cache, img->file, s->new_table + b->index * 8,
					  &entry, sizeof(entry), QCOW2_NEW);
		qcow2_note_table(q, b->to);
	}
	return ret;
}

int qcow2_shadow_begin(struct image *img, struct qcow2_shadow *s, const GArray *a, const GArray *b)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t entries = qcow2_reftable_entries(q);
	g_autofree uint8_t *wanted = g_try_malloc0(MAX(entries, 1));
	int ret = wanted ? 0 : -ENOMEM;

	*s = (struct qcow2_shadow){.blocks = g_array_new(FALSE, FALSE, sizeof(struct moved_block))};
	if (ret == 0) {
		mark(q, a, wanted, entries);
		mark(q, b, wanted, entries);
		ret = find_blocks(img, wanted, entries, s->blocks);
	}
	if (ret == 0)
		ret = allocate(img, s);
	if (ret == 0)
		ret = copy_blocks(img, s);
	if (ret < 0)
		return qcow2_shadow_end(img, s, ret);
	set_table(q, s->new_table);
	q->writer->old_table = s->old_table;
	s->in_force = true;
	return 0;
}

/* The old structure again, as it is on disk. */
static void take_back(struct image *img, const struct qcow2_shadow *s)
{
	struct qcow2 *q = qcow2_of(img);

	if (s->in_force)
		set_table(q, s->old_table);
	for (guint i = 0; i < s->blocks->len; i++) {
		const struct moved_block *b = &g_array_index(s->blocks, struct moved_block, i);

		if (!b->to)
			continue;
		cache_drop_range(img->cache, img->file, b->to, q->cluster_size);
		qcow2_unref(img, b->to, q->cluster_size);
	}
	if (s->new_table) {
		cache_drop_range(img->cache, img->file, s->new_table, s->len);
		qcow2_unref(img, s->new_table, s->len);
	}
	/* What was freed in the new structure only is not free. */
	qcow2_writer_forget(q->writer);
}

int qcow2_shadow_end(struct image *img, struct qcow2_shadow *s, int ret)
{
	struct qcow2 *q = qcow2_of(img);

	q->writer->old_table = 0;
	if (ret < 0) {
		take_back(img, s);
	} else {
		for (guint i = 0; i < s->blocks->len; i++)
			qcow2_free_later(img, g_array_index(s->blocks, struct moved_block, i).from,
					 q->cluster_size);
		qcow2_free_later(img, s->old_table, s->len);
	}
	g_array_unref(s->blocks);
	s->blocks = NULL;
	return ret;
}
