/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: host space for what is written, before (reserve) and after (commit). A claim is a run of
 * clusters that are contiguous in the file and are dealt with alike; with subclusters it ends
 * at those, so that a small write does not copy a whole cluster.
 */
#include "formats/qcow2.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "image/cache.h"

/* How a cluster gets its data. In claim.word[0]. */
enum way {
	WAY_NEW,      /* a new host cluster, of which all is written */
	WAY_NEW_PART, /* a new one, of which the touched subclusters are written */
	WAY_KEPT,     /* the one that it has already, all of it (or its touched subclusters) */
	WAY_IN_PLACE, /* it has its data already: nothing changes but bytes */
	WAY_CODED,
};

static bool has_place(const struct qcow2 *q, const struct qcow2_cluster *c)
{
	return c->kind != QCOW2_CLUSTER_CODED && (c->host || (q->external && c->copied));
}

static enum way choose(const struct qcow2 *q, uint64_t entry, const struct qcow2_cluster *c)
{
	/* A data file's clusters are never shared. */
	bool ours = has_place(q, c) && (c->copied || q->external);

	if (ours && c->kind == QCOW2_CLUSTER_DATA && c->copied)
		return WAY_IN_PLACE;
	if (ours)
		return WAY_KEPT;
	if (!q->extended || c->kind == QCOW2_CLUSTER_CODED || (uint32_t)c->bitmap)
		return WAY_NEW;
	/* No subcluster has data: holes and zeroes stay what they are in a new cluster, too. */
	return WAY_NEW_PART;
}

/* Clusters [first, last] of one L2 table that can be claimed together. */
struct plan {
	uint64_t first, last, l2_offset;
	enum way way;
	uint64_t host; /* of the first one, where it has one already */
};

static bool continues(const struct plan *p, uint64_t cluster, enum way way, uint64_t host,
		      unsigned cluster_bits)
{
	if (way != p->way)
		return false;
	if (way == WAY_NEW || way == WAY_NEW_PART)
		return true;
	return host == p->host + ((cluster - p->first) << cluster_bits);
}

static int make_plan(struct image *img, struct plan *p, uint64_t wanted)
{
	const struct qcow2 *q = qcow2_of(img);
	uint64_t end = MAX(file_size(img->file), q->writer->touched);

	wanted = MIN(wanted, qcow2_l2_end(q, p->first) - 1);
	for (uint64_t i = p->first; i <= wanted; i++) {
		struct qcow2_cluster c;
		uint64_t entry, host;
		enum way way;
		int ret = qcow2_l2_get(img, p->l2_offset, i, &entry, &c);

		if (ret < 0)
			return i == p->first ? ret : 0;
		way = choose(q, entry, &c);
		host = q->external ? i << q->cluster_bits : c.host;
		/* Kept space is in the file. To write to it elsewhere would make the file as long
		 * as a damaged entry says, and turn other clusters' errors into zeroes. */
		if (!q->external && way == WAY_KEPT && host >= end) {
			if (i > p->first)
				break;
			return qcow2_mark_corrupt(img, i << q->cluster_bits,
						  "the space kept at 0x%" PRIx64
						  " lies past the end of the file",
						  host);
		}
		if (i == p->first) {
			p->way = way;
			p->host = host;
		} else if (!continues(p, i, way, host, q->cluster_bits)) {
			break;
		}
		p->last = i;
	}
	return 0;
}

static bool whole_clusters(const struct qcow2 *q, enum way way)
{
	return !q->extended || way == WAY_NEW || way == WAY_IN_PLACE;
}

/* The bytes that a claim covers: the touched ones, out to the next boundaries. */
static void set_range(const struct qcow2 *q, const struct plan *p, uint64_t offset, uint64_t len,
		      struct claim *claim)
{
	unsigned bits = whole_clusters(q, p->way) ? q->cluster_bits : q->cluster_bits - 5;
	uint64_t mask = (1ull << bits) - 1, start = p->first << q->cluster_bits;
	uint64_t end = (p->last + 1) << q->cluster_bits;

	claim->start = MAX(start, offset & ~mask);
	claim->len = MIN(end, (offset + len + mask) & ~mask) - claim->start;
	/* A data file does not become longer than the disk. */
	if (q->external)
		claim->len = MIN(claim->len, q->header.size - claim->start);
	claim->host = p->host + (claim->start - start);
}

static int reserve_coded(struct image *img, uint64_t offset, struct claim *claim)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t cluster = offset >> q->cluster_bits, l2_offset;
	int ret;

	if (q->external || offset & (q->cluster_size - 1) || !claim->coded_len ||
	    claim->coded_len > q->cluster_size)
		return -ENOTSUP;
	ret = qcow2_l2_find(img, cluster, true, &l2_offset);
	if (ret == 0)
		ret = qcow2_alloc_coded(img, claim->coded_len, &claim->host);
	claim->start = offset;
	claim->len = q->cluster_size;
	claim->file = img->file;
	claim->word[0] = WAY_CODED;
	return ret;
}

int qcow2_reserve(struct image *img, uint64_t offset, uint64_t len, unsigned flags,
		  struct claim *claim)
{
	struct qcow2 *q = qcow2_of(img);
	struct plan p = {.first = offset >> q->cluster_bits};
	uint64_t size;
	int ret = qcow2_begin(img);

	if (ret == 0 && cache_wants_flush(img->cache, img->file))
		ret = qcow2_flush(img);
	if (ret < 0)
		return ret;
	if (flags & RESERVE_CODED)
		return reserve_coded(img, offset, claim);
	if (!q->data)
		return -EINVAL;
	ret = qcow2_l2_find(img, p.first, true, &p.l2_offset);
	if (ret == 0)
		ret = make_plan(img, &p, (offset + len - 1) >> q->cluster_bits);
	if (ret < 0)
		return ret;
	size = (p.last - p.first + 1) << q->cluster_bits;
	if (q->external)
		ret = 0; /* its place follows from its offset, and is not counted */
	else if (p.way == WAY_NEW || p.way == WAY_NEW_PART)
		ret = qcow2_alloc(img, size, &p.host);
	else
		ret = qcow2_check_place(img, p.host, size, "guest data");
	if (ret < 0)
		return ret;
	set_range(q, &p, offset, len, claim);
	claim->file = q->data;
	claim->fill = p.way != WAY_IN_PLACE;
	claim->fresh = !q->external && (p.way == WAY_NEW || p.way == WAY_NEW_PART) &&
		       p.host >= MAX(file_size(img->file), q->writer->touched);
	claim->word[0] = p.way;
	claim->word[1] = p.host;
	return 0;
}

uint32_t qcow2_subclusters(const struct qcow2 *q, uint64_t cluster, uint64_t start, uint64_t end)
{
	uint64_t begin = cluster << q->cluster_bits, next = begin + q->cluster_size;
	unsigned bits = q->cluster_bits - 5, first, last;

	first = (MAX(start, begin) - begin) >> bits;
	last = (MIN(end, next) - begin - 1) >> bits;
	return (uint32_t)(((2ull << last) - 1) & ~((1ull << first) - 1));
}

static uint64_t new_bitmap(const struct qcow2 *q, const struct claim *claim, uint64_t cluster,
			   const struct qcow2_cluster *old)
{
	uint32_t alloc = old->bitmap, zero = old->bitmap >> 32, bits;

	if (!q->extended || claim->word[0] == WAY_CODED)
		return 0;
	if (claim->word[0] == WAY_NEW)
		return UINT32_MAX;
	bits = qcow2_subclusters(q, cluster, claim->start, claim->start + claim->len);
	return (uint64_t)(zero & ~bits) << 32 | alloc | bits;
}

static uint64_t coded_entry(const struct qcow2 *q, const struct claim *claim)
{
	unsigned x = 62 - (q->cluster_bits - 8);
	uint64_t end = claim->host + claim->coded_len - 1;

	return QCOW2_COMPRESSED | (end / 512 - claim->host / 512) << x | claim->host;
}

static int commit_cluster(struct image *img, const struct claim *claim, uint64_t l2_offset,
			  uint64_t cluster, uint64_t host)
{
	const struct qcow2 *q = qcow2_of(img);
	struct qcow2_cluster old;
	uint64_t entry;
	int ret = qcow2_l2_get(img, l2_offset, cluster, &entry, &old);

	if (ret < 0)
		return ret;
	if (claim->word[0] == WAY_CODED)
		entry = coded_entry(q, claim);
	else if (claim->word[0] == WAY_KEPT && !q->external)
		/* Still only ours, unless a snapshot was made since. */
		entry = host | (entry & QCOW2_COPIED);
	else
		entry = host | QCOW2_COPIED;
	ret = qcow2_l2_write(img, l2_offset, cluster, entry, new_bitmap(q, claim, cluster, &old));
	if (ret < 0 || claim->word[0] == WAY_KEPT)
		return ret;
	return qcow2_l2_release(img, &old);
}

int qcow2_commit(struct image *img, struct claim *claim)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t first = claim->start >> q->cluster_bits, l2_offset;
	uint64_t last = (claim->start + claim->len - 1) >> q->cluster_bits;
	int ret = q->writer->failed;

	q->data_size = MAX(q->data_size, file_size(q->data));
	if (claim->word[0] == WAY_IN_PLACE)
		return ret;
	if (ret == 0)
		ret = qcow2_l2_find(img, first, true, &l2_offset);
	for (uint64_t i = first; ret == 0 && i <= last; i++)
		ret = commit_cluster(img, claim, l2_offset, i,
				     claim->word[1] + ((i - first) << q->cluster_bits));
	return ret;
}

void qcow2_abandon(struct image *img, struct claim *claim)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t way = claim->word[0], start, end;

	if (q->external || way == WAY_KEPT || way == WAY_IN_PLACE)
		return;
	q->writer->touched = MAX(q->writer->touched, claim->host + claim->len);
	if (way == WAY_CODED) {
		qcow2_unref(img, claim->host, claim->coded_len);
		return;
	}
	/* Whole clusters were taken, of which a claim may cover parts. */
	start = claim->start >> q->cluster_bits;
	end = (claim->start + claim->len + q->cluster_size - 1) >> q->cluster_bits;
	qcow2_unref(img, claim->word[1], (end - start) << q->cluster_bits);
}
