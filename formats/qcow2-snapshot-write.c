/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: creating, applying, deleting and renaming internal snapshots ("Snapshots"). The order of
 * writes is that of formats/qcow2.h. Each operation has one point of commit, the header; cut before
 * it, counts are too high; cut after it, counts are too high too. So what is left are leaks, and
 * the operation can be begun again.
 *
 * COPIED flags: they are cleared while the stored counts are still or already greater than 1, and
 * set while they are still greater than 1 but only one reference is left. Both agree with what
 * check allows (qcow2-check.c), and nothing that is shared is ever written in place.
 */
#include "formats/qcow2.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "image/cache.h"
#include "image/spacemap.h"

#define MAX_NAME 255 /* bytes that every reader shows whole */

static GArray *regions_new(void)
{
	return g_array_new(FALSE, FALSE, sizeof(struct qcow2_region));
}

static bool begin(struct image *img, GError **error)
{
	int err;

	image_fault_clear(img);
	err = qcow2_begin(img);
	return err ? image_fail(img, err, "the image cannot be changed", error) : true;
}

/* ---- the snapshot table -----------------------------------------------------------------------
 */

/* Entry `index` as it is on disk, padded. */
static bool append_old(struct image *img, GByteArray *table, unsigned index, GError **error)
{
	const struct qcow2 *q = qcow2_of(img);
	uint64_t at = g_array_index(q->snapshot_offsets, uint32_t, index);
	uint64_t end = index + 1 < q->header.nb_snapshots
			       ? g_array_index(q->snapshot_offsets, uint32_t, index + 1)
			       : q->snapshots_length;
	guint old = table->len;
	int err;

	g_byte_array_set_size(table, old + (end - at));
	err = cache_read(img->cache, img->file, q->header.snapshots_offset + at, table->data + old,
			 end - at);
	return err ? image_fail(img, err, "the snapshot table cannot be read", error) : true;
}

/* "Snapshot table entry": texts follow the extra data. */
static void append_entry(GByteArray *table, const void *head, const void *extra,
			 size_t extra_length, const char *id, size_t id_length, const char *name)
{
	static const uint8_t padding[8];

	g_byte_array_append(table, head, sizeof(struct qcow2_snapshot_disk));
	g_byte_array_append(table, extra, extra_length);
	g_byte_array_append(table, (const uint8_t *)id, id_length);
	g_byte_array_append(table, (const uint8_t *)name, strlen(name));
	g_byte_array_append(table, padding, (8 - table->len % 8) % 8);
}

static void append_new(struct image *img, GByteArray *table, uint64_t l1_offset, const char *id,
		       const char *name)
{
	const struct qcow2_header *h = &qcow2_of(img)->header;
	struct timespec now;
	struct qcow2_snapshot_disk d = {
		.l1_offset = be64_make(l1_offset),
		.l1_size = be32_make(h->l1_size),
		.id_length = be16_make(strlen(id)),
		.name_length = be16_make(strlen(name)),
		.extra_length = be32_make(sizeof(struct qcow2_snapshot_extra_disk)),
	};
	/* No machine was running: no state, and the instruction count is 0 as qemu-img has it. */
	struct qcow2_snapshot_extra_disk x = {.disk_size = be64_make(h->size)};

	clock_gettime(CLOCK_REALTIME, &now);
	d.date_sec = be32_make(now.tv_sec);
	d.date_nsec = be32_make(now.tv_nsec);
	append_entry(table, &d, &x, sizeof(x), id, strlen(id), name);
}

/* Entry `index` with another name. */
static bool append_renamed(struct image *img, GByteArray *table, unsigned index, const char *name,
			   GError **error)
{
	g_autoptr(GByteArray) old = g_byte_array_new();
	struct qcow2_snapshot_disk d;
	const uint8_t *extra;
	size_t extra_length;

	if (!append_old(img, old, index, error))
		return false;
	memcpy(&d, old->data, sizeof(d));
	extra = old->data + sizeof(d);
	extra_length = be32_get(d.extra_length);
	d.name_length = be16_make(strlen(name));
	append_entry(table, &d, extra, extra_length, (const char *)extra + extra_length,
		     be16_get(d.id_length), name);
	return true;
}

/* All of entry `index`, wherever the next one begins. */
static uint8_t *read_whole(struct image *img, unsigned index, const struct qcow2_snapshot *s,
			   GError **error)
{
	const struct qcow2 *q = qcow2_of(img);
	g_autofree uint8_t *bytes = g_try_malloc(s->total);
	int err = bytes ? cache_read(img->cache, img->file,
				     q->header.snapshots_offset +
					     g_array_index(q->snapshot_offsets, uint32_t, index),
				     bytes, s->total)
			: -ENOMEM;

	if (!err)
		return g_steal_pointer(&bytes);
	image_fail(img, err, "the snapshot table cannot be read", error);
	return NULL;
}

/* Entry `index` with the extra data that version 3 wants, and no more than others read. */
static bool append_complete(struct image *img, GByteArray *table, unsigned index, bool *changed,
			    GError **error)
{
	struct qcow2_snapshot_extra_disk x = {.disk_size = be64_make(qcow2_of(img)->header.size)};
	g_autofree uint8_t *old = NULL;
	g_autofree char *name = NULL;
	struct qcow2_snapshot_disk d;
	struct qcow2_snapshot s;
	const void *extra = &x;
	size_t length = sizeof(x);
	const char *texts;

	if (!qcow2_snapshot_read(img, index, &s, error))
		return false;
	old = read_whole(img, index, &s, error);
	if (!old)
		return false;
	memcpy(&d, old, sizeof(d));
	texts = (const char *)old + sizeof(d) + s.extra_length;
	name = g_strndup(texts + s.id_length, s.name_length);
	x.vm_state_size = be64_make(s.vm_state_size);
	if (s.has_disk_size) {
		extra = old + sizeof(d);
		length = MIN(s.extra_length, QCOW2_MAX_SNAPSHOT_EXTRA);
	}
	*changed |= length != s.extra_length;
	d.extra_length = be32_make(length);
	d.name_length = be16_make(strlen(name));
	append_entry(table, &d, extra, length, texts, s.id_length, name);
	return true;
}

/* A new table that nothing points at yet; an empty one has no place. */
static int write_table(struct image *img, const GByteArray *table, uint64_t *offset)
{
	int err;

	*offset = 0;
	if (!table->len)
		return 0;
	err = qcow2_alloc(img, table->len, offset);
	if (!err) {
		err = cache_write(img->cache, img->file, *offset, table->data, table->len,
				  QCOW2_NEW);
		if (err)
			qcow2_unref(img, *offset, table->len);
	}
	return err;
}

/* What follows from the header's new fields. */
static bool table_changed(struct image *img, GError **error)
{
	struct qcow2 *q = qcow2_of(img);

	qcow2_snapshots_forget(q);
	if (!qcow2_snapshots_index(img, q, error)) {
		q->snapshot_offsets = g_array_new(FALSE, TRUE, sizeof(uint32_t));
		g_array_set_size(q->snapshot_offsets, q->header.nb_snapshots);
		q->writer->failed = -EIO;
		return false;
	}
	qcow2_relayout(img);
	return true;
}

/*
 * Makes `table` with n entries the image's, in one write of the header together with what *changed
 * has else, and frees the old one afterwards. On failure the header is the old one.
 */
static bool commit_table(struct image *img, const GByteArray *table, unsigned n, GError **error)
{
	struct qcow2 *q = qcow2_of(img);
	struct qcow2_header *h = &q->header;
	uint64_t old = h->snapshots_offset, old_length = q->snapshots_length, offset;
	unsigned old_n = h->nb_snapshots;
	int err = write_table(img, table, &offset);

	if (err)
		return image_fail(img, err, "the new snapshot table could not be written", error);
	h->snapshots_offset = offset;
	h->nb_snapshots = n;
	err = qcow2_flush_header(img);
	if (err) {
		h->snapshots_offset = old;
		h->nb_snapshots = old_n;
		if (table->len)
			qcow2_unref(img, offset, table->len);
		return image_fail(img, err, "the header could not be written", error);
	}
	if (!table_changed(img, error))
		return false;
	if (old_n)
		qcow2_free_later(img, old, old_length);
	return true;
}

/* ---- create -----------------------------------------------------------------------------------
 */

/* IDs are decimal numbers; the next one is greater than all of them. */
static bool next_id(struct image *img, char id[24], GError **error)
{
	uint64_t greatest = 0;

	for (unsigned i = 0; i < qcow2_of(img)->header.nb_snapshots; i++) {
		g_autofree char *text = NULL;
		struct qcow2_snapshot s;

		if (!qcow2_snapshot_read(img, i, &s, error))
			return false;
		text = qcow2_snapshot_text(img, i, &s, false, error);
		if (!text)
			return false;
		greatest = MAX(greatest, g_ascii_strtoull(text, NULL, 10));
	}
	if (greatest == UINT64_MAX)
		greatest = 0; /* not a number of ours: what follows is unique enough */
	g_snprintf(id, 24, "%" PRIu64, greatest + 1);
	return true;
}

static bool may_create(const struct image *img, const char *name, GError **error)
{
	const struct qcow2 *q = qcow2_of(img);

	if (q->external)
		return image_unsupported(
			error, "an image with a data file cannot have internal snapshots");
	if (q->header.nb_snapshots >= QCOW2_MAX_SNAPSHOTS)
		return image_unsupported(error, "the image has 65536 snapshots already");
	if (strlen(name) > MAX_NAME)
		return image_unsupported(error, "the name is longer than 255 bytes");
	if (q->snapshots_length + 1024 > QCOW2_MAX_SNAPSHOT_BYTES)
		return image_unsupported(error, "the snapshot table would be larger than 64 MiB");
	return true;
}

/* A copy of n entries without COPIED flags, in clusters of its own; 0 entries have no place. */
static int copy_l1(struct image *img, uint64_t from, uint32_t n, uint32_t size, uint64_t *offset)
{
	g_autofree be64_t *table = NULL;
	int err;

	*offset = 0;
	if (!size)
		return 0;
	table = g_try_malloc0(size * 8ull);
	if (!table)
		return -ENOMEM;
	err = cache_read(img->cache, img->file, from, table, n * 8ull);
	for (uint32_t i = 0; !err && i < n; i++)
		table[i] = be64_make(be64_get(table[i]) & ~QCOW2_COPIED);
	if (!err)
		err = qcow2_alloc(img, size * 8ull, offset);
	if (!err)
		err = cache_write(img->cache, img->file, *offset, table, size * 8ull, QCOW2_NEW);
	if (err && *offset)
		qcow2_unref(img, *offset, size * 8ull);
	return err;
}

/* The flags as they were before the counts were raised, and the counts. What fails leaks. */
static void undo_refs(struct image *img, const GArray *refs)
{
	struct spacemap *less = qcow2_regions_count(qcow2_of(img), refs);

	if (less && !qcow2_of(img)->writer->failed && qcow2_set_copied(img, less) == 0)
		qcow2_regions_free_later(img, refs);
	spacemap_free(less);
}

static bool create_entry(struct image *img, uint64_t l1_offset, const char *name, GError **error)
{
	struct qcow2 *q = qcow2_of(img);
	g_autoptr(GByteArray) table = g_byte_array_new();
	char id[24];
	int err;

	for (unsigned i = 0; i < q->header.nb_snapshots; i++)
		if (!append_old(img, table, i, error))
			return false;
	if (!next_id(img, id, error))
		return false;
	append_new(img, table, l1_offset, id, name);
	err = qcow2_clear_copied(img, q->header.l1_offset, q->header.l1_size, true);
	if (err)
		return image_fail(img, err, "the L2 tables could not be changed", error);
	return commit_table(img, table, q->header.nb_snapshots + 1, error);
}

bool qcow2_snapshot_create(struct image *img, const char *name, GError **error)
{
	struct qcow2 *q = qcow2_of(img);
	const struct qcow2_header *h = &q->header;
	g_autoptr(GArray) refs = regions_new();
	uint64_t l1_offset = 0;
	bool ok = false;
	int err;

	if (!may_create(img, name, error) || !begin(img, error))
		return false;
	err = qcow2_tree_regions(img, h->l1_offset, 0, h->l1_size, false, refs);
	if (!err)
		err = qcow2_regions_ref(img, refs);
	if (err)
		return image_fail(img, err, "the clusters of the disk cannot be shared", error);
	err = copy_l1(img, h->l1_offset, h->l1_size, h->l1_size, &l1_offset);
	if (err)
		image_fail(img, err, "the L1 table cannot be copied", error);
	else
		ok = create_entry(img, l1_offset, name, error);
	if (ok)
		return true;
	undo_refs(img, refs);
	if (l1_offset && !err)
		qcow2_free_later(img, l1_offset, h->l1_size * 8ull);
	return false;
}

/* ---- apply ------------------------------------------------------------------------------------
 */

struct apply {
	struct image *img;
	struct qcow2_snapshot s;
	uint64_t size, l1_offset;
	uint32_t l1_size, copied; /* entries; of them from the snapshot */
	GArray *old, *refs;
};

/* Shares the snapshot's clusters and copies its L1 table; the state of a machine, which lies past
 * the disk's end, is of no use to the disk. */
static bool prepare_apply(struct apply *a, GError **error)
{
	struct image *img = a->img;
	const struct qcow2_header *h = &qcow2_of(img)->header;
	int err;

	a->size = a->s.has_disk_size ? a->s.disk_size : h->size;
	a->l1_size = qcow2_l1_needed(h, a->size);
	a->copied = MIN(a->l1_size, a->s.l1_size);
	err = qcow2_tree_regions(img, h->l1_offset, 0, h->l1_size, true, a->old);
	if (!err)
		err = qcow2_tree_regions(img, a->s.l1_offset, 0, a->copied, false, a->refs);
	if (!err) {
		/* What both have keeps its count, which may be as high as counts can be. */
		qcow2_regions_cancel(qcow2_of(img), a->old, a->refs);
		err = qcow2_regions_ref(img, a->refs);
	}
	if (err)
		return image_fail(img, err, "the clusters of the snapshot cannot be shared", error);
	err = copy_l1(img, a->s.l1_offset, a->copied, a->l1_size, &a->l1_offset);
	if (err)
		qcow2_regions_unref(img, a->refs, a->refs->len);
	return err ? image_fail(img, err, "the snapshot's L1 table cannot be copied", error) : true;
}

static bool commit_apply(struct apply *a, GError **error)
{
	struct image *img = a->img;
	struct qcow2_bitmaps_change bitmaps = {.nothing = true};
	struct qcow2_header *h = &qcow2_of(img)->header;
	const struct qcow2_header old = *h;
	int err = qcow2_clear_copied(img, a->l1_offset, a->l1_size, false);

	if (!err && a->size != h->size)
		err = qcow2_bitmaps_prepare_resize(img, a->size, true, &bitmaps);
	if (!err) {
		h->l1_offset = a->l1_offset;
		h->l1_size = a->l1_size;
		h->size = a->size;
		err = qcow2_bitmaps_finish(img, &bitmaps, qcow2_flush_header(img));
	}
	if (!err) {
		/* The old disk's space, when nothing points at it any more. */
		qcow2_relayout(img);
		qcow2_regions_free_later(img, a->old);
		qcow2_free_later(img, old.l1_offset, old.l1_size * 8ull);
		return true;
	}
	h->l1_offset = old.l1_offset;
	h->l1_size = old.l1_size;
	h->size = old.size;
	qcow2_regions_unref(img, a->refs, a->refs->len);
	if (a->l1_offset)
		qcow2_unref(img, a->l1_offset, a->l1_size * 8ull);
	return image_fail(img, err, "the snapshot's tables could not be made the disk's", error);
}

bool qcow2_snapshot_apply(struct image *img, unsigned index, GError **error)
{
	struct apply a = {.img = img};
	bool ok;

	if (!qcow2_snapshot_usable(img, index, &a.s, error))
		return false;
	if (a.s.has_disk_size && !a.s.disk_size && qcow2_of(img)->header.has_bitmaps)
		return image_unsupported(error,
					 "an empty disk cannot have bitmaps: remove them first");
	if (!begin(img, error))
		return false;
	a.old = regions_new();
	a.refs = regions_new();
	ok = prepare_apply(&a, error) && commit_apply(&a, error);
	g_array_unref(a.old);
	g_array_unref(a.refs);
	return ok;
}

/* ---- delete and rename -------------------------------------------------------------------------
 */

/* Its clusters, with its L1 table. Of a damaged one, what can be found. */
static int snapshot_regions(struct image *img, const struct qcow2_snapshot *s, GArray *regions)
{
	const struct qcow2 *q = qcow2_of(img);
	struct qcow2_region l1 = {s->l1_offset, s->l1_size * 8ull};
	int err;

	if (!l1.len || !l1.host || qcow2_snapshot_l1_wrong(q, s) ||
	    !qcow2_inside(l1.host, l1.len, q->file_size) || qcow2_fixed_overlap(q, l1.host, l1.len))
		return 0;
	err = qcow2_tree_regions(img, s->l1_offset, 0, s->l1_size, true, regions);
	g_array_append_val(regions, l1);
	return err;
}

/* The snapshot is gone; now its space. */
static bool free_regions(struct image *img, const GArray *regions, GError **error)
{
	struct spacemap *less = qcow2_regions_count(qcow2_of(img), regions);
	int err = less ? qcow2_set_copied(img, less) : -ENOMEM;

	spacemap_free(less);
	if (err)
		return image_fail(
			img, err,
			"the snapshot was deleted, but its space was not freed (check -r leaks "
			"does it)",
			error);
	qcow2_regions_free_later(img, regions);
	return true;
}

bool qcow2_snapshot_delete(struct image *img, unsigned index, GError **error)
{
	struct qcow2 *q = qcow2_of(img);
	g_autoptr(GByteArray) table = g_byte_array_new();
	g_autoptr(GArray) regions = regions_new();
	struct qcow2_snapshot s;
	int err;

	g_assert(index < q->header.nb_snapshots);
	if (!qcow2_snapshot_read(img, index, &s, error) || !begin(img, error))
		return false;
	err = snapshot_regions(img, &s, regions);
	if (err)
		return image_fail(img, err, "the snapshot's tables cannot be read", error);
	for (unsigned i = 0; i < q->header.nb_snapshots; i++)
		if (i != index && !append_old(img, table, i, error))
			return false;
	return commit_table(img, table, q->header.nb_snapshots - 1, error) &&
	       free_regions(img, regions, error);
}

bool qcow2_snapshot_rename(struct image *img, unsigned index, const char *name, GError **error)
{
	struct qcow2 *q = qcow2_of(img);
	g_autoptr(GByteArray) table = g_byte_array_new();

	g_assert(index < q->header.nb_snapshots);
	if (strlen(name) > MAX_NAME)
		return image_unsupported(error, "the name is longer than 255 bytes");
	if (!begin(img, error))
		return false;
	for (unsigned i = 0; i < q->header.nb_snapshots; i++)
		if (i == index ? !append_renamed(img, table, i, name, error)
			       : !append_old(img, table, i, error))
			return false;
	return commit_table(img, table, q->header.nb_snapshots, error);
}

bool qcow2_snapshots_complete(struct image *img, bool *changed, GError **error)
{
	g_autoptr(GByteArray) table = g_byte_array_new();
	unsigned n = qcow2_of(img)->header.nb_snapshots;

	*changed = qcow2_of(img)->salvaged;
	for (unsigned i = 0; i < n; i++)
		if (!append_complete(img, table, i, changed, error))
			return false;
	return !*changed || (begin(img, error) && commit_table(img, table, n, error));
}

/* ---- how much space each has ------------------------------------------------------------------
 */

bool qcow2_snapshot_usage(struct image *img, unsigned index, uint64_t *own, uint64_t *shared,
			  GError **error)
{
	const struct qcow2 *q = qcow2_of(img);
	g_autoptr(GArray) regions = regions_new();
	struct spacemap *used;
	struct qcow2_snapshot s;
	int err;

	*own = *shared = 0;
	if (!qcow2_snapshot_read(img, index, &s, error))
		return false;
	err = snapshot_regions(img, &s, regions);
	used = err ? NULL : qcow2_regions_count(q, regions);
	if (!used)
		return image_fail(img, err ? err : -ENOMEM, "the snapshot's tables cannot be read",
				  error);
	for (uint64_t i = 0; !err && i <= q->file_size >> q->cluster_bits; i++) {
		uint64_t here = spacemap_get(used, i), count = 0;

		if (!here)
			continue;
		err = qcow2_refcount(img, i << q->cluster_bits, &count);
		*(count <= here ? own : shared) += q->cluster_size;
	}
	spacemap_free(used);
	return err ? image_fail(img, err, "the refcounts cannot be read", error) : true;
}
