/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: keeping enabled bitmaps true while a guest writes. Before the first change they are read
 * and marked as in use on disk; then each change is noted in memory; and when the image is
 * closed, or its bitmaps are looked at, they are stored and the mark is taken back. Whatever comes
 * in between leaves them marked, which says that they may have missed changes.
 */
#include "formats/qcow2.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "image/bitmap.h"
#include "image/cache.h"

struct tracked {
	char *name;
	struct bitmap *bits;
};

struct qcow2_tracking {
	GPtrArray *bitmaps; /* struct tracked */
};

static void tracked_free(struct tracked *t)
{
	bitmap_free(t->bits);
	g_free(t->name);
	g_free(t);
}

void qcow2_tracking_free(struct qcow2_tracking *t)
{
	if (!t)
		return;
	g_ptr_array_unref(t->bitmaps);
	g_free(t);
}

static bool wants_changes(const struct qcow2_bitmap *b)
{
	return (b->flags & QCOW2_BITMAP_AUTO) && !(b->flags & QCOW2_BITMAP_IN_USE);
}

static bool stop_at_wanting(void *arg, const struct qcow2_bitmap *b, const char *name)
{
	return !wants_changes(b);
}

void qcow2_bitmaps_watch(struct image *img)
{
	const struct qcow2 *q = qcow2_of(img);

	img->tracks_changes = q->writer && qcow2_has_bitmaps(q) &&
			      !qcow2_bitmaps_each(img, stop_at_wanting, NULL, NULL);
}

/* ---- the first change --------------------------------------------------------------------------
 */

static int mark_in_use(struct image *img, const struct qcow2_stored_bitmap *s)
{
	be32_t flags = be32_make(s->b.flags | QCOW2_BITMAP_IN_USE);

	return cache_write(img->cache, img->file,
			   s->b.at + offsetof(struct qcow2_bitmap_disk, flags), &flags,
			   sizeof(flags), QCOW2_TABLES);
}

/* One that cannot be read, or that nobody here understands, stays marked. */
static void track_one(struct image *img, struct qcow2_tracking *t,
		      const struct qcow2_stored_bitmap *s)
{
	struct bitmap *bits = NULL;
	struct tracked *one;

	if (qcow2_bitmap_usable(&s->b))
		bits = qcow2_bitmap_load(img, s, NULL);
	if (!bits)
		return;
	one = g_new(struct tracked, 1);
	one->name = g_strdup(s->name);
	one->bits = bits;
	g_ptr_array_add(t->bitmaps, one);
}

static int begin_tracking(struct image *img)
{
	g_autoptr(GError) error = NULL;
	g_autoptr(GPtrArray) list = qcow2_bitmaps_read(img, &error);
	struct qcow2_tracking *t;
	int ret = 0;

	if (!list) {
		image_fault(img, EIO, 0, "%s", error->message);
		return -EIO;
	}
	t = g_new(struct qcow2_tracking, 1);
	t->bitmaps = g_ptr_array_new_with_free_func((GDestroyNotify)tracked_free);
	for (guint i = 0; ret == 0 && i < list->len; i++) {
		const struct qcow2_stored_bitmap *s = g_ptr_array_index(list, i);

		if (!wants_changes(&s->b))
			continue;
		track_one(img, t, s);
		ret = mark_in_use(img, s);
	}
	/* Durable before the first byte of guest data can be. */
	if (ret == 0)
		ret = qcow2_flush(img);
	if (ret < 0)
		qcow2_tracking_free(t);
	else
		qcow2_of(img)->tracking = t;
	return ret;
}

int qcow2_will_change(struct image *img, uint64_t offset, uint64_t len)
{
	struct qcow2 *q = qcow2_of(img);
	int ret = qcow2_begin(img);

	if (ret == 0 && !q->tracking)
		ret = begin_tracking(img);
	if (ret < 0)
		return ret;
	for (guint i = q->tracking->bitmaps->len; i-- > 0;) {
		struct tracked *t = g_ptr_array_index(q->tracking->bitmaps, i);

		/* Without memory for it, it has missed this change: the mark stays. */
		if (bitmap_set(t->bits, offset, len) < 0)
			g_ptr_array_remove_index(q->tracking->bitmaps, i);
	}
	return 0;
}

/* ---- and the last ------------------------------------------------------------------------------
 */

static struct qcow2_stored_bitmap *find(const GPtrArray *list, const char *name)
{
	for (guint i = 0; i < list->len; i++) {
		struct qcow2_stored_bitmap *s = g_ptr_array_index(list, i);

		if (strcmp(s->name, name) == 0)
			return s;
	}
	return NULL;
}

/* Writes the bits of all that were tracked; their old tables are put into `old`. */
static int write_tracked(struct image *img, const struct qcow2_tracking *t, GPtrArray *list,
			 GArray *old)
{
	int ret = 0;

	for (guint i = 0; ret == 0 && i < t->bitmaps->len; i++) {
		const struct tracked *one = g_ptr_array_index(t->bitmaps, i);
		struct qcow2_stored_bitmap *s = find(list, one->name);
		struct qcow2_bitmap before;

		if (!s)
			continue;
		before = s->b;
		ret = qcow2_bitmap_write(img, s, one->bits);
		if (ret == 0) {
			s->b.flags &= ~QCOW2_BITMAP_IN_USE;
			g_array_append_val(old, before);
		}
	}
	return ret;
}

int qcow2_bitmaps_settle(struct image *img)
{
	struct qcow2 *q = qcow2_of(img);
	struct qcow2_tracking *t = q->tracking;
	g_autoptr(GPtrArray) list = NULL;
	g_autoptr(GArray) old = NULL;
	int ret;

	if (!t)
		return 0;
	q->tracking = NULL;
	list = qcow2_bitmaps_read(img, NULL);
	old = g_array_new(FALSE, FALSE, sizeof(struct qcow2_bitmap));
	ret = list ? qcow2_begin(img) : -EIO;
	if (ret == 0)
		ret = write_tracked(img, t, list, old);
	if (ret == 0)
		ret = qcow2_bitmaps_publish(img, list);
	for (guint i = 0; ret == 0 && i < old->len; i++)
		ret = qcow2_bitmap_free_bits(img, &g_array_index(old, struct qcow2_bitmap, i));
	qcow2_tracking_free(t);
	qcow2_bitmaps_watch(img);
	if (ret < 0)
		image_fault(img, ret, 0,
			    "the dirty bitmaps could not be stored and are inconsistent now");
	return ret;
}

/* ---- a disk of another size --------------------------------------------------------------------
 */

/* is_data: what the disk gains is not empty, so enabled bitmaps say that it was written to. */
static int resize_one(struct image *img, struct qcow2_stored_bitmap *s, uint64_t size, bool is_data,
		      GArray *old)
{
	uint64_t end = qcow2_of(img)->header.size;
	struct bitmap *bits = NULL, *other;
	struct qcow2_bitmap before = s->b;
	int ret = -ENOMEM;

	if (qcow2_bitmap_usable(&s->b))
		bits = qcow2_bitmap_load(img, s, NULL);
	/* What is inconsistent or damaged stays so. Its table has the right size all the same:
	 * qemu-img opens no image in which one has not. */
	if (!bits)
		s->b.flags |= QCOW2_BITMAP_IN_USE;
	other = bits ? bitmap_resized(bits, size) : bitmap_new(size, s->b.granularity_bits);
	if (other)
		ret = 0;
	if (ret == 0 && is_data && size > end && (s->b.flags & QCOW2_BITMAP_AUTO))
		ret = bitmap_set(other, end, size - end);
	if (ret == 0)
		ret = qcow2_bitmap_write(img, s, other);
	if (ret == 0)
		g_array_append_val(old, before);
	bitmap_free(other);
	bitmap_free(bits);
	return ret;
}

int qcow2_bitmaps_prepare_resize(struct image *img, uint64_t size, bool is_data,
				 struct qcow2_bitmaps_change *c)
{
	g_autoptr(GPtrArray) list = NULL;
	GArray *old;
	int ret = qcow2_bitmaps_settle(img);

	*c = (struct qcow2_bitmaps_change){.nothing = true};
	if (ret < 0 || !qcow2_has_bitmaps(qcow2_of(img)))
		return ret;
	list = qcow2_bitmaps_read(img, NULL);
	if (!list)
		return -EIO;
	old = g_array_new(FALSE, FALSE, sizeof(struct qcow2_bitmap));
	for (guint i = 0; ret == 0 && i < list->len; i++)
		ret = resize_one(img, g_ptr_array_index(list, i), size, is_data, old);
	if (ret == 0)
		ret = qcow2_bitmaps_prepare(img, list, c);
	if (ret == 0)
		c->old_bits = old;
	else
		g_array_unref(old);
	return ret;
}
