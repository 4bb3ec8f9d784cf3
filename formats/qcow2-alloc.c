/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: finding free host clusters, and making refcount blocks and a larger refcount
 * table where they are missing ("Host cluster management").
 */
#include "formats/qcow2.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "image/cache.h"

#define HOST_LIMIT (1ull << 56) /* what an L2 entry can name */

/* ---- searching ----------------------------------------------------------------------------------
 */

static unsigned log2_of(uint64_t n)
{
	return MIN(63 - __builtin_clzll(n), QCOW2_HINTS - 1);
}

/*
 * The first cluster that the file does not have yet. Below it a missing refcount block may be one
 * that was lost, so nothing is taken there. A device has all of its clusters from the beginning.
 */
static uint64_t end_of_file(const struct image *img)
{
	const struct qcow2 *q = qcow2_of(img);

	if (S_ISBLK(file_stat(img->file)->st_mode))
		return 0;
	return (q->file_size + q->cluster_size - 1) >> q->cluster_bits;
}

/* A run of clusters with count 0 that is being put together. */
struct search {
	uint64_t at, run; /* the run ends in front of `at` */
	uint64_t want;
};

static void search_counts(const struct qcow2 *q, const struct qcow2_counts *c, struct search *s)
{
	unsigned order = q->header.refcount_order;

	for (uint64_t i = 0; i < c->n && s->run < s->want; i++, s->at++)
		s->run = qcow2_refcount_entry(c->data, c->first + i, order) ? 0 : s->run + 1;
}

static void search_nothing(struct image *img, uint64_t n, struct search *s)
{
	uint64_t end = end_of_file(img), skip = s->at < end ? MIN(n, end - s->at) : 0;

	if (skip)
		s->run = 0;
	s->at += skip;
	n = MIN(n - skip, s->want - s->run);
	s->run += n;
	s->at += n;
}

/* The lowest run of n free clusters, which may lie behind all that the refcount table covers. */
static int find_free(struct image *img, uint64_t n, uint64_t *first)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t *hint = q->writer->hint;
	struct search s = {.at = hint[log2_of(n)], .want = n};

	while (s.run < n) {
		uint64_t in_table = qcow2_reftable_entries(q) << qcow2_block_bits(q);
		struct qcow2_counts c;
		int ret;

		if (s.at >= in_table) {
			search_nothing(img, UINT64_MAX / 2, &s);
			break;
		}
		ret = qcow2_counts_get(img, s.at, in_table - s.at, &c);
		if (ret < 0)
			return ret;
		if (c.block)
			search_counts(q, &c, &s);
		else
			search_nothing(img, c.n, &s);
		qcow2_counts_put(&c);
	}
	*first = s.at - n;
	return 0;
}

/* What is left free in front of a run that was taken is too short for runs as long. */
static void raise_hints(struct qcow2_writer *w, uint64_t first, uint64_t n)
{
	for (unsigned k = log2_of(n); k < QCOW2_HINTS; k++)
		w->hint[k] = MAX(w->hint[k], first + n);
}

/* ---- tables -----------------------------------------------------------------------------------
 */

static void note_end(struct qcow2 *q, uint64_t end)
{
	q->file_size = MAX(q->file_size, end);
}

int qcow2_zero_table(struct image *img, uint64_t host, uint64_t len)
{
	static const uint8_t zeroes[CACHE_BLOCK];
	uint64_t end = host + len, at = host;
	int ret = 0;

	/* Where nothing ever was, a sector at the end makes all of it zeroes. */
	if (host >= MAX(file_size(img->file), qcow2_of(img)->writer->touched))
		at = end - 512;
	while (ret == 0 && at < end) {
		size_t n = MIN(end - at, sizeof(zeroes) - at % sizeof(zeroes));

		ret = cache_write(img->cache, img->file, at, zeroes, n, QCOW2_NEW);
		at += n;
	}
	if (ret < 0)
		image_fault(img, ret, 0, "the table at 0x%" PRIx64 " cannot be made", host);
	return ret;
}

int qcow2_copy_table(struct image *img, uint64_t from, uint64_t to, uint64_t len)
{
	uint8_t buf[CACHE_BLOCK];
	int ret = 0;

	for (uint64_t at = 0; ret == 0 && at < len; at += sizeof(buf)) {
		size_t n = MIN(len - at, sizeof(buf));

		ret = cache_read(img->cache, img->file, from + at, buf, n);
		if (ret == 0)
			ret = cache_write(img->cache, img->file, to + at, buf, n, QCOW2_NEW);
	}
	if (ret < 0)
		image_fault(img, ret, 0, "the table at 0x%" PRIx64 " cannot be copied", from);
	return ret;
}

/* Sets the counts of n clusters, which were 0, to 1; all have refcount blocks. */
static int take(struct image *img, uint64_t first, uint64_t n)
{
	struct qcow2 *q = qcow2_of(img);
	unsigned order = q->header.refcount_order;

	note_end(q, (first + n) << q->cluster_bits);
	while (n > 0) {
		struct qcow2_counts c;
		int ret = qcow2_counts_get(img, first, n, &c);

		if (ret < 0)
			return ret;
		g_assert(c.block);
		for (uint64_t i = 0; i < c.n; i++)
			qcow2_set_refcount_entry(c.data, c.first + i, order, 1);
		cache_dirty(c.block, c.data, (((c.first + c.n) << order) + 7) / 8, QCOW2_NEW);
		qcow2_counts_put(&c);
		first += c.n;
		n -= c.n;
	}
	return 0;
}

/* Makes refcount block number `index` in a free cluster that is counted, by itself if need be. */
static int add_block(struct image *img, uint64_t index, uint64_t cluster)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t host = cluster << q->cluster_bits;
	be64_t entry = be64_make(host);
	int ret = qcow2_check_place(img, host, q->cluster_size, "a refcount block");

	if (ret == 0)
		ret = qcow2_zero_table(img, host, q->cluster_size);
	if (ret == 0)
		ret = cache_write(img->cache, img->file, q->header.reftable_offset + index * 8,
				  &entry, sizeof(entry), QCOW2_REFTABLE);
	if (ret < 0)
		return ret;
	qcow2_note_table(q, host);
	note_end(q, host + q->cluster_size);
	ret = take(img, cluster, 1);
	if (ret == 0)
		raise_hints(q->writer, cluster, 1);
	return ret;
}

/* The first of the refcount blocks that [first, first+n) needs and that are not there. */
static int find_missing(struct image *img, uint64_t first, uint64_t n, uint64_t *index,
			bool *missing)
{
	unsigned bits = qcow2_block_bits(qcow2_of(img));

	*missing = false;
	for (uint64_t i = first >> bits; i <= (first + n - 1) >> bits && !*missing; i++) {
		struct qcow2_counts c;
		int ret = qcow2_counts_get(img, i << bits, 1, &c);

		if (ret < 0)
			return ret;
		*index = i;
		*missing = !c.block;
		qcow2_counts_put(&c);
	}
	return 0;
}

/* ---- a larger refcount table --------------------------------------------------------------------
 */

struct growth {
	uint64_t first;		 /* cluster where the new blocks begin; the table follows them */
	uint64_t blocks, tables; /* clusters */
	uint64_t old_offset;
	uint32_t old_clusters;
};

/*
 * New blocks and the new table lie behind all that the old table covers and the file has, so that
 * the new blocks count themselves and the table, and nothing else needs to be known.
 */
static int plan_growth(struct image *img, uint64_t last, struct growth *g)
{
	const struct qcow2 *q = qcow2_of(img);
	unsigned bits = qcow2_block_bits(q);
	uint64_t per_block = 1ull << bits, per_table = q->cluster_size / 8;
	uint64_t start = MAX(qcow2_reftable_entries(q), (end_of_file(img) + per_block - 1) >> bits);
	uint64_t max = QCOW2_MAX_REFTABLE_BYTES >> q->cluster_bits, entries;

	g->old_offset = q->header.reftable_offset;
	g->old_clusters = q->header.reftable_clusters;
	g->first = start << bits;
	g->blocks = 1;
	for (;;) {
		entries = MAX((last >> bits) + 1, start + g->blocks);
		/* Half as much again, so that it is seldom done. */
		g->tables = (entries + entries / 2 + per_table - 1) / per_table;
		g->tables = MIN(g->tables, MAX(max, 1));
		if (g->blocks * per_block >= g->blocks + g->tables)
			break;
		g->blocks++;
	}
	if (entries > g->tables * per_table ||
	    (g->first + g->blocks + g->tables) << q->cluster_bits > HOST_LIMIT) {
		image_fault(img, EFBIG, 0, "the refcount table cannot become larger than %u bytes",
			    QCOW2_MAX_REFTABLE_BYTES);
		return -EFBIG;
	}
	return 0;
}

static int write_new_block(struct image *img, uint64_t host, uint64_t used)
{
	struct qcow2 *q = qcow2_of(img);
	g_autofree uint8_t *block = g_try_malloc0(q->cluster_size);

	if (!block)
		return -ENOMEM;
	for (uint64_t i = 0; i < used; i++)
		qcow2_set_refcount_entry(block, i, q->header.refcount_order, 1);
	return cache_write(img->cache, img->file, host, block, q->cluster_size, QCOW2_NEW);
}

static int write_growth(struct image *img, const struct growth *g)
{
	struct qcow2 *q = qcow2_of(img);
	unsigned bits = qcow2_block_bits(q);
	uint64_t table = (g->first + g->blocks) << q->cluster_bits;
	uint64_t left = g->blocks + g->tables;
	int ret = qcow2_zero_table(img, table, g->tables << q->cluster_bits);

	if (ret == 0)
		ret = qcow2_copy_table(img, g->old_offset, table,
				       (uint64_t)g->old_clusters << q->cluster_bits);
	for (uint64_t i = 0; ret == 0 && i < g->blocks; i++) {
		uint64_t host = (g->first + i) << q->cluster_bits;
		be64_t entry = be64_make(host);
		uint64_t used = MIN(left, 1ull << bits);

		ret = write_new_block(img, host, used);
		if (ret == 0)
			ret = cache_write(img->cache, img->file,
					  table + ((g->first >> bits) + i) * 8, &entry,
					  sizeof(entry), QCOW2_NEW);
		left -= used;
	}
	return ret;
}

static void set_table(struct qcow2 *q, uint64_t offset, uint64_t clusters)
{
	q->header.reftable_offset = offset;
	q->header.reftable_clusters = clusters;
	qcow2_collect_fixed(q);
}

/* Until the header is written, nothing on disk knows of the new table; after it, nothing of the
 * old one. */
static int grow_table(struct image *img, uint64_t last)
{
	struct qcow2 *q = qcow2_of(img);
	struct growth g;
	uint64_t start, len;
	int ret = plan_growth(img, last, &g);

	if (ret < 0)
		return ret;
	start = g.first << q->cluster_bits;
	len = (g.blocks + g.tables) << q->cluster_bits;
	ret = qcow2_check_place(img, start, len, "a refcount table");
	if (ret == 0)
		ret = write_growth(img, &g);
	if (ret < 0) {
		cache_drop_range(img->cache, img->file, start, len);
		return ret;
	}
	q->writer->touched = MAX(q->writer->touched, start + len);
	note_end(q, start + len);
	set_table(q, start + (g.blocks << q->cluster_bits), g.tables);
	ret = qcow2_flush_header(img);
	if (ret < 0) {
		/* The table on disk may be either: writing has ended, or it is the old one. */
		set_table(q, g.old_offset, g.old_clusters);
		cache_drop_range(img->cache, img->file, start, len);
		return ret;
	}
	for (uint64_t i = 0; i < g.blocks; i++)
		qcow2_note_table(q, start + (i << q->cluster_bits));
	return qcow2_free_later(img, g.old_offset, (uint64_t)g.old_clusters << q->cluster_bits);
}

/*
 * Makes refcount block number `index` in the lowest free cluster. Not in front of the run that
 * needs it: with wide counts the runs between such blocks would be too short for long ones. Where
 * the block for that cluster is missing too, that one is made, and the caller comes again.
 */
static int make_block(struct image *img, uint64_t index)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t cluster, own;
	bool missing;
	int ret = find_free(img, 1, &cluster);

	if (ret < 0)
		return ret;
	if (cluster >> qcow2_block_bits(q) >= qcow2_reftable_entries(q))
		return grow_table(img, cluster);
	ret = find_missing(img, cluster, 1, &own, &missing);
	return ret < 0 ? ret : add_block(img, missing ? own : index, cluster);
}

/* ---- allocating ---------------------------------------------------------------------------------
 */

/* Free clusters that have refcount blocks. Making those takes clusters, so the search is begun
 * again after each. */
static int find_counted(struct image *img, uint64_t n, uint64_t *first)
{
	struct qcow2 *q = qcow2_of(img);
	unsigned bits = qcow2_block_bits(q);
	bool missing = true;
	int ret = 0;

	while (ret == 0 && missing) {
		uint64_t index, last;

		ret = find_free(img, n, first);
		if (ret < 0)
			break;
		last = *first + n - 1;
		if (last >= HOST_LIMIT >> q->cluster_bits) {
			image_fault(img, EFBIG, 0, "the file would be larger than 2^56 bytes");
			return -EFBIG;
		}
		if (last >> bits >= qcow2_reftable_entries(q)) {
			ret = grow_table(img, last);
			continue;
		}
		ret = find_missing(img, *first, n, &index, &missing);
		if (ret == 0 && missing)
			ret = make_block(img, index);
	}
	return ret;
}

int qcow2_alloc(struct image *img, uint64_t bytes, uint64_t *host)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t n = (bytes >> q->cluster_bits) + ((bytes & (q->cluster_size - 1)) != 0), first = 0;
	int ret = qcow2_begin(img);

	g_assert(n > 0);
	if (ret == 0)
		ret = find_counted(img, n, &first);
	if (ret == 0)
		ret = qcow2_check_place(img, first << q->cluster_bits, n << q->cluster_bits,
					"newly allocated clusters");
	if (ret == 0)
		ret = take(img, first, n);
	if (ret < 0)
		return ret;
	raise_hints(q->writer, first, n);
	*host = first << q->cluster_bits;
	return 0;
}

/* Can len bytes at coded_at go on in the cluster that is begun, and into the next one? */
static int continue_coded(struct image *img, uint32_t len, uint64_t *host)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t at = q->writer->coded_at, mask = q->cluster_size - 1;
	uint64_t next = (at + mask) & ~mask, left = next - at, count, missing;
	bool is_missing;
	int ret;

	*host = 0;
	if (!at || !left)
		return 0;
	if (len > left) {
		/* Only if the next one is free and counted: else a cluster elsewhere is as good. */
		uint64_t cluster = next >> q->cluster_bits;

		if (cluster >= qcow2_reftable_entries(q) << qcow2_block_bits(q) ||
		    len - left > q->cluster_size)
			return 0;
		ret = find_missing(img, cluster, 1, &missing, &is_missing);
		if (ret == 0 && !is_missing)
			ret = qcow2_refcount(img, next, &count);
		if (ret < 0 || is_missing || count)
			return ret;
		ret = qcow2_check_place(img, next, q->cluster_size, "compressed clusters");
		if (ret < 0)
			return ret;
	}
	ret = qcow2_ref(img, at, MIN(len, left));
	/* A count that is at its greatest: one more unit does not fit into this cluster. */
	if (ret == -EOVERFLOW)
		return 0;
	if (ret == 0 && len > left)
		ret = take(img, next >> q->cluster_bits, 1);
	if (ret == 0)
		*host = at;
	return ret;
}

int qcow2_alloc_coded(struct image *img, uint32_t len, uint64_t *host)
{
	struct qcow2 *q = qcow2_of(img);
	unsigned bits = 62 - (q->cluster_bits - 8); /* of an offset in a compressed entry */
	int ret = qcow2_begin(img);

	if (ret == 0)
		ret = continue_coded(img, len, host);
	if (ret == 0 && !*host)
		ret = qcow2_alloc(img, len, host);
	if (ret < 0)
		return ret;
	if ((*host + len) >> MIN(bits, 56)) {
		qcow2_unref(img, *host, len);
		image_fault(img, EFBIG, 0, "the file is too large for compressed clusters");
		return -EFBIG;
	}
	q->writer->coded_at = *host + len;
	return 0;
}
