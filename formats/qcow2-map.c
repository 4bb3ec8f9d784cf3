/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: where the bytes of the disk are ("Cluster mapping"). Tables are seen
 * through the metadata cache, one block at a time. A damaged entry is -EIO for
 * its own cluster and ends the run of the clusters before it.
 */
#include "formats/qcow2.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "image/cache.h"

/*
 * One call describes no more than what this many entries do (2 GiB with 64 KiB
 * clusters): long enough that callers make few calls, short enough that none
 * waits long.
 */
#define MAX_RUN_ENTRIES 32768

struct qcow2_l2_rules qcow2_rules(const struct qcow2 *q)
{
	return (struct qcow2_l2_rules){
		.cluster_bits = q->cluster_bits,
		.version = q->header.version,
		.extended = q->extended,
		.external = q->external,
	};
}

const char *qcow2_l1_wrong(unsigned cluster_bits, uint64_t entry)
{
	if (entry & QCOW2_L1_RESERVED)
		return "has reserved bits set";
	if (entry & QCOW2_OFFSET_MASK & ((1ull << cluster_bits) - 1))
		return "is not on a cluster boundary";
	return NULL;
}

static void invalid(struct qcow2_cluster *c, const char *wrong)
{
	c->kind = QCOW2_CLUSTER_INVALID;
	c->wrong = wrong;
}

static void decode_coded(const struct qcow2_l2_rules *rules, uint64_t entry,
			 struct qcow2_cluster *c)
{
	unsigned x = 62 - (rules->cluster_bits - 8);
	uint64_t sectors = ((entry & (QCOW2_COMPRESSED - 1)) >> x) + 1;

	c->kind = QCOW2_CLUSTER_CODED;
	c->host = entry & ((1ull << x) - 1);
	c->coded_len = sectors * 512 - (c->host & 511);
	if (c->host >> 56)
		invalid(c, "is compressed and has reserved bits set");
	else if (rules->external)
		invalid(c, "is compressed in an image with a data file");
	else if (rules->extended && c->bitmap)
		invalid(c, "is compressed and has subclusters");
}

static void decode_extended(struct qcow2_cluster *c, bool allocated)
{
	uint32_t alloc = (uint32_t)c->bitmap, zero = c->bitmap >> 32;

	if (alloc & zero)
		invalid(c, "has subclusters that are both allocated and zero");
	else if (alloc && !allocated)
		invalid(c, "has allocated subclusters without a host cluster");
	else if (alloc == UINT32_MAX)
		c->kind = QCOW2_CLUSTER_DATA;
	else if (zero == UINT32_MAX)
		c->kind = QCOW2_CLUSTER_ZERO;
	else if (alloc || zero)
		c->mixed = true;
	else
		c->kind = QCOW2_CLUSTER_HOLE;
}

void qcow2_l2_decode(const struct qcow2_l2_rules *rules, uint64_t entry, uint64_t bitmap,
		     struct qcow2_cluster *c)
{
	memset(c, 0, sizeof(*c));
	c->copied = entry & QCOW2_COPIED;
	c->bitmap = rules->extended ? bitmap : 0;
	if (entry & QCOW2_COMPRESSED) {
		decode_coded(rules, entry, c);
		return;
	}
	c->host = entry & QCOW2_OFFSET_MASK;
	/* Offset 0 is a place only in a data file, and there bit 63 tells. */
	bool allocated = c->host || (rules->external && c->copied);

	if (entry & QCOW2_L2_RESERVED)
		invalid(c, "has reserved bits set");
	else if (c->host & ((1ull << rules->cluster_bits) - 1))
		invalid(c, "is not on a cluster boundary");
	else if ((entry & QCOW2_ZERO) && rules->extended)
		invalid(c, "has the zero flag, which extended entries do not have");
	else if ((entry & QCOW2_ZERO) && rules->version < 3)
		invalid(c, "has the zero flag, which version 2 does not have");
	else if (rules->extended)
		decode_extended(c, allocated);
	else if (entry & QCOW2_ZERO)
		c->kind = QCOW2_CLUSTER_ZERO;
	else if (allocated)
		c->kind = QCOW2_CLUSTER_DATA;
	else if (c->copied)
		invalid(c, "is marked as in use at offset 0");
	else
		c->kind = QCOW2_CLUSTER_HOLE;
}

/* What is wrong with where an allocated cluster lies, or NULL. */
static const char *place_wrong(const struct qcow2 *q, const struct qcow2_cluster *c,
			       uint64_t cluster)
{
	if (q->external)
		return c->host == cluster << q->cluster_bits
			       ? NULL
			       : "is not at the same offset in the data file";
	if (c->host >= q->file_size)
		return "lies past the end of the file";
	if (c->host < q->fixed_end && qcow2_fixed_overlap(q, c->host, q->cluster_size))
		return "lies in the image's own tables";
	return NULL;
}

/* A run being put together. */
struct run {
	struct image *img;
	struct qcow2 *q;
	struct qcow2_l2_rules rules;
	struct extent *e;
	uint64_t end;	 /* of the range that was asked for */
	unsigned budget; /* entries that may still be looked at */
	bool done;
};

/* Appends [at, at+len), which is `next`, or ends the run. */
static void append(struct run *r, const struct extent *next)
{
	struct extent *e = r->e;
	bool placed = next->kind == EXTENT_DATA || (next->flags & EXTENT_HAS_HOST);

	if (!e->len) {
		*e = *next;
		r->done = next->kind == EXTENT_CODED;
		return;
	}
	if (next->kind != e->kind || next->flags != e->flags || next->kind == EXTENT_CODED ||
	    (placed && next->host != e->host + e->len)) {
		r->done = true;
		return;
	}
	e->len += next->len;
}

/*
 * Data of [host, host+len), of which the file may not have the end: the last
 * cluster is cut short when its writer did not fill it. What is missing reads
 * as zeroes.
 */
static void append_data(struct run *r, struct extent *next)
{
	uint64_t have = next->host < r->q->data_size ? r->q->data_size - next->host : 0;
	uint64_t len = next->len;

	if (have) {
		next->len = MIN(len, have);
		append(r, next);
	}
	if (have < len && !r->done) {
		struct extent rest = {
			.start = next->start + have, .len = len - have, .kind = EXTENT_ZERO};
		append(r, &rest);
	}
}

/*
 * May it be overwritten without the driver being asked? Not before qcow2_begin, which marks what
 * must be marked first; and never a table, whatever an L2 entry says.
 */
static bool in_place(const struct qcow2 *q, const struct qcow2_cluster *c)
{
	return c->copied && q->writer && q->writer->begun &&
	       (q->external || !qcow2_is_table(q, c->host));
}

/* One cluster, or a part of it that is alike. */
static void append_kind(struct run *r, const struct qcow2_cluster *c, enum extent_kind kind,
			uint64_t start, uint64_t len)
{
	struct extent next = {.start = start, .len = len, .kind = kind};
	uint64_t within = start & (r->q->cluster_size - 1);
	bool allocated = c->host || (r->q->external && c->copied);

	if (kind == EXTENT_CODED) {
		next.file = r->img->file;
		next.host = c->host;
		/* The last sector may be cut short by the file's end. */
		next.coded_len = MIN(c->coded_len, r->q->file_size - c->host);
		next.unit_start = start - within;
		next.unit_len = r->q->cluster_size;
		next.codec = r->q->codec;
		append(r, &next);
		return;
	}
	/* Kept space, of a zero cluster or of a subcluster that nobody wrote, is told only where
	 * it really is. */
	if (allocated && (kind == EXTENT_DATA || c->host < r->q->data_size)) {
		next.file = r->q->data;
		next.host = c->host + within;
		if (kind == EXTENT_DATA && in_place(r->q, c))
			next.flags |= EXTENT_WRITABLE;
		if (kind == EXTENT_DATA && r->q->sparse && !r->q->external)
			next.flags |= EXTENT_MAYBE_SPARSE;
		if (kind != EXTENT_DATA)
			next.flags |= EXTENT_HAS_HOST;
	}
	if (kind == EXTENT_DATA)
		append_data(r, &next);
	else
		append(r, &next);
}

/* Subclusters that differ: [start, start+len) lies in one cluster. */
static void append_mixed(struct run *r, const struct qcow2_cluster *c, uint64_t start, uint64_t len)
{
	unsigned sub_bits = r->q->cluster_bits - 5;
	uint64_t end = start + len;

	while (start < end && !r->done) {
		unsigned i = (start & (r->q->cluster_size - 1)) >> sub_bits;
		uint64_t next = MIN(end, ((start >> sub_bits) + 1) << sub_bits);
		enum extent_kind kind = c->bitmap >> i & 1	    ? EXTENT_DATA
					: c->bitmap >> (32 + i) & 1 ? EXTENT_ZERO
								    : EXTENT_HOLE;

		append_kind(r, c, kind, start, next - start);
		start = next;
	}
}

static int wrong_entry(struct run *r, uint64_t at, uint64_t entry, const char *what,
		       const char *wrong)
{
	/* What came before is whole; the next call begins here and says it. */
	r->done = true;
	if (r->e->len)
		return 0;
	image_fault(r->img, EIO, at, "%s 0x%016" PRIx64 " %s", what, entry, wrong);
	return -EIO;
}

/* One L2 entry; `at` is where in the disk the run has come to. */
static int append_entry(struct run *r, uint64_t at, uint64_t entry, uint64_t bitmap)
{
	static const enum extent_kind kinds[] = {
		[QCOW2_CLUSTER_HOLE] = EXTENT_HOLE,
		[QCOW2_CLUSTER_ZERO] = EXTENT_ZERO,
		[QCOW2_CLUSTER_DATA] = EXTENT_DATA,
		[QCOW2_CLUSTER_CODED] = EXTENT_CODED,
	};
	struct qcow2 *q = r->q;
	struct qcow2_cluster c;
	uint64_t cluster = at >> q->cluster_bits;
	uint64_t len = MIN(r->end, (cluster + 1) << q->cluster_bits) - at;
	const char *wrong;

	qcow2_l2_decode(&r->rules, entry, bitmap, &c);
	wrong = c.wrong;
	if (!wrong && (c.kind == QCOW2_CLUSTER_DATA || (c.mixed && (uint32_t)c.bitmap)))
		wrong = place_wrong(q, &c, cluster);
	if (!wrong && c.kind == QCOW2_CLUSTER_CODED && c.host >= q->file_size)
		wrong = "is compressed data past the end of the file";
	if (wrong)
		return wrong_entry(r, at, entry, "L2 entry", wrong);
	/* With a data file that ends before a cluster, its bytes are lost, not zero. */
	if (q->external && c.kind == QCOW2_CLUSTER_DATA && c.host >= q->data_size)
		return wrong_entry(r, at, entry, "L2 entry", "lies past the end of the data file");
	if (c.mixed)
		append_mixed(r, &c, at, len);
	else
		append_kind(r, &c, kinds[c.kind], at, len);
	return 0;
}

/* How many of the first n entries at `words` describe nothing. */
static uint64_t count_empty(const struct qcow2 *q, const be64_t *words, uint64_t n)
{
	uint64_t total = n << (q->entry_bits - 3), i = 0;

	while (i < total && !be64_get(words[i]))
		i++;
	return i >> (q->entry_bits - 3);
}

/* n of them, as one: a disk of which little is used has tables with almost nothing else. */
static void append_empty(struct run *r, uint64_t at, uint64_t n)
{
	uint64_t end = ((at >> r->q->cluster_bits) + n) << r->q->cluster_bits;
	struct extent hole = {.start = at, .len = MIN(r->end, end) - at, .kind = EXTENT_HOLE};

	append(r, &hole);
}

/* Entries of one L2 table from where the run is, to the table's end at most. */
static int walk_l2(struct run *r, uint64_t l2_offset)
{
	struct qcow2 *q = r->q;
	uint64_t per_table = 1ull << q->l2_bits;
	int err = 0;

	while (!r->done && !err) {
		uint64_t at = r->e->start + r->e->len, cluster = at >> q->cluster_bits;
		uint64_t i = cluster & (per_table - 1), n, empty;
		struct cache_block *block;
		const void *data;
		size_t left;

		err = cache_get(r->img->cache, r->img->file, l2_offset + (i << q->entry_bits),
				&block, &data, &left);
		if (err)
			return err;
		n = MIN(left >> q->entry_bits, per_table - i);
		const be64_t *words = data;

		for (uint64_t k = 0; k < n && !r->done && !err; k++) {
			at = r->e->start + r->e->len;
			if (at >= r->end || !r->budget--) {
				r->done = true;
				break;
			}
			empty = count_empty(q, words + (k << (q->entry_bits - 3)), n - k);
			if (empty) {
				append_empty(r, at, empty);
				k += empty - 1;
				continue;
			}
			err = q->extended ? append_entry(r, at, be64_get(words[2 * k]),
							 be64_get(words[2 * k + 1]))
					  : append_entry(r, at, be64_get(words[k]), 0);
		}
		cache_put(block);
		if (i + n == per_table)
			break;
	}
	return err;
}

/* The L2 table of this L1 index; 0: none. */
static int find_l2(struct run *r, uint64_t at, uint64_t l1_index, uint64_t *l2_offset)
{
	struct qcow2 *q = r->q;
	struct cache_block *block;
	const void *data;
	const char *wrong;
	uint64_t entry;
	size_t left;
	int err;

	*l2_offset = 0;
	if (l1_index == q->last_l1_index) {
		*l2_offset = q->last_l2_offset;
		return 0;
	}
	/* A snapshot's table may end before its disk does: nothing is there. */
	if (l1_index >= q->l1_size)
		return 0;
	err = cache_get(r->img->cache, r->img->file, q->l1_offset + l1_index * 8, &block, &data,
			&left);
	if (err)
		return err;
	entry = be64_get(*(const be64_t *)data);
	cache_put(block);
	*l2_offset = entry & QCOW2_OFFSET_MASK;
	wrong = qcow2_l1_wrong(q->cluster_bits, entry);
	if (!wrong && *l2_offset && !qcow2_inside(*l2_offset, q->cluster_size, q->file_size))
		wrong = "lies past the end of the file";
	if (!wrong && *l2_offset && qcow2_fixed_overlap(q, *l2_offset, q->cluster_size))
		wrong = "lies in the image's own tables";
	if (wrong)
		return wrong_entry(r, at, entry, "L1 entry", wrong);
	q->last_l1_index = l1_index;
	q->last_l2_offset = *l2_offset;
	return 0;
}

/* Whole L1 entries without a table are cheap: 512 of them are seen at a time. */
static void append_no_table(struct run *r, uint64_t at, uint64_t l1_index)
{
	unsigned span_bits = r->q->cluster_bits + r->q->l2_bits;
	uint64_t next = MIN(r->end, (l1_index + 1) << span_bits);
	struct extent hole = {.start = at, .len = next - at, .kind = EXTENT_HOLE};

	if (l1_index >= r->q->l1_size)
		hole.len = r->end - at;
	append(r, &hole);
}

int qcow2_map(struct image *img, uint64_t offset, uint64_t len, struct extent *e)
{
	struct qcow2 *q = qcow2_of(img);
	struct run r = {
		.img = img,
		.q = q,
		.rules = qcow2_rules(q),
		.e = e,
		.end = offset + len,
		.budget = MAX_RUN_ENTRIES,
	};
	int err = 0;

	memset(e, 0, sizeof(*e));
	e->start = offset;
	if (!q->data) {
		image_fault(img, EINVAL, offset, "the data of this image was not opened");
		return -EINVAL;
	}
	while (!r.done && !err) {
		uint64_t at = e->start + e->len, l2_offset;
		uint64_t l1_index = at >> (q->cluster_bits + q->l2_bits);

		if (at >= r.end || !r.budget--)
			break;
		err = find_l2(&r, at, l1_index, &l2_offset);
		if (err || r.done)
			break;
		if (l2_offset)
			err = walk_l2(&r, l2_offset);
		else
			append_no_table(&r, at, l1_index);
	}
	/* A read error behind what is already known belongs to the next call. */
	return e->len ? 0 : err;
}
