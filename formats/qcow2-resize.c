/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: making the disk larger or smaller. The header's size is the point of commit.
 *
 * Growing: first the L1 table, by a header of its own; then everything that will be seen is made
 * what it must be, while it still lies past the disk's end: entries that a shrunken disk or a
 * machine's state left, the rest of the last cluster, what a longer backing file would show, and
 * space that is asked for. Shrinking: first the header; then what lies past the end is freed.
 */
#include "formats/qcow2.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "image/cache.h"
#include "image/spacemap.h"

struct resize {
	struct image *img;
	struct qcow2 *q;
	uint64_t old, size;
	char *mode; /* of preallocation; NULL: off */
};

static uint64_t up(const struct qcow2 *q, uint64_t offset)
{
	return (offset + q->cluster_size - 1) & ~((uint64_t)q->cluster_size - 1);
}

/* Bytes of disk that n L1 entries describe. */
static uint64_t span(const struct qcow2 *q, uint64_t n)
{
	return n << (q->cluster_bits + q->l2_bits);
}

/* ---- the header --------------------------------------------------------------------------------
 */

/* The point of commit, for the bitmaps too; on failure q->header is as before. */
static int commit(struct resize *r, uint64_t size, uint64_t l1_offset, uint32_t l1_size)
{
	struct qcow2_bitmaps_change bitmaps = {.nothing = true};
	struct qcow2_header *h = &r->q->header;
	const struct qcow2_header old = *h;
	int err = size != h->size ? qcow2_bitmaps_prepare_resize(r->img, size, false, &bitmaps) : 0;

	if (err)
		return err;
	h->size = size;
	h->l1_offset = l1_offset;
	h->l1_size = l1_size;
	err = qcow2_bitmaps_finish(r->img, &bitmaps, qcow2_flush_header(r->img));
	if (err) {
		h->size = old.size;
		h->l1_offset = old.l1_offset;
		h->l1_size = old.l1_size;
	}
	qcow2_relayout(r->img);
	return err;
}

/* A longer copy of the L1 table. */
static int copy_l1(struct resize *r, uint32_t n, uint64_t *offset)
{
	const struct qcow2_header *h = &r->q->header;
	g_autofree be64_t *table = g_try_malloc0(n * 8ull);
	int err = table ? 0 : -ENOMEM;

	if (!err && h->l1_size)
		err = cache_read(r->img->cache, r->img->file, h->l1_offset, table,
				 h->l1_size * 8ull);
	if (!err)
		err = qcow2_alloc(r->img, n * 8ull, offset);
	if (err)
		return err;
	err = cache_write(r->img->cache, r->img->file, *offset, table, n * 8ull, QCOW2_NEW);
	if (err)
		qcow2_unref(r->img, *offset, n * 8ull);
	return err;
}

static int grow_l1(struct resize *r)
{
	const struct qcow2_header *h = &r->q->header;
	uint64_t needed = qcow2_l1_needed(h, r->size), old = h->l1_offset, old_len, offset;
	int err;

	if (needed <= h->l1_size)
		return 0;
	if (needed > QCOW2_MAX_L1_ENTRIES)
		return -EFBIG;
	old_len = h->l1_size * 8ull;
	err = copy_l1(r, needed, &offset);
	if (err)
		return err;
	err = commit(r, h->size, offset, needed);
	if (err)
		qcow2_unref(r->img, offset, needed * 8);
	return err ? err : qcow2_free_later(r->img, old, old_len);
}

/* ---- what becomes visible ----------------------------------------------------------------------
 */

/* Does an entry from this cluster to the end of its table say anything? */
static int any_entry(struct resize *r, uint64_t cluster, bool *any)
{
	uint64_t end = qcow2_l2_end(r->q, cluster), l2_offset;
	int err = qcow2_l2_find(r->img, cluster, false, &l2_offset);

	*any = false;
	for (uint64_t i = cluster; !err && l2_offset && i < end && !*any; i++) {
		uint64_t entry, bitmap;

		err = qcow2_l2_read(r->img, l2_offset, i, &entry, &bitmap);
		*any = entry || bitmap;
	}
	return err;
}

/* Nothing of what lies past the end stays: a shared table is not copied for nothing. */
static int clear_behind(struct resize *r)
{
	uint64_t cluster = up(r->q, r->old) >> r->q->cluster_bits;
	uint64_t end = span(r->q, r->q->l1_size) >> r->q->cluster_bits;
	int err = 0;

	while (!err && cluster < end) {
		uint64_t next = qcow2_l2_end(r->q, cluster);
		bool any;

		err = any_entry(r, cluster, &any);
		if (!err && any)
			err = qcow2_unmap(r->img, cluster << r->q->cluster_bits,
					  (next - cluster) << r->q->cluster_bits, UNMAP_TO_HOLE);
		cluster = next;
	}
	return err;
}

/* Bytes of the last cluster that are past the end, in a place that is ours alone. */
static int zero_tail(struct resize *r, const struct qcow2_cluster *c)
{
	uint64_t from = r->old & (r->q->cluster_size - 1);
	uint64_t to = r->q->cluster_size;
	g_autofree uint8_t *zeroes = NULL;

	/* Of subclusters, only the one that the end lies in: those behind it are flagged. */
	if (r->q->extended) {
		uint64_t sub = r->q->cluster_size / QCOW2_SUBCLUSTERS;

		to = (from + sub - 1) / sub * sub;
	}
	if (from == to)
		return 0;
	zeroes = g_try_malloc0(to - from);
	if (!zeroes)
		return -ENOMEM;
	return file_write(r->q->data, c->host + from, zeroes, to - from);
}

/* Subclusters behind the one that the end lies in read as zeroes. */
static int flag_subclusters(struct resize *r, uint64_t cluster, uint64_t l2_offset, uint64_t entry,
			    uint64_t bitmap)
{
	uint64_t sub = r->q->cluster_size / QCOW2_SUBCLUSTERS;
	unsigned first = ((r->old & (r->q->cluster_size - 1)) + sub - 1) / sub;
	uint32_t behind = first < QCOW2_SUBCLUSTERS ? UINT32_MAX << first : 0;
	uint64_t becomes = (bitmap & ~(uint64_t)behind) | (uint64_t)behind << 32;
	int err;

	if (becomes == bitmap)
		return 0;
	err = qcow2_l2_find(r->img, cluster, true, &l2_offset);
	return err ? err : qcow2_l2_write(r->img, l2_offset, cluster, entry, becomes);
}

/*
 * The cluster in which the old end lies. The core has seen to it that where its data is shared,
 * compressed or below, it has been written anew (image_resize).
 */
static int settle_last(struct resize *r)
{
	uint64_t cluster = r->old >> r->q->cluster_bits, l2_offset, entry, bitmap;
	struct qcow2_cluster c;
	int err;

	if (!(r->old & (r->q->cluster_size - 1)))
		return 0;
	err = qcow2_l2_find(r->img, cluster, false, &l2_offset);
	if (!err)
		err = qcow2_l2_get(r->img, l2_offset, cluster, &entry, &c);
	if (err)
		return err;
	/* A data file is seen to as a whole (grow_data_file). */
	if ((c.kind == QCOW2_CLUSTER_DATA || c.mixed) && c.copied && !r->q->external)
		err = zero_tail(r, &c);
	if (err || !r->q->extended || c.kind == QCOW2_CLUSTER_CODED || !l2_offset)
		return err;
	err = qcow2_l2_read(r->img, l2_offset, cluster, &entry, &bitmap);
	return err ? err : flag_subclusters(r, cluster, l2_offset, entry, bitmap);
}

/* ---- space -------------------------------------------------------------------------------------
 */

static bool is_mode(const struct resize *r, const char *mode)
{
	return r->mode && strcmp(r->mode, mode) == 0;
}

static int write_zeroes(struct file *f, uint64_t offset, uint64_t len)
{
	enum { CHUNK = 1 << 20 };
	g_autofree uint8_t *zeroes = g_try_malloc0(CHUNK);
	int err = zeroes ? 0 : -ENOMEM;

	for (; !err && len > 0;) {
		uint64_t n = MIN(len, CHUNK);

		err = file_write(f, offset, zeroes, n);
		offset += n;
		len -= n;
	}
	return err;
}

/* The file's bytes read as zeroes, with as much space as the mode asks for. */
static int make_space(struct resize *r, struct file *f, uint64_t offset, uint64_t len)
{
	uint64_t have = file_size(f), end = offset + len;
	int err = 0;

	if (is_mode(r, "full"))
		return write_zeroes(f, offset, len);
	/* Clusters that were used before hold what they held. */
	if (offset < have) {
		uint64_t n = MIN(have, end) - offset;

		err = file_zero(f, offset, n);
		if (err == -EOPNOTSUPP)
			err = write_zeroes(f, offset, n);
	}
	if (!err && end > have && !S_ISBLK(file_stat(f)->st_mode))
		err = file_truncate(f, end);
	if (!err && is_mode(r, "falloc"))
		err = file_allocate(f, offset, len);
	return err;
}

/* Clusters [first, first+n) of one table get places from host on. */
static int point_at(struct resize *r, uint64_t first, uint64_t n, uint64_t host)
{
	uint64_t bitmap = r->q->extended ? UINT32_MAX : 0, l2_offset;
	int err = qcow2_l2_find(r->img, first, true, &l2_offset);

	for (uint64_t i = 0; !err && i < n; i++)
		err = qcow2_l2_write(r->img, l2_offset, first + i,
				     (host + (i << r->q->cluster_bits)) | QCOW2_COPIED, bitmap);
	return err;
}

static int place_run(struct resize *r, uint64_t first, uint64_t n)
{
	uint64_t len = n << r->q->cluster_bits, host = first << r->q->cluster_bits;
	int err = 0;

	if (!r->q->external)
		err = qcow2_alloc(r->img, len, &host);
	if (err)
		return err;
	if (!r->q->external)
		err = make_space(r, r->img->file, host, len);
	if (!err)
		err = point_at(r, first, n, host);
	/* Entries that were written already stay: they are consistent, and past the disk's end. */
	if (err && !r->q->external)
		image_fault(r->img, err, 0, "space for the disk could not be made");
	return err;
}

/* Clusters of zeroes for [start, end), which nothing describes yet. */
static int place(struct resize *r, uint64_t start, uint64_t end)
{
	uint64_t at = start >> r->q->cluster_bits, last = up(r->q, end) >> r->q->cluster_bits;
	int err = 0;

	while (!err && at < last) {
		uint64_t next = MIN(last, qcow2_l2_end(r->q, at));

		if (cache_wants_flush(r->img->cache, r->img->file))
			err = qcow2_flush(r->img);
		if (!err)
			err = place_run(r, at, next - at);
		at = next;
	}
	return err;
}

/* What a longer backing file has there must not show. */
static int hide_backing(struct resize *r)
{
	uint64_t start = up(r->q, r->old), end;
	int err;

	if (!r->img->backing || r->img->backing->size <= start || r->size <= start)
		return 0;
	end = MIN(r->size, r->img->backing->size);
	err = qcow2_unmap(r->img, start, up(r->q, end) - start, UNMAP_TO_ZERO);
	return err == -EOPNOTSUPP ? place(r, start, end) : err;
}

static bool preallocates(const struct resize *r)
{
	return r->mode && !is_mode(r, "off");
}

/* The new part with places for all of its clusters. */
static int preallocate(struct resize *r)
{
	uint64_t start = up(r->q, r->old);

	return r->size > start ? place(r, start, r->size) : 0;
}

/* ---- growing -----------------------------------------------------------------------------------
 */

/* The data file is as long as the disk. */
static int grow_data_file(struct resize *r)
{
	struct file *f = r->q->data;
	uint64_t have;
	int err = 0;

	if (!r->q->external)
		return 0;
	if (!f)
		return -EINVAL;
	have = file_size(f);
	/* What it has past the disk's end was never a part of it. */
	if (have > r->old)
		err = make_space(r, f, r->old, MIN(have, r->size) - r->old);
	if (!err && file_size(f) < r->size)
		err = is_mode(r, "full") ? write_zeroes(f, have, r->size - have)
					 : file_truncate(f, r->size);
	if (!err && is_mode(r, "falloc"))
		err = file_allocate(f, r->old, r->size - r->old);
	r->q->data_size = file_size(f);
	return err;
}

static bool grow(struct resize *r, GError **error)
{
	int err = grow_l1(r);

	if (err)
		return image_fail(r->img, err, "Failed to grow the L1 table", error);
	err = clear_behind(r);
	if (!err)
		err = settle_last(r);
	if (!err)
		err = grow_data_file(r);
	if (!err)
		err = preallocates(r) ? preallocate(r) : hide_backing(r);
	if (err)
		return image_fail(r->img, err, "The new part of the disk could not be prepared",
				  error);
	err = commit(r, r->size, r->q->header.l1_offset, r->q->header.l1_size);
	return err ? image_fail(r->img, err, "Could not write the new size", error) : true;
}

/* ---- shrinking ---------------------------------------------------------------------------------
 */

/* The part of the last table that is past the end. A table that a snapshot shares stays as it is:
 * growing sees to it. */
static int clear_last_table(struct resize *r)
{
	uint64_t start = up(r->q, r->size), cluster = start >> r->q->cluster_bits, l2_offset;
	uint64_t entry;
	be64_t word;
	int err;

	if (start >= span(r->q, r->q->l1_size))
		return 0;
	err = cache_read(r->img->cache, r->img->file,
			 r->q->l1_offset + (cluster >> r->q->l2_bits) * 8, &word, sizeof(word));
	entry = be64_get(word);
	if (err || !(entry & QCOW2_COPIED))
		return err;
	err = qcow2_l2_find(r->img, cluster, false, &l2_offset);
	if (err || !l2_offset)
		return err;
	return qcow2_unmap(r->img, start,
			   (qcow2_l2_end(r->q, cluster) - cluster) << r->q->cluster_bits,
			   UNMAP_TO_HOLE);
}

/* What no cluster in use is behind of goes back to the host. */
static int cut_file(struct resize *r)
{
	struct qcow2 *q = r->q;
	uint64_t cluster = up(q, file_size(r->img->file)) >> q->cluster_bits;
	int err = 0;

	if (S_ISBLK(file_stat(r->img->file)->st_mode))
		return 0;
	while (!err && cluster > 1) {
		struct qcow2_counts c;
		bool used;

		err = qcow2_counts_get(r->img, cluster - 1, 1, &c);
		if (err)
			break;
		/* Where no block is, nothing is known of what is in use. */
		used = !c.block || qcow2_refcount_entry(c.data, c.first, q->header.refcount_order);
		qcow2_counts_put(&c);
		if (used)
			break;
		cluster--;
	}
	if (err || cluster << q->cluster_bits >= file_size(r->img->file))
		return err;
	err = file_truncate(r->img->file, cluster << q->cluster_bits);
	if (!err)
		q->file_size = cluster << q->cluster_bits;
	qcow2_relayout(r->img);
	return err;
}

/* The disk is smaller already: what fails now leaks, or stays unseen. */
static int free_behind(struct resize *r, const GArray *regions, uint64_t old_l1_len)
{
	struct qcow2 *q = r->q;
	uint64_t used = up(q, q->header.l1_size * 8ull), had = up(q, old_l1_len);
	int err = clear_last_table(r);

	qcow2_regions_free_later(r->img, regions);
	if (had > used)
		qcow2_free_later(r->img, q->header.l1_offset + used, had - used);
	if (!err && q->external && q->data)
		err = file_truncate(q->data, r->size);
	if (q->external && q->data)
		q->data_size = file_size(q->data);
	if (!err)
		err = qcow2_flush(r->img);
	return err ? err : cut_file(r);
}

/* A cluster that two entries have and that is counted once would be lost for the one that stays:
 * in such an image nothing is freed before it was repaired. */
static int check_counts(struct resize *r)
{
	const struct qcow2 *q = r->q;
	g_autoptr(GArray) all = g_array_new(FALSE, FALSE, sizeof(struct qcow2_region));
	int err = qcow2_tree_regions(r->img, q->l1_offset, 0, q->l1_size, QCOW2_WALK_LENIENT, all);
	struct spacemap *used = err ? NULL : qcow2_regions_count(q, all);

	if (!err && !used)
		err = -ENOMEM;
	for (uint64_t i = 0; !err && i <= q->file_size >> q->cluster_bits; i++) {
		uint64_t here = spacemap_get(used, i), count;

		if (!here)
			continue;
		err = qcow2_refcount(r->img, i << q->cluster_bits, &count);
		if (err || count >= here)
			continue;
		image_fault(r->img, EIO, 0,
			    "the cluster at offset 0x%" PRIx64
			    " has more references than it counts: run check -r all",
			    i << q->cluster_bits);
		err = -EIO;
	}
	spacemap_free(used);
	return err;
}

static bool shrink(struct resize *r, GError **error)
{
	const struct qcow2_header *h = &r->q->header;
	g_autoptr(GArray) regions = g_array_new(FALSE, FALSE, sizeof(struct qcow2_region));
	uint32_t old_n = h->l1_size, n = MAX(qcow2_l1_needed(h, r->size), 1);
	int err = check_counts(r);

	if (err)
		return image_fail(r->img, err, "Space cannot be freed", error);
	n = MIN(n, old_n);
	err = qcow2_tree_regions(r->img, h->l1_offset, n, old_n, QCOW2_WALK_LENIENT, regions);
	if (!err)
		err = commit(r, r->size, h->l1_offset, n);
	if (err)
		return image_fail(r->img, err, "Could not write the new size", error);
	err = free_behind(r, regions, old_n * 8ull);
	if (err)
		return image_fail(r->img, err,
				  "The disk is smaller, but its space could not be freed", error);
	return true;
}

/* ---- the whole ---------------------------------------------------------------------------------
 */

static bool may_resize(const struct resize *r, GError **error)
{
	const struct qcow2_header *h = &r->q->header;

	if (r->size % 512)
		return image_unsupported(error, "The new size must be a multiple of 512");
	if (h->nb_snapshots && h->version < 3)
		return image_unsupported(error, "Can't resize a v2 image which has snapshots");
	if (r->size < r->old && preallocates(r))
		return image_unsupported(error,
					 "Preallocation can't be used for shrinking an image");
	if (preallocates(r) && !is_mode(r, "metadata") && !is_mode(r, "falloc") &&
	    !is_mode(r, "full")) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE,
			    "Invalid preallocation mode '%s'", r->mode);
		return false;
	}
	return true;
}

bool qcow2_resize(struct image *img, uint64_t size, struct options *options, GError **error)
{
	struct resize r = {.img = img, .q = qcow2_of(img), .old = img->size, .size = size};
	bool ok;
	int err;

	r.mode = options_take_string(options, "preallocation");
	image_fault_clear(img);
	ok = may_resize(&r, error);
	if (ok && size != r.old) {
		err = qcow2_begin(img);
		if (err)
			ok = image_fail(img, err, "the image cannot be changed", error);
		else
			ok = size > r.old ? grow(&r, error) : shrink(&r, error);
	}
	g_free(r.mode);
	return ok;
}
