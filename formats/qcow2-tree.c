/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: all that an L1 table refers to, as snapshots need it: counted, freed, and with COPIED
 * flags that go by the counts ("Snapshots", "Host cluster management").
 */
#include "formats/qcow2.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "image/cache.h"
#include "image/spacemap.h"

/* ---- walking --------------------------------------------------------------------------------- */

struct walk {
	struct image *img;
	struct qcow2 *q;
	struct qcow2_l2_rules rules;
	unsigned flags; /* enum qcow2_walk */
	GArray *regions;
	uint64_t tables; /* L2 tables seen */
};

static void add_region(struct walk *w, uint64_t host, uint64_t len)
{
	struct qcow2_region r = {host, len}, *last = NULL;
	uint64_t mask = w->q->cluster_size - 1;

	if (w->regions->len)
		last = &g_array_index(w->regions, struct qcow2_region, w->regions->len - 1);
	/* Compressed units stay apart: each is a reference of its own. */
	if (last && last->host + last->len == host &&
	    !((last->host | last->len | host | len) & mask))
		last->len += len;
	else
		g_array_append_val(w->regions, r);
}

/* -EIO with a fault, or 0: it is left out. */
static int damaged(struct walk *w, const char *what, uint64_t entry, const char *wrong)
{
	if (w->flags & QCOW2_WALK_LENIENT)
		return 0;
	image_fault(w->img, EIO, 0, "%s 0x%016" PRIx64 " %s: run check -r all", what, entry, wrong);
	return -EIO;
}

static int take_entry(struct walk *w, uint64_t entry, uint64_t bitmap)
{
	struct qcow2 *q = w->q;
	struct qcow2_cluster c;
	uint64_t len;

	if (!entry)
		return 0;
	qcow2_l2_decode(&w->rules, entry, bitmap, &c);
	if (c.kind == QCOW2_CLUSTER_INVALID)
		return damaged(w, "L2 entry", entry, c.wrong);
	if (!c.host || q->external)
		return 0;
	len = c.kind == QCOW2_CLUSTER_CODED ? c.coded_len : q->cluster_size;
	if (c.host >= q->file_size)
		return damaged(w, "L2 entry", entry, "lies past the end of the file");
	if (qcow2_fixed_overlap(q, c.host, len))
		return damaged(w, "L2 entry", entry, "lies in the image's own tables");
	add_region(w, c.host, len);
	return 0;
}

/* Calls fn for each block of the cache that holds a part of the L2 table, pinned. */
static int walk_blocks(struct image *img, uint64_t offset,
		       int (*fn)(void *arg, struct cache_block *block, char *data, size_t len),
		       void *arg)
{
	uint64_t size = qcow2_of(img)->cluster_size;
	int ret = 0;

	for (uint64_t at = 0; ret == 0 && at < size;) {
		struct cache_block *block;
		const void *data;
		size_t left;

		ret = cache_get(img->cache, img->file, offset + at, &block, &data, &left);
		if (ret < 0) {
			image_fault(img, ret, 0, "the L2 table at 0x%" PRIx64 " cannot be read",
				    offset);
			return ret;
		}
		left = MIN(left, size - at);
		ret = fn(arg, block, (char *)data, left);
		cache_put(block);
		at += left;
	}
	return ret;
}

static int take_block(void *arg, struct cache_block *block, char *data, size_t len)
{
	struct walk *w = arg;
	int ret = 0;

	for (size_t i = 0; ret == 0 && i < len; i += 1u << w->q->entry_bits) {
		const be64_t *words = (const be64_t *)(data + i);

		ret = take_entry(w, be64_get(words[0]), w->q->extended ? be64_get(words[1]) : 0);
	}
	return ret;
}

/* NULL, or why no L2 table can be there. */
static const char *table_wrong(const struct qcow2 *q, uint64_t entry)
{
	uint64_t offset = entry & QCOW2_OFFSET_MASK;
	const char *wrong = qcow2_l1_wrong(q->cluster_bits, entry);

	if (!wrong && !qcow2_inside(offset, q->cluster_size, q->file_size))
		wrong = "lies past the end of the file";
	if (!wrong && qcow2_fixed_overlap(q, offset, q->cluster_size))
		wrong = "lies in the image's own tables";
	return wrong;
}

static int walk_l1_entry(struct walk *w, uint64_t entry)
{
	struct qcow2 *q = w->q;
	uint64_t offset = entry & QCOW2_OFFSET_MASK;
	const char *wrong;

	if (!offset)
		return 0;
	wrong = table_wrong(q, entry);
	if (wrong)
		return damaged(w, "L1 entry", entry, wrong);
	/* No image has a table twice in one L1; a hostile one may, millions of times. */
	if (++w->tables > q->file_size >> q->cluster_bits) {
		image_fault(w->img, EIO, 0, "the L1 table refers to more tables than there are");
		return -EIO;
	}
	if (!(w->flags & QCOW2_WALK_NO_TABLES))
		add_region(w, offset, q->cluster_size);
	return walk_blocks(w->img, offset, take_block, w);
}

int qcow2_tree_regions(struct image *img, uint64_t l1_offset, uint64_t first, uint64_t end,
		       unsigned flags, GArray *regions)
{
	struct qcow2 *q = qcow2_of(img);
	struct walk w = {img, q, qcow2_rules(q), flags, regions, 0};
	int ret = 0;

	for (uint64_t i = first; ret == 0 && i < end; i++) {
		be64_t entry;

		ret = cache_read(img->cache, img->file, l1_offset + i * 8, &entry, sizeof(entry));
		if (ret < 0)
			image_fault(img, ret, 0, "the L1 table at 0x%" PRIx64 " cannot be read",
				    l1_offset);
		else
			ret = walk_l1_entry(&w, be64_get(entry));
	}
	return ret;
}

int qcow2_regions_ref(struct image *img, const GArray *regions)
{
	guint i;
	int ret = 0;

	for (i = 0; i < regions->len; i++) {
		const struct qcow2_region *r = &g_array_index(regions, struct qcow2_region, i);

		ret = qcow2_ref(img, r->host, r->len);
		if (ret < 0)
			break;
	}
	if (ret == 0)
		return 0;
	if (ret == -EOVERFLOW)
		image_fault(img, ERANGE, 0,
			    "a cluster has as many references as refcounts of %u bits can count",
			    1u << qcow2_of(img)->header.refcount_order);
	qcow2_regions_unref(img, regions, i);
	return ret;
}

void qcow2_regions_unref(struct image *img, const GArray *regions, guint n)
{
	for (guint i = 0; i < n; i++) {
		const struct qcow2_region *r = &g_array_index(regions, struct qcow2_region, i);

		/* What fails leaks. */
		qcow2_unref(img, r->host, r->len);
	}
}

void qcow2_regions_free_later(struct image *img, const GArray *regions)
{
	for (guint i = 0; i < regions->len; i++) {
		const struct qcow2_region *r = &g_array_index(regions, struct qcow2_region, i);

		qcow2_free_later(img, r->host, r->len);
	}
}

struct spacemap *qcow2_regions_count(const struct qcow2 *q, const GArray *regions)
{
	struct spacemap *m = spacemap_new((q->file_size >> q->cluster_bits) + 3);

	for (guint i = 0; m && i < regions->len; i++) {
		const struct qcow2_region *r = &g_array_index(regions, struct qcow2_region, i);
		uint64_t first = r->host >> q->cluster_bits;
		uint64_t last = (r->host + r->len - 1) >> q->cluster_bits;

		if (!spacemap_add(m, first, last - first + 1))
			g_clear_pointer(&m, spacemap_free);
	}
	return m;
}

/* References that `more` has beyond those in `less`, of cluster i. */
static uint64_t beyond(const struct spacemap *more, const struct spacemap *less, uint64_t i)
{
	uint64_t a = spacemap_get(more, i), b = spacemap_get(less, i);

	return a > b ? a - b : 0;
}

static void put_beyond(const struct qcow2 *q, GArray *regions, const struct spacemap *more,
		       const struct spacemap *less)
{
	uint64_t n = (q->file_size >> q->cluster_bits) + 3, next;

	g_array_set_size(regions, 0);
	for (uint64_t i = 0; i < n; i = next) {
		uint64_t times = beyond(more, less, i);
		struct qcow2_region r = {i << q->cluster_bits, 0};

		for (next = i + 1; next < n && beyond(more, less, next) == times;)
			next++;
		r.len = (next - i) << q->cluster_bits;
		while (times--)
			g_array_append_val(regions, r);
	}
}

void qcow2_regions_cancel(const struct qcow2 *q, GArray *a, GArray *b)
{
	struct spacemap *in_a = qcow2_regions_count(q, a), *in_b = qcow2_regions_count(q, b);

	if (in_a && in_b) {
		put_beyond(q, a, in_a, in_b);
		put_beyond(q, b, in_b, in_a);
	}
	spacemap_free(in_a);
	spacemap_free(in_b);
}

/* ---- COPIED flags ------------------------------------------------------------------------------
 */

struct flags {
	struct image *img;
	struct qcow2 *q;
	const struct spacemap *less; /* NULL: every flag is cleared */
	struct qcow2_counts counts;  /* pinned: of the clusters from `start` on */
	uint64_t start;
};

static int count_after(struct flags *f, uint64_t cluster, uint64_t *count)
{
	struct qcow2_counts *c = &f->counts;
	unsigned order = f->q->header.refcount_order;

	if (cluster < f->start || cluster - f->start >= c->n) {
		int ret;

		qcow2_counts_put(c);
		ret = qcow2_counts_get(f->img, cluster, UINT32_MAX, c);
		f->start = cluster;
		if (ret < 0) {
			c->n = 0;
			return ret;
		}
	}
	*count = c->block ? qcow2_refcount_entry(c->data, c->first + (cluster - f->start), order)
			  : 0;
	*count -= MIN(*count, spacemap_get(f->less, cluster));
	return 0;
}

/* *entry with the flag that it should have. */
static int put_flag(struct flags *f, uint64_t *entry)
{
	uint64_t host = *entry & QCOW2_OFFSET_MASK, count = 0;
	int ret;

	if (!f->less) {
		*entry &= ~QCOW2_COPIED;
		return 0;
	}
	if (host >= f->q->file_size)
		return 0;
	ret = count_after(f, host >> f->q->cluster_bits, &count);
	if (ret == 0)
		*entry = (*entry & ~QCOW2_COPIED) | (count == 1 ? QCOW2_COPIED : 0);
	return ret;
}

static int flag_block(void *arg, struct cache_block *block, char *data, size_t len)
{
	struct flags *f = arg;
	size_t step = 1u << f->q->entry_bits, first = len, last = 0;
	int ret = 0;

	for (size_t i = 0; ret == 0 && i < len; i += step) {
		be64_t *word = (be64_t *)(data + i);
		uint64_t old = be64_get(*word), entry = old;

		if (!(entry & QCOW2_OFFSET_MASK) || (entry & QCOW2_COMPRESSED))
			continue;
		ret = put_flag(f, &entry);
		if (ret < 0 || entry == old)
			continue;
		*word = be64_make(entry);
		first = MIN(first, i);
		last = i + step;
	}
	if (first < last)
		cache_dirty(block, data + first, last - first, QCOW2_TABLES);
	return ret;
}

static int flag_l1_entry(struct flags *f, uint64_t at, bool with_l1)
{
	be64_t word;
	uint64_t entry, old;
	int ret = cache_read(f->img->cache, f->img->file, at, &word, sizeof(word));

	if (ret < 0)
		return ret;
	old = entry = be64_get(word);
	if (!(entry & QCOW2_OFFSET_MASK) || table_wrong(f->q, entry))
		return 0;
	if (with_l1)
		ret = put_flag(f, &entry);
	if (ret == 0 && entry != old) {
		word = be64_make(entry);
		ret = cache_write(f->img->cache, f->img->file, at, &word, sizeof(word),
				  QCOW2_TABLES);
	}
	if (ret < 0)
		return ret;
	return walk_blocks(f->img, entry & QCOW2_OFFSET_MASK, flag_block, f);
}

static int set_flags(struct flags *f, uint64_t l1_offset, uint64_t n, bool with_l1)
{
	int ret = 0;

	for (uint64_t i = 0; ret == 0 && i < n; i++) {
		ret = flag_l1_entry(f, l1_offset + i * 8, with_l1);
		/* At any point the flags that are set go by counts or by references. */
		if (ret == 0 && cache_wants_flush(f->img->cache, f->img->file)) {
			qcow2_counts_put(&f->counts);
			f->counts.n = 0;
			ret = qcow2_flush(f->img);
		}
	}
	qcow2_counts_put(&f->counts);
	return ret;
}

int qcow2_clear_copied(struct image *img, uint64_t l1_offset, uint64_t n)
{
	struct flags f = {.img = img, .q = qcow2_of(img)};

	return set_flags(&f, l1_offset, n, false);
}

int qcow2_set_copied(struct image *img, const struct spacemap *less)
{
	struct flags f = {.img = img, .q = qcow2_of(img), .less = less};

	return set_flags(&f, f.q->header.l1_offset, f.q->header.l1_size, true);
}

/* ---- the same in new tables --------------------------------------------------------------------
 */

struct copy {
	struct flags flags;
	struct qcow2_tree_copy *result;
	be64_t *l2; /* a table */
	uint64_t tables;
};

static int flag_table(struct copy *c, bool *changed)
{
	struct qcow2 *q = c->flags.q;
	uint64_t words = q->cluster_size / 8, step = 1u << (q->entry_bits - 3);
	int ret = 0;

	for (uint64_t i = 0; ret == 0 && i < words; i += step) {
		uint64_t old = be64_get(c->l2[i]), entry = old;

		if (!(entry & QCOW2_OFFSET_MASK) || (entry & QCOW2_COMPRESSED))
			continue;
		ret = put_flag(&c->flags, &entry);
		*changed |= entry != old;
		c->l2[i] = be64_make(entry);
	}
	return ret;
}

static void forget_counts(struct flags *f)
{
	qcow2_counts_put(&f->counts);
	f->counts.n = 0;
}

/* c->l2 in a cluster of its own, in the place of the table that *entry names. */
static int write_copy(struct copy *c, uint64_t *entry)
{
	struct image *img = c->flags.img;
	struct qcow2 *q = c->flags.q;
	struct qcow2_region old = {*entry & QCOW2_OFFSET_MASK, q->cluster_size};
	struct qcow2_region new = {0, q->cluster_size};
	int ret;

	/* What is pinned may not be while others are allocated or flushed. */
	forget_counts(&c->flags);
	ret = qcow2_alloc(img, new.len, &new.host);
	if (ret < 0)
		return ret;
	g_array_append_val(c->result->made, new);
	g_array_append_val(c->result->replaced, old);
	qcow2_note_table(q, new.host);
	*entry = new.host | QCOW2_COPIED;
	ret = cache_write(img->cache, img->file, new.host, c->l2, new.len, QCOW2_NEW);
	if (ret == 0 && cache_wants_flush(img->cache, img->file))
		ret = qcow2_flush(img);
	return ret;
}

static int copy_l1_entry(struct copy *c, be64_t *word)
{
	struct image *img = c->flags.img;
	struct qcow2 *q = c->flags.q;
	uint64_t entry = be64_get(*word);
	bool changed = !c->flags.less;
	int ret;

	if (!(entry & QCOW2_OFFSET_MASK) || table_wrong(q, entry))
		return 0;
	/* As in a walk: a hostile table would grow the file without end. */
	if (++c->tables > q->file_size >> q->cluster_bits) {
		image_fault(img, EIO, 0, "the L1 table refers to more tables than there are");
		return -EIO;
	}
	ret = cache_read(img->cache, img->file, entry & QCOW2_OFFSET_MASK, c->l2, q->cluster_size);
	if (ret == 0)
		ret = flag_table(c, &changed);
	if (ret == 0)
		ret = changed ? write_copy(c, &entry) : put_flag(&c->flags, &entry);
	*word = be64_make(entry);
	return ret;
}

static int copy_tables(struct copy *c, be64_t *l1)
{
	struct image *img = c->flags.img;
	const struct qcow2_header *h = &c->flags.q->header;
	struct qcow2_region old = {h->l1_offset, h->l1_size * 8ull}, new = {0, old.len};
	g_autofree be64_t *before = g_memdup2(l1, old.len);
	int ret = 0;

	for (uint32_t i = 0; ret == 0 && i < h->l1_size; i++)
		ret = copy_l1_entry(c, &l1[i]);
	forget_counts(&c->flags);
	if (ret < 0 || (c->flags.less && memcmp(before, l1, old.len) == 0))
		return ret;
	ret = qcow2_alloc(img, new.len, &new.host);
	if (ret < 0)
		return ret;
	g_array_append_val(c->result->made, new);
	g_array_append_val(c->result->replaced, old);
	c->result->l1_offset = new.host;
	return cache_write(img->cache, img->file, new.host, l1, new.len, QCOW2_NEW);
}

int qcow2_tree_copy(struct image *img, const struct spacemap *less, struct qcow2_tree_copy *result)
{
	struct qcow2 *q = qcow2_of(img);
	struct copy c = {
		.flags = {.img = img, .q = q, .less = less},
		.result = result,
	};
	uint64_t len = q->header.l1_size * 8ull;
	g_autofree be64_t *l1 = g_try_malloc(len), *l2 = g_try_malloc(q->cluster_size);
	int ret;

	if (!len)
		return 0;
	if (!l1 || !l2)
		return -ENOMEM;
	c.l2 = l2;
	ret = cache_read(img->cache, img->file, q->header.l1_offset, l1, len);
	return ret < 0 ? ret : copy_tables(&c, l1);
}
