/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: creating, applying, deleting and renaming internal snapshots ("Snapshots"). The order of
 * writes is that of formats/qcow2.h. Each operation has one point of commit, the header: with it
 * come the new snapshot table, the disk's new L1 and L2 tables with the COPIED flags that they then
 * must have, and the counts (qcow2-shadow.c says why these too). Cut before it, what was newly
 * allocated leaks; cut after it, what it replaced. At no moment does a flag disagree with a count
 * in the tables of the disk; in those of a snapshot it means nothing.
 *
 *   create	the snapshot takes the disk's tables as they are, and the disk gets copies
 *   delete	of the disk's tables, those are copied in which a flag is to be set
 *   apply	the disk gets a copy of the snapshot's L1 table, and shares its L2 tables
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
		qcow2_give_up(img, "its new snapshot table cannot be read");
		return false;
	}
	qcow2_relayout(img);
	return true;
}

/* What changes with the snapshot table: references, and the disk's L1 table. */
struct change {
	GArray *more, *less;	     /* struct qcow2_region: counts to be raised and lowered */
	struct qcow2_tree_copy copy; /* the disk's tables */
	struct qcow2_shadow shadow;
};

static void change_init(struct change *c)
{
	*c = (struct change){.more = regions_new(), .less = regions_new()};
	c->copy.made = regions_new();
	c->copy.replaced = regions_new();
}

static void change_clear(struct change *c)
{
	g_array_unref(c->more);
	g_array_unref(c->less);
	g_array_unref(c->copy.made);
	g_array_unref(c->copy.replaced);
}

/* After it nothing may be allocated until change_end. */
static int change_begin(struct image *img, struct change *c)
{
	int err = qcow2_shadow_begin(img, &c->shadow, c->more, c->less);

	if (err)
		return err;
	err = qcow2_regions_ref(img, c->more);
	if (err)
		return qcow2_shadow_end(img, &c->shadow, err);
	qcow2_regions_unref(img, c->less, c->less->len);
	return 0;
}

/* Writes the header; returns what failed. What became free goes back to the host: a hint. */
static int change_commit(struct image *img, struct change *c)
{
	int err = qcow2_shadow_end(img, &c->shadow, qcow2_flush_header(img));

	if (!err)
		qcow2_punch(img, c->less);
	return err;
}

/*
 * Makes `table` with n entries the image's, in one write of the header together with what c (NULL:
 * nothing) changes, and frees the old one afterwards. On failure all is as it was, but for c's new
 * clusters.
 */
static int store_table(struct image *img, const GByteArray *table, unsigned n, struct change *c)
{
	struct qcow2 *q = qcow2_of(img);
	struct qcow2_header *h = &q->header;
	uint64_t old = h->snapshots_offset, old_l1 = h->l1_offset, offset;
	unsigned old_n = h->nb_snapshots;
	int err = write_table(img, table, &offset);

	if (err)
		return err;
	if (c)
		err = change_begin(img, c);
	if (!err) {
		h->snapshots_offset = offset;
		h->nb_snapshots = n;
		if (c && c->copy.l1_offset)
			h->l1_offset = c->copy.l1_offset;
		err = c ? change_commit(img, c) : qcow2_flush_header(img);
	}
	if (!err)
		return 0;
	h->snapshots_offset = old;
	h->nb_snapshots = old_n;
	h->l1_offset = old_l1;
	qcow2_collect_fixed(q);
	if (table->len)
		qcow2_unref(img, offset, table->len);
	return err;
}

static bool commit_table(struct image *img, const GByteArray *table, unsigned n, struct change *c,
			 GError **error)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t old = q->header.snapshots_offset, old_length = q->snapshots_length;
	unsigned old_n = q->header.nb_snapshots;
	int err = store_table(img, table, n, c);

	if (err)
		return image_fail(img, err, "the new snapshot table could not be written", error);
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

static bool create_table(struct image *img, GByteArray *table, const char *name, GError **error)
{
	const struct qcow2 *q = qcow2_of(img);
	char id[24];

	for (unsigned i = 0; i < q->header.nb_snapshots; i++)
		if (!append_old(img, table, i, error))
			return false;
	if (!next_id(img, id, error))
		return false;
	append_new(img, table, q->header.l1_size ? q->header.l1_offset : 0, id, name);
	return true;
}

/* Guest clusters get one more reference. Of the tables each has its own. */
static bool share_disk(struct image *img, struct change *c, GError **error)
{
	const struct qcow2_header *h = &qcow2_of(img)->header;
	int err =
		qcow2_tree_regions(img, h->l1_offset, 0, h->l1_size, QCOW2_WALK_NO_TABLES, c->more);

	if (!err)
		err = qcow2_tree_copy(img, NULL, &c->copy);
	return err ? image_fail(img, err, "the tables of the disk cannot be copied", error) : true;
}

bool qcow2_snapshot_create(struct image *img, const char *name, GError **error)
{
	g_autoptr(GByteArray) table = g_byte_array_new();
	unsigned n = qcow2_of(img)->header.nb_snapshots + 1;
	struct change c;
	bool ok;

	if (!may_create(img, name, error) || !begin(img, error))
		return false;
	change_init(&c);
	ok = create_table(img, table, name, error) && share_disk(img, &c, error) &&
	     commit_table(img, table, n, &c, error);
	if (!ok)
		qcow2_regions_unref(img, c.copy.made, c.copy.made->len);
	change_clear(&c);
	return ok;
}

/* ---- apply ------------------------------------------------------------------------------------
 */

struct apply {
	struct image *img;
	struct qcow2_snapshot s;
	uint64_t size, l1_offset;
	uint32_t l1_size, copied; /* entries; of them from the snapshot */
	struct change change;
};

/* Which clusters the disk shares from then on, and which it gives up; the state of a machine, which
 * lies past the disk's end, is of no use to the disk. */
static bool find_references(struct apply *a, GError **error)
{
	struct image *img = a->img;
	const struct qcow2_header *h = &qcow2_of(img)->header;
	const struct qcow2_region l1 = {h->l1_offset, h->l1_size * 8ull};
	struct change *c = &a->change;
	int err;

	a->size = a->s.has_disk_size ? a->s.disk_size : h->size;
	a->l1_size = qcow2_l1_needed(h, a->size);
	a->copied = MIN(a->l1_size, a->s.l1_size);
	err = qcow2_tree_regions(img, h->l1_offset, 0, h->l1_size, QCOW2_WALK_LENIENT, c->less);
	if (!err)
		err = qcow2_tree_regions(img, a->s.l1_offset, 0, a->copied, 0, c->more);
	if (err)
		return image_fail(img, err, "the clusters of the snapshot cannot be shared", error);
	/* What both have keeps its count, which may be as high as counts can be. */
	qcow2_regions_cancel(qcow2_of(img), c->less, c->more);
	if (l1.len)
		g_array_append_val(c->less, l1);
	return true;
}

/*
 * A refcount table that has become too small is replaced by a write of the header, in which the
 * new bitmaps must not be yet.
 */
static int begin_apply(struct apply *a, struct qcow2_bitmaps_change *bitmaps)
{
	int err;

	qcow2_bitmaps_swap(a->img, bitmaps);
	err = change_begin(a->img, &a->change);
	qcow2_bitmaps_swap(a->img, bitmaps);
	return err;
}

/* With a's new L1 table. */
static int switch_disk(struct apply *a)
{
	struct image *img = a->img;
	struct qcow2_bitmaps_change bitmaps = {.nothing = true};
	struct qcow2_header *h = &qcow2_of(img)->header;
	const struct qcow2_header old = *h;
	int err = 0;

	if (a->size != h->size)
		err = qcow2_bitmaps_prepare_resize(img, a->size, true, &bitmaps);
	if (err)
		return err;
	err = begin_apply(a, &bitmaps);
	if (!err) {
		h->l1_offset = a->l1_offset;
		h->l1_size = a->l1_size;
		h->size = a->size;
		err = change_commit(img, &a->change);
	}
	err = qcow2_bitmaps_finish(img, &bitmaps, err);
	if (err) {
		h->l1_offset = old.l1_offset;
		h->l1_size = old.l1_size;
		h->size = old.size;
		qcow2_collect_fixed(qcow2_of(img));
	}
	return err;
}

static bool commit_apply(struct apply *a, GError **error)
{
	struct image *img = a->img;
	int err = copy_l1(img, a->s.l1_offset, a->copied, a->l1_size, &a->l1_offset);

	if (err)
		return image_fail(img, err, "the snapshot's L1 table cannot be copied", error);
	err = qcow2_clear_copied(img, a->l1_offset, a->l1_size);
	if (!err)
		err = switch_disk(a);
	if (!err) {
		qcow2_relayout(img);
		return true;
	}
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
	change_init(&a.change);
	ok = find_references(&a, error) && commit_apply(&a, error);
	change_clear(&a.change);
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
	err = qcow2_tree_regions(img, s->l1_offset, 0, s->l1_size, QCOW2_WALK_LENIENT, regions);
	g_array_append_val(regions, l1);
	return err;
}

/* c->less is what the snapshot gives up: with it goes what the disk's new tables replace. */
static int delete_at_once(struct image *img, const GByteArray *table, unsigned n, struct change *c)
{
	struct spacemap *less = qcow2_regions_count(qcow2_of(img), c->less);
	int err = less ? qcow2_tree_copy(img, less, &c->copy) : -ENOMEM;

	spacemap_free(less);
	if (!err) {
		g_array_append_vals(c->less, c->copy.replaced->data, c->copy.replaced->len);
		err = store_table(img, table, n, c);
		/* It may be needed for another way to delete. */
		if (err)
			g_array_set_size(c->less, c->less->len - c->copy.replaced->len);
	}
	if (err)
		qcow2_regions_unref(img, c->copy.made, c->copy.made->len);
	return err;
}

/*
 * The way for a host that is full, where space can be won by nothing else: flags are set and counts
 * lowered in place, after the snapshot is gone. Cut in between, nothing is at risk, but qemu-img
 * calls the leaks corruption (see qcow2-shadow.c).
 */
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

static bool delete_with(struct image *img, const GByteArray *table, struct change *c,
			GError **error)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t old = q->header.snapshots_offset, old_length = q->snapshots_length;
	unsigned n = q->header.nb_snapshots - 1;
	int err = delete_at_once(img, table, n, c);

	if (err == -ENOSPC || err == -EDQUOT || err == -EFBIG) {
		image_fault_clear(img);
		return commit_table(img, table, n, NULL, error) &&
		       free_regions(img, c->less, error);
	}
	if (err)
		return image_fail(img, err, "the snapshot could not be deleted", error);
	if (!table_changed(img, error))
		return false;
	qcow2_free_later(img, old, old_length);
	return true;
}

bool qcow2_snapshot_delete(struct image *img, unsigned index, GError **error)
{
	struct qcow2 *q = qcow2_of(img);
	g_autoptr(GByteArray) table = g_byte_array_new();
	struct qcow2_snapshot s;
	struct change c;
	bool ok = true;
	int err;

	g_assert(index < q->header.nb_snapshots);
	if (!qcow2_snapshot_read(img, index, &s, error) || !begin(img, error))
		return false;
	for (unsigned i = 0; ok && i < q->header.nb_snapshots; i++)
		ok = i == index || append_old(img, table, i, error);
	if (!ok)
		return false;
	change_init(&c);
	err = snapshot_regions(img, &s, c.less);
	if (err)
		ok = image_fail(img, err, "the snapshot's tables cannot be read", error);
	else
		ok = delete_with(img, table, &c, error);
	change_clear(&c);
	return ok;
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
	return commit_table(img, table, q->header.nb_snapshots, NULL, error);
}

bool qcow2_snapshots_complete(struct image *img, bool *changed, GError **error)
{
	g_autoptr(GByteArray) table = g_byte_array_new();
	unsigned n = qcow2_of(img)->header.nb_snapshots;

	*changed = qcow2_of(img)->salvaged;
	for (unsigned i = 0; i < n; i++)
		if (!append_complete(img, table, i, changed, error))
			return false;
	return !*changed || (begin(img, error) && commit_table(img, table, n, NULL, error));
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
