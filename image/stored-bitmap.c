/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Dirty bitmaps that an image stores: what can be done with them, from what drivers can do. */
#include "config.h"

#include <errno.h>
#include <string.h>

#include "image/bitmap.h"
#include "image/core.h"

#define DEFAULT_GRANULARITY_MIN 4096u
#define DEFAULT_GRANULARITY_MAX 65536u

void bitmap_info_free(struct bitmap_info *b)
{
	if (!b)
		return;
	g_free(b->name);
	g_free(b);
}

static bool have_bitmaps(const struct image *img, GError **error)
{
	if (img->format->bitmap_add)
		return true;
	g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_UNSUPPORTED,
		    "Format '%s' of '%s' has no bitmaps", img->format->name, img->filename);
	return false;
}

bool image_may_have_bitmaps(const struct image *img)
{
	return img->format->bitmap_possible && img->format->bitmap_possible(img);
}

GPtrArray *image_bitmaps(struct image *img, GError **error)
{
	GPtrArray *list;

	if (!img->format->bitmap_list)
		return g_ptr_array_new();
	co_rwlock_wrlock(&img->core->lock);
	list = img->format->bitmap_list(img, error);
	co_rwlock_unlock(&img->core->lock);
	return list;
}

static struct bitmap *load(struct image *img, const char *name, GError **error)
{
	struct bitmap *bits;

	if (!have_bitmaps(img, error))
		return NULL;
	co_rwlock_wrlock(&img->core->lock);
	bits = img->format->bitmap_load(img, name, error);
	co_rwlock_unlock(&img->core->lock);
	return bits;
}

static bool store(struct image *img, const char *name, const struct bitmap *bits, bool enabled,
		  GError **error)
{
	struct range r;

	if (!have_bitmaps(img, error) || !control_begin(img, &r, error))
		return false;
	return control_end(img, &r, img->format->bitmap_store(img, name, bits, enabled, error),
			   error);
}

/* NULL and *error; also for an inconsistent one. */
static const struct bitmap_info *find(GPtrArray *list, const char *name, GError **error)
{
	for (guint i = 0; i < list->len; i++) {
		const struct bitmap_info *b = g_ptr_array_index(list, i);

		if (strcmp(b->name, name) != 0)
			continue;
		if (!b->inconsistent)
			return b;
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_INVALID,
			    "Bitmap '%s' is inconsistent and cannot be used", name);
		return NULL;
	}
	g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_NOT_FOUND, "Dirty bitmap '%s' not found", name);
	return NULL;
}

/* The granularity that is as fine as the image's clusters, in reasonable bounds. */
static unsigned default_granularity_bits(const struct image *img)
{
	uint32_t grain = CLAMP(img->cluster_size, DEFAULT_GRANULARITY_MIN, DEFAULT_GRANULARITY_MAX);

	return g_bit_nth_msf(grain, -1);
}

bool image_bitmap_add(struct image *img, const char *name, uint64_t granularity, GError **error)
{
	unsigned bits = granularity ? (unsigned)__builtin_ctzll(granularity)
				    : default_granularity_bits(img);
	struct range r;

	if (!have_bitmaps(img, error))
		return false;
	if (bits < BITMAP_MIN_GRANULARITY_BITS || bits > BITMAP_MAX_GRANULARITY_BITS ||
	    (granularity & (granularity - 1))) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE,
			    granularity >> (BITMAP_MAX_GRANULARITY_BITS + 1)
				    ? "Granularity must be a power of 2 and at most 2G"
				    : "Granularity must be power of 2 and at least 512");
		return false;
	}
	if (!control_begin(img, &r, error))
		return false;
	return control_end(img, &r, img->format->bitmap_add(img, name, bits, error), error);
}

bool image_bitmap_remove(struct image *img, const char *name, GError **error)
{
	struct range r;

	if (!have_bitmaps(img, error) || !control_begin(img, &r, error))
		return false;
	return control_end(img, &r, img->format->bitmap_remove(img, name, error), error);
}

bool image_bitmap_clear(struct image *img, const char *name, GError **error)
{
	g_autoptr(GPtrArray) list = image_bitmaps(img, error);
	const struct bitmap_info *b = list ? find(list, name, error) : NULL;
	struct bitmap *empty = b ? bitmap_new(img->size, b->granularity_bits) : NULL;
	bool ok = false;

	if (b && !empty)
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_FAILED, "No memory for bitmap '%s'",
			    name);
	else if (b)
		ok = store(img, name, empty, b->enabled, error);
	bitmap_free(empty);
	return ok;
}

bool image_bitmap_enable(struct image *img, const char *name, bool enabled, GError **error)
{
	g_autoptr(GPtrArray) list = image_bitmaps(img, error);

	return list && find(list, name, error) && store(img, name, NULL, enabled, error);
}

/* Adds the bits of source_name to those of b. */
static bool merge_into(struct bitmap *b, struct image *source, const char *source_name,
		       GError **error)
{
	struct bitmap *other = load(source, source_name, error);
	bool ok = false;

	if (!other)
		return false;
	if (bitmap_size(other) != bitmap_size(b))
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE,
			    "Bitmaps are of different sizes (destination size is %" G_GUINT64_FORMAT
			    ", source size is %" G_GUINT64_FORMAT ") and can't be merged",
			    bitmap_size(b), bitmap_size(other));
	else if (bitmap_merge(b, other) < 0)
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_FAILED, "No memory for bitmap '%s'",
			    source_name);
	else
		ok = true;
	bitmap_free(other);
	return ok;
}

bool image_bitmap_merge(struct image *img, const char *name, struct image *source,
			const char *source_name, GError **error)
{
	g_autoptr(GPtrArray) list = image_bitmaps(img, error);
	const struct bitmap_info *b = list ? find(list, name, error) : NULL;
	struct bitmap *bits = b ? load(img, name, error) : NULL;
	bool ok = bits && merge_into(bits, source, source_name, error) &&
		  store(img, name, bits, b->enabled, error);

	bitmap_free(bits);
	return ok;
}

/* ---- all of an image ------------------------------------------------------------------------- */

static bool copy_one(struct image *source, struct image *target, const struct bitmap_info *b,
		     GError **error)
{
	struct bitmap *bits;
	bool ok;

	if (!image_bitmap_add(target, b->name, UINT64_C(1) << b->granularity_bits, error))
		return false;
	bits = bitmap_new(target->size, b->granularity_bits);
	if (!bits) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_FAILED, "No memory for bitmap '%s'",
			    b->name);
		return false;
	}
	ok = merge_into(bits, source, b->name, error) &&
	     store(target, b->name, bits, b->enabled, error);
	bitmap_free(bits);
	return ok;
}

static bool refuse_broken(const GPtrArray *list, GError **error)
{
	for (guint i = 0; i < list->len; i++) {
		const struct bitmap_info *b = g_ptr_array_index(list, i);

		if (!b->inconsistent)
			continue;
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_INVALID,
			    "Cannot copy inconsistent bitmap '%s'", b->name);
		return false;
	}
	return true;
}

bool image_bitmaps_copy(struct image *source, struct image *target, bool skip_broken,
			void (*warn)(void *arg, const char *sentence), void *arg, GError **error)
{
	g_autoptr(GPtrArray) list = image_bitmaps(source, error);

	if (!list || (!skip_broken && !refuse_broken(list, error)))
		return false;
	for (guint i = 0; i < list->len; i++) {
		const struct bitmap_info *b = g_ptr_array_index(list, i);

		if (b->inconsistent) {
			g_autofree char *sentence =
				g_strdup_printf("Skipping inconsistent bitmap '%s'", b->name);

			if (warn)
				warn(arg, sentence);
		} else if (!copy_one(source, target, b, error)) {
			g_prefix_error(error, "Failed to populate bitmap %s: ", b->name);
			return false;
		}
	}
	return true;
}
