/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The life of an image object, and the calls that are handed on to its driver. */
#include "config.h"

#include <errno.h>
#include <string.h>

#include "image/cache.h"
#include "image/core.h"

/* An image without anything in it, one reference. */
struct image *image_new(void)
{
	struct image *img = g_new0(struct image, 1);

	img->core = g_new0(struct image_core, 1);
	img->core->refs = 1;
	return img;
}

struct image *image_ref(struct image *img)
{
	img->core->refs++;
	return img;
}

/* Work in the background that uses img without a reference: the last image_unref waits for it. */
void image_background_begin(struct image *img)
{
	img->core->background++;
}

void image_background_end(struct image *img)
{
	if (--img->core->background == 0)
		co_queue_wake_all(&img->core->background_done);
}

static void forget_files(struct image *img)
{
	struct image_core *core = img->core;

	/* A view shares its main file with its owner, whose blocks stay. */
	if (img->cache && img->file && !img->is_view)
		cache_drop_file(img->cache, img->file);
	for (guint i = 0; core->extra_files && i < core->extra_files->len; i++)
		if (img->cache)
			cache_drop_file(img->cache, g_ptr_array_index(core->extra_files, i));
	g_clear_pointer(&core->extra_files, g_ptr_array_unref);
	file_unref(img->file);
}

/* Everything but the backing image, which image_unref goes on with. */
static void image_close(struct image *img)
{
	struct image_core *core = img->core;

	open_unshare(img);
	while (core->background)
		co_queue_wait(&core->background_done);
	if (img->state && (img->flags & IMAGE_RDWR))
		image_flush(img);
	if (img->state && img->format->close)
		img->format->close(img);
	forget_files(img);
	cache_unref(img->cache);
	gate_free(img->gate);
	if (core->owner && core->shows)
		g_ptr_array_remove_fast(core->owner->core->views, img);
	image_unref(core->owner);
	if (core->views)
		g_ptr_array_unref(core->views);
	g_free(core->shows);
	g_free(img->filename);
	g_free(img->backing_name);
	g_free(img->backing_format);
	g_free(core->fault);
	g_free(core);
	g_free(img);
}

void image_unref(struct image *img)
{
	/* A loop, not a recursion: chains may be long and stacks of coroutines are small. */
	while (img && --img->core->refs == 0) {
		struct image *backing = img->backing;

		image_close(img);
		img = backing;
	}
}

bool image_check(struct image *img, const struct check_options *options,
		 struct check_result *result, GError **error)
{
	struct range r;
	bool ok;

	if (!img->format->check) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_UNSUPPORTED,
			    "This image format does not support checks");
		return false;
	}
	memset(result, 0, sizeof(*result));
	if (options->repair == CHECK_REPAIR_NONE) {
		co_rwlock_wrlock(&img->core->lock);
		ok = img->format->check(img, options, result, error);
		co_rwlock_unlock(&img->core->lock);
	} else {
		ok = control_begin(img, &r, error);
		if (ok) {
			ok = img->format->check(img, options, result, error);
			ok = control_end(img, &r, ok, error);
		}
	}
	if (!ok)
		g_prefix_error(error, "Could not check '%s': ", img->filename);
	return ok;
}

int64_t image_allocated(struct image *img)
{
	int64_t total = file_allocated(img->file);

	for (guint i = 0; total >= 0 && img->core->extra_files && i < img->core->extra_files->len;
	     i++) {
		int64_t n = file_allocated(g_ptr_array_index(img->core->extra_files, i));

		total = n < 0 ? n : total + n;
	}
	return total;
}

char *image_backing_path(struct image *img)
{
	const char *rest;

	if (!img->backing_name)
		return NULL;
	if (filename_classify(img->backing_name, &rest) != FILENAME_PATH)
		return g_strdup(img->backing_name);
	return filename_beside(img->filename, rest);
}
