/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: L2 tables that are to be changed ("Cluster mapping"): found, made, or copied when a
 * snapshot shares them, and their entries.
 */
#include "formats/qcow2.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "image/cache.h"

static uint64_t disk_offset(const struct qcow2 *q, uint64_t cluster)
{
	return cluster << q->cluster_bits;
}

uint64_t qcow2_l2_end(const struct qcow2 *q, uint64_t cluster)
{
	return ((cluster >> q->l2_bits) + 1) << q->l2_bits;
}

/* ---- tables -----------------------------------------------------------------------------------
 */

/* The table's place is checked as map does, and a wrong one ends all writing. */
static int read_l1(struct image *img, uint64_t cluster, uint64_t *entry)
{
	const struct qcow2 *q = qcow2_of(img);
	uint64_t index = cluster >> q->l2_bits, offset;
	const char *wrong;
	be64_t e;
	int ret;

	if (index >= q->l1_size)
		return -EINVAL;
	ret = cache_read(img->cache, img->file, q->l1_offset + index * 8, &e, sizeof(e));
	if (ret < 0) {
		image_fault(img, ret, disk_offset(q, cluster), "the L1 table cannot be read");
		return ret;
	}
	*entry = be64_get(e);
	offset = *entry & QCOW2_OFFSET_MASK;
	wrong = qcow2_l1_wrong(q->cluster_bits, *entry);
	if (!wrong && offset && !qcow2_inside(offset, q->cluster_size, q->file_size))
		wrong = "lies past the end of the file";
	if (!wrong && offset && qcow2_fixed_overlap(q, offset, q->cluster_size))
		wrong = "lies in the image's own tables";
	if (wrong)
		return qcow2_mark_corrupt(img, disk_offset(q, cluster),
					  "L1 entry 0x%016" PRIx64 " %s", *entry, wrong);
	return 0;
}

/* old: the shared table, or 0. */
static int make_table(struct image *img, uint64_t cluster, uint64_t old, uint64_t *l2_offset)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t index = cluster >> q->l2_bits, host;
	be64_t entry;
	int ret = qcow2_alloc(img, q->cluster_size, &host);

	if (ret < 0)
		return ret;
	ret = old ? qcow2_copy_table(img, old, host, q->cluster_size)
		  : qcow2_zero_table(img, host, q->cluster_size);
	entry = be64_make(host | QCOW2_COPIED);
	if (ret == 0)
		ret = cache_write(img->cache, img->file, q->l1_offset + index * 8, &entry,
				  sizeof(entry), QCOW2_TABLES);
	if (ret < 0) {
		qcow2_unref(img, host, q->cluster_size);
		return ret;
	}
	qcow2_note_table(q, host);
	q->last_l1_index = UINT64_MAX;
	*l2_offset = host;
	return old ? qcow2_free_later(img, old, q->cluster_size) : 0;
}

int qcow2_l2_find(struct image *img, uint64_t cluster, bool make, uint64_t *l2_offset)
{
	uint64_t entry;
	int ret = read_l1(img, cluster, &entry);

	if (ret < 0)
		return ret;
	*l2_offset = entry & QCOW2_OFFSET_MASK;
	if (!make || (*l2_offset && (entry & QCOW2_COPIED)))
		return 0;
	return make_table(img, cluster, *l2_offset, l2_offset);
}

/* ---- entries ----------------------------------------------------------------------------------
 */

static uint64_t entry_offset(const struct qcow2 *q, uint64_t l2_offset, uint64_t cluster)
{
	return l2_offset + ((cluster & ((1ull << q->l2_bits) - 1)) << q->entry_bits);
}

int qcow2_l2_read(struct image *img, uint64_t l2_offset, uint64_t cluster, uint64_t *entry,
		  uint64_t *bitmap)
{
	const struct qcow2 *q = qcow2_of(img);
	struct cache_block *block;
	const void *data;
	size_t left;
	int ret = cache_get(img->cache, img->file, entry_offset(q, l2_offset, cluster), &block,
			    &data, &left);

	if (ret < 0) {
		image_fault(img, ret, disk_offset(q, cluster),
			    "the L2 table at 0x%" PRIx64 " cannot be read", l2_offset);
		return ret;
	}
	*entry = be64_get(((const be64_t *)data)[0]);
	*bitmap = q->extended ? be64_get(((const be64_t *)data)[1]) : 0;
	cache_put(block);
	return 0;
}

int qcow2_l2_write(struct image *img, uint64_t l2_offset, uint64_t cluster, uint64_t entry,
		   uint64_t bitmap)
{
	const struct qcow2 *q = qcow2_of(img);
	be64_t words[2] = {be64_make(entry), be64_make(bitmap)};
	int ret = cache_write(img->cache, img->file, entry_offset(q, l2_offset, cluster), words,
			      1u << q->entry_bits, QCOW2_TABLES);

	if (ret < 0)
		image_fault(img, ret, disk_offset(q, cluster),
			    "the L2 table at 0x%" PRIx64 " cannot be changed", l2_offset);
	return ret;
}

int qcow2_l2_get(struct image *img, uint64_t l2_offset, uint64_t cluster, uint64_t *entry,
		 struct qcow2_cluster *c)
{
	struct qcow2_l2_rules rules = qcow2_rules(qcow2_of(img));
	uint64_t bitmap;
	int ret;

	memset(c, 0, sizeof(*c));
	*entry = 0;
	if (!l2_offset)
		return 0;
	ret = qcow2_l2_read(img, l2_offset, cluster, entry, &bitmap);
	if (ret < 0)
		return ret;
	qcow2_l2_decode(&rules, *entry, bitmap, c);
	if (!c->wrong)
		return 0;
	image_fault(img, EIO, disk_offset(qcow2_of(img), cluster), "L2 entry 0x%016" PRIx64 " %s",
		    *entry, c->wrong);
	return -EIO;
}

int qcow2_l2_release(struct image *img, const struct qcow2_cluster *old)
{
	const struct qcow2 *q = qcow2_of(img);
	bool coded = old->kind == QCOW2_CLUSTER_CODED;
	uint64_t len = coded ? old->coded_len : q->cluster_size;
	int ret;

	/* In a data file, a cluster's place is its own for ever. */
	if (!old->host || q->external)
		return 0;
	/* A damaged entry must not have a table given up: it would be overwritten next. */
	ret = qcow2_check_place(img, old->host, len, "what comes after guest data");
	return ret < 0 ? ret : qcow2_free_later(img, old->host, len);
}
