/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: a disk without any cluster of its own, in a file as short as a new image's. A new image
 * has its tables at the file's front, where the old ones are still in force, so it is done twice,
 * each time by one write of the header's sector:
 *
 *   1. an L1 table without entries and a refcount structure that counts only it, itself and the
 *	header, behind everything; sync; the header; sync. From here on the disk is empty.
 *   2. the tables of a new image at the front, which is free now; sync; the header; sync.
 *   3. the file is cut behind them.
 *
 * Cut anywhere, the tables that the header names are whole, and what lies outside of them is not
 * counted: not even a leak.
 */
#include "formats/qcow2.h"

#include <errno.h>

#include "image/cache.h"
#include "image/create.h"

struct empty {
	struct image *img;
	struct qcow2 *q;
	struct qcow2_shape shape;
	struct qcow2_layout layout; /* of the image in the end */
	uint64_t first, end;	    /* clusters of the L1 table of step 1 */
};

/* Is all that the file has known, and not needed? And does the file gain by it? */
static bool is_possible(struct empty *e)
{
	const struct qcow2_header *h = &e->q->header;
	const struct file *f = e->img->file;
	bool device = !S_ISREG(file_stat(f)->st_mode) && file_fd(f) >= 0;

	if (e->q->external || h->nb_snapshots || h->has_bitmaps || h->has_crypto ||
	    (h->unknown && h->unknown->len) || device)
		return false;
	return qcow2_layout(&e->shape, &e->layout) &&
	       e->layout.reftable_clusters <= QCOW2_MAX_REFTABLE_BYTES >> h->cluster_bits &&
	       file_size(f) > e->layout.end;
}

static int count_one(void *arg, uint64_t cluster, uint64_t *count)
{
	const struct empty *e = arg;

	*count = cluster == 0 || (cluster >= e->first && cluster < e->end);
	return 0;
}

/* Step 1. The L1 table is not written: the file reads as zeroes where it was never written. */
static int move_out(struct empty *e)
{
	struct qcow2_count_source source = {.get = count_one, .arg = e};
	struct qcow2_header *h = &e->q->header, old = *h;
	uint64_t size = file_size(e->img->file), mask = e->q->cluster_size - 1;
	int ret;

	e->first = (MAX(size, e->layout.end) + mask) >> h->cluster_bits;
	e->end = e->first + ((h->l1_size * 8ull + mask) >> h->cluster_bits);
	h->l1_offset = e->first << h->cluster_bits;
	ret = qcow2_rebuild_refcounts(e->img, &source, e->end, h->refcount_order);
	if (ret == 0)
		return 0;
	*h = old;
	qcow2_relayout(e->img);
	if (e->q->writer->failed)
		return ret;
	/* Nothing has changed but the file's length; if it is for want of room, there is another
	 * way. */
	file_truncate(e->img->file, size);
	return ret == -ENOSPC || ret == -EDQUOT || ret == -EFBIG ? -EOPNOTSUPP : ret;
}

static int write_front(struct empty *e)
{
	const struct qcow2_layout *l = &e->layout;
	const struct qcow2_tables tables = {e->img->file, &e->shape, l, 0, 0};
	uint64_t l1_end = l->l1 + l->l1_entries * 8;
	int ret = qcow2_tables_write(&tables);

	if (ret == 0 && l1_end < l->end)
		ret = image_write_zero_bytes(e->img->file, l1_end, l->end - l1_end);
	return ret ? ret : qcow2_sync(e->img, e->img->file);
}

/* Steps 2 and 3. */
static int move_to_front(struct empty *e)
{
	struct qcow2_header *h = &e->q->header, old = *h;
	int ret = write_front(e);

	if (ret < 0)
		return ret;
	h->l1_offset = e->layout.l1;
	h->l1_size = e->layout.l1_entries;
	h->reftable_offset = e->layout.reftable;
	h->reftable_clusters = e->layout.reftable_clusters;
	h->snapshots_offset = 0;
	ret = qcow2_header_store_fixed(e->img);
	if (ret < 0) {
		*h = old;
		return ret; /* the disk is empty as it is */
	}
	/* What stays behind the tables if this fails belongs to nobody. */
	file_truncate(e->img->file, e->layout.end);
	e->q->writer->touched = 0;
	e->q->file_size = file_size(e->img->file);
	cache_drop_file(e->img->cache, e->img->file);
	qcow2_relayout(e->img);
	return 0;
}

int qcow2_empty(struct image *img)
{
	struct qcow2 *q = qcow2_of(img);
	struct empty e = {
		.img = img,
		.q = q,
		.shape = {.cluster_bits = q->cluster_bits,
			  .refcount_order = q->header.refcount_order,
			  .extended = q->extended,
			  .size = q->header.size},
	};
	int ret = is_possible(&e) ? qcow2_begin(img) : -EOPNOTSUPP;

	/* What is still to be freed would be freed in the new structure. */
	if (ret == 0)
		ret = qcow2_flush(img);
	if (ret == 0)
		ret = move_out(&e);
	if (ret == 0)
		ret = move_to_front(&e);
	if (ret == 0)
		qcow2_writer_forget(q->writer);
	if (ret < 0 && ret != -EOPNOTSUPP)
		image_fault(img, ret, 0, "the emptied image's tables could not be written");
	return ret;
}
