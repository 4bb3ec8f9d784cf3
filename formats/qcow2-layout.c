/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: the layout of a new image, and its tables. An image with all of its metadata has two
 * bytes of table and count for each kilobyte of disk or more, so tables are never held whole: they
 * are made and written front to back, a megabyte at a time.
 */
#include "config.h"

#include <errno.h>
#include <string.h>

#include "formats/qcow2.h"

#define CHUNK (1u << 20) /* a multiple of every entry's size */
/* "the offset ... bits 9-55": what an L1 or L2 entry can name. */
#define HOST_LIMIT (1ull << 56)

static uint64_t divide_up(uint64_t n, uint64_t by)
{
	return n / by + (n % by != 0);
}

static unsigned entry_bits(const struct qcow2_shape *s)
{
	return s->extended ? 4 : 3;
}

uint64_t qcow2_l2_needed(const struct qcow2_shape *s)
{
	return divide_up(s->size, 1ull << (2 * s->cluster_bits - entry_bits(s)));
}

/*
 * Counts cover the clusters of the counts themselves: blocks and tables are added until they do.
 * Each round adds less than the one before, by the factor of entries a block.
 */
static void count_refcounts(const struct qcow2_shape *s, uint64_t others, struct qcow2_layout *l)
{
	uint64_t cluster = 1ull << s->cluster_bits;
	uint64_t counts_a_block = cluster * 8 >> s->refcount_order;
	uint64_t blocks = 0, table = 1;

	for (;;) {
		uint64_t want = divide_up(others + blocks + table, counts_a_block);
		uint64_t want_table = divide_up(want * 8, cluster);

		if (want <= blocks && want_table <= table)
			break;
		blocks = want;
		table = want_table;
	}
	l->refcount_blocks = blocks;
	l->reftable_clusters = table;
}

bool qcow2_layout(const struct qcow2_shape *s, struct qcow2_layout *l)
{
	uint64_t cluster = 1ull << s->cluster_bits;
	uint64_t l1_clusters;

	*l = (struct qcow2_layout){.l1_entries = qcow2_l2_needed(s), .l2_tables = s->l2_tables};
	if (l->l1_entries > QCOW2_MAX_L1_ENTRIES || s->data_bytes >= HOST_LIMIT)
		return false;
	l1_clusters = divide_up(l->l1_entries * 8, cluster);
	count_refcounts(s, 1 + l1_clusters + l->l2_tables + divide_up(s->data_bytes, cluster), l);
	l->reftable = cluster;
	l->blocks = l->reftable + l->reftable_clusters * cluster;
	l->l1 = l->blocks + l->refcount_blocks * cluster;
	l->l2 = l->l1 + l1_clusters * cluster;
	l->data = l->l2 + l->l2_tables * cluster;
	l->end = l->data + divide_up(s->data_bytes, cluster) * cluster;
	return l->end < HOST_LIMIT;
}

/* ---- writing ------------------------------------------------------------------------------- */

struct stream {
	struct file *file;
	uint64_t at; /* where buf begins in the file */
	size_t fill;
	uint8_t *buf;
};

static int drain(struct stream *w)
{
	int ret = w->fill ? file_write(w->file, w->at, w->buf, w->fill) : 0;

	w->at += w->fill;
	w->fill = 0;
	return ret;
}

static int put(struct stream *w, const void *data, size_t len)
{
	memcpy(w->buf + w->fill, data, len);
	w->fill += len;
	return w->fill == CHUNK ? drain(w) : 0;
}

/* `len` bytes of one value. */
static int put_bytes(struct stream *w, uint8_t value, uint64_t len)
{
	int ret = 0;

	while (ret == 0 && len > 0) {
		size_t n = MIN(len, CHUNK - w->fill);

		memset(w->buf + w->fill, value, n);
		w->fill += n;
		len -= n;
		if (w->fill == CHUNK)
			ret = drain(w);
	}
	return ret;
}

static int put_be64(struct stream *w, uint64_t value)
{
	be64_t d = be64_make(value);

	return put(w, &d, sizeof(d));
}

/* Entries for `n` clusters that follow one another from `first` on, then zeroes up to `len` bytes.
 */
static int put_pointers(struct stream *w, uint64_t n, uint64_t first, uint64_t step, uint64_t flags,
			uint64_t len)
{
	int ret = 0;

	for (uint64_t i = 0; ret == 0 && i < n; i++)
		ret = put_be64(w, (first + i * step) | flags);
	return ret ? ret : put_bytes(w, 0, len - n * 8);
}

/* "Refcounts": each cluster of the file is used once. Entries of less than a byte are packed from
 * the lowest bit on; wider ones are big-endian. */
static int put_counts(struct stream *w, const struct qcow2_tables *t)
{
	unsigned order = t->shape->refcount_order;
	uint64_t n = t->layout->end >> t->shape->cluster_bits;
	uint64_t total = t->layout->refcount_blocks << t->shape->cluster_bits, used;
	uint8_t one[8] = {0};
	int ret = 0;

	if (order >= 3) {
		size_t width = 1u << (order - 3);

		one[width - 1] = 1;
		for (uint64_t i = 0; ret == 0 && i < n; i++)
			ret = put(w, one, width);
		used = n * width;
	} else {
		static const uint8_t ones[] = {0xff, 0x55, 0x11};
		unsigned a_byte = 8u >> order, rest = n % a_byte;

		ret = put_bytes(w, ones[order], n / a_byte);
		one[0] = ones[order] & ((1u << (rest << order)) - 1);
		if (ret == 0 && rest)
			ret = put(w, one, 1);
		used = n / a_byte + (rest != 0);
	}
	return ret ? ret : put_bytes(w, 0, total - used);
}

static int put_l2(struct stream *w, const struct qcow2_tables *t)
{
	const struct qcow2_shape *s = t->shape;
	uint64_t cluster = 1ull << s->cluster_bits;
	uint64_t n = divide_up(s->size, cluster), first = s->external ? 0 : t->layout->data;
	uint64_t flags = QCOW2_COPIED | t->entry_flags;
	int ret = 0;

	for (uint64_t i = 0; ret == 0 && i < n; i++) {
		ret = put_be64(w, (first + i * cluster) | flags);
		if (ret == 0 && s->extended)
			ret = put_be64(w, t->bitmap);
	}
	return ret ? ret : put_bytes(w, 0, (t->layout->l2_tables * cluster) - (n << entry_bits(s)));
}

int qcow2_tables_write(const struct qcow2_tables *t)
{
	const struct qcow2_layout *l = t->layout;
	uint64_t cluster = 1ull << t->shape->cluster_bits;
	struct stream w = {.file = t->file, .at = l->reftable, .buf = g_try_malloc(CHUNK)};
	int ret;

	if (!w.buf)
		return -ENOMEM;
	ret = put_pointers(&w, l->refcount_blocks, l->blocks, cluster, 0, l->blocks - l->reftable);
	if (ret == 0)
		ret = put_counts(&w, t);
	/* The file may end with the L1 table, inside of its cluster. */
	if (ret == 0)
		ret = put_pointers(&w, l->l2_tables, l->l2, cluster, QCOW2_COPIED,
				   l->l2_tables ? l->l2 - l->l1 : l->l1_entries * 8);
	if (ret == 0 && l->l2_tables)
		ret = put_l2(&w, t);
	if (ret == 0)
		ret = drain(&w);
	g_free(w.buf);
	return ret;
}
