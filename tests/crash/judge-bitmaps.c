/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Dirty bitmaps after a power cut: true, or said to be out of date. */
#include "config.h"

#include <string.h>

#include "formats/qcow2.h"
#include "image/bitmap.h"
#include "tests/crash/crash.h"

struct look {
	const char *name;
	const struct disk *before, *now;
	unsigned trusted;
	GError **error;
};

/* Is every byte that changed since `before` in a granule that is set? */
static bool tells_all(const struct look *l, const struct bitmap *bits, const char *name)
{
	uint64_t at = 0, size = MIN(l->before->size, l->now->size);

	while (at < size) {
		uint64_t set = at, len = 0;
		bool found = bitmap_next(bits, &set, &len);
		uint64_t end = found ? MIN(set, size) : size;

		for (; at < end; at++)
			if (l->before->bytes[at] != l->now->bytes[at]) {
				g_set_error(l->error, IMAGE_ERROR, IMAGE_ERROR_FAILED,
					    "bitmap '%s' is not in use and knows nothing of the "
					    "change of byte %" G_GUINT64_FORMAT,
					    name, at);
				return false;
			}
		at = found ? set + len : size;
	}
	return true;
}

static bool look_at(struct look *l, struct image *img, const struct qcow2_stored_bitmap *s)
{
	struct bitmap *bits;
	bool ok;

	if (!qcow2_bitmap_usable(&s->b) || !(s->b.flags & QCOW2_BITMAP_AUTO))
		return true;
	bits = qcow2_bitmap_load(img, s, l->error);
	if (!bits)
		return false;
	l->trusted++;
	ok = tells_all(l, bits, s->name);
	bitmap_free(bits);
	return ok;
}

static int look(void *arg)
{
	struct look *l = arg;
	struct image_open_options o = {.format = "qcow2", .flags = IMAGE_NO_BACKING};
	struct image *img = image_open(l->name, &o, l->error);
	GPtrArray *list;
	bool ok = img != NULL;

	if (img && qcow2_has_bitmaps(qcow2_of(img))) {
		list = qcow2_bitmaps_read(img, l->error);
		ok = list != NULL;
		for (guint i = 0; ok && i < list->len; i++)
			ok = look_at(l, img, g_ptr_array_index(list, i));
		if (list)
			g_ptr_array_unref(list);
	}
	image_unref(img);
	return ok ? 0 : -1;
}

bool judge_bitmaps(const char *name, const struct disk *before, const struct disk *now,
		   unsigned *trusted, GError **error)
{
	struct look l = {.name = name, .before = before, .now = now, .error = error};
	bool ok = run_in_loop(look, &l) == 0;

	*trusted = l.trusted;
	return ok;
}
