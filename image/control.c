/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What changes an image's structure: size, snapshots, backing file, options. Each is alone on the
 * image: the whole disk is locked, so nothing is read or written meanwhile, then everything is
 * flushed, so a driver begins from what is on the disk, and after it once more.
 */
#include "config.h"

#include <errno.h>

#include "image/core.h"

static bool unsupported(const struct image *img, const char *what, GError **error)
{
	g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_UNSUPPORTED, "Format '%s' of '%s' %s",
		    img->format->name, img->filename, what);
	return false;
}

static bool flush_or_say(struct image *img, GError **error)
{
	int ret = image_flush(img);
	const char *cause = ret < 0 ? image_fault_text(img) : NULL;

	if (ret < 0)
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_FAILED, "Could not flush '%s': %s",
			    img->filename, cause ? cause : g_strerror(-ret));
	return ret == 0;
}

bool control_begin(struct image *img, struct range *r, GError **error)
{
	if (!(img->flags & IMAGE_RDWR) || img->is_view) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE,
			    "'%s' is open read-only and cannot be changed", img->filename);
		return false;
	}
	range_lock(&img->core->ranges, r, 0, UINT64_MAX, true);
	if (!flush_or_say(img, error)) {
		range_unlock(&img->core->ranges, r);
		return false;
	}
	co_rwlock_wrlock(&img->core->lock);
	return true;
}

bool control_end(struct image *img, struct range *r, bool ok, GError **error)
{
	co_rwlock_unlock(&img->core->lock);
	/* After a failure too: what the driver left in its tables is consistent. */
	if (ok)
		ok = flush_or_say(img, error);
	else
		image_flush(img);
	range_unlock(&img->core->ranges, r);
	return ok;
}

bool image_resize(struct image *img, uint64_t size, struct options *options, GError **error)
{
	struct options *none = options ? NULL : options_new();
	struct range r;
	bool ok;

	if (!img->format->resize) {
		options_free(none);
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_UNSUPPORTED,
			    "Image format driver does not support resize");
		return false;
	}
	ok = control_begin(img, &r, error);
	if (ok) {
		ok = img->format->resize(img, size, options ? options : none, error);
		ok = control_end(img, &r, ok, error);
	}
	options_free(none);
	return ok;
}

bool image_empty(struct image *img, GError **error)
{
	const char *cause;
	struct range r;
	int ret;

	if (!img->format->unmap || !img->format->has_backing)
		return unsupported(img, "cannot be emptied", error);
	if (!control_begin(img, &r, error))
		return false;
	image_fault_clear(img);
	ret = img->size ? img->format->unmap(img, 0, img->size, UNMAP_TO_HOLE) : 0;
	cause = ret < 0 ? image_fault_text(img) : NULL;
	if (ret < 0)
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_FAILED, "Could not empty '%s': %s",
			    img->filename, cause ? cause : g_strerror(-ret));
	return control_end(img, &r, ret == 0, error);
}

bool image_set_backing(struct image *img, const char *name, const char *format, GError **error)
{
	struct range r;

	if (!img->format->set_backing)
		return unsupported(img, "has no backing file that could be changed", error);
	if (!control_begin(img, &r, error))
		return false;
	return control_end(img, &r, img->format->set_backing(img, name, format, error), error);
}

bool image_amend(struct image *img, struct options *options, const struct image_progress *progress,
		 GError **error)
{
	struct range r;

	if (!img->format->amend) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_UNSUPPORTED,
			    "Format driver '%s' does not support option amendment",
			    img->format->name);
		return false;
	}
	if (!control_begin(img, &r, error))
		return false;
	return control_end(img, &r, img->format->amend(img, options, progress, error), error);
}

bool image_snapshot_create(struct image *img, const char *name, GError **error)
{
	struct range r;

	if (!img->format->snapshot_create)
		return unsupported(img, "has no internal snapshots", error);
	if (!control_begin(img, &r, error))
		return false;
	return control_end(img, &r, img->format->snapshot_create(img, name, error), error);
}

/* Nobody knows how the two states differ: bitmaps then say that everything changed. */
static bool tell_all_changes(struct image *img, GError **error)
{
	int ret = img->tracks_changes ? img->format->will_change(img, 0, img->size) : 0;

	if (ret < 0)
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_FAILED,
			    "The bitmaps could not be marked: %s", g_strerror(-ret));
	return ret == 0;
}

bool image_snapshot_apply(struct image *img, unsigned index, GError **error)
{
	struct range r;
	bool ok;

	if (!img->format->snapshot_apply)
		return unsupported(img, "has no internal snapshots", error);
	if (!control_begin(img, &r, error))
		return false;
	ok = tell_all_changes(img, error) && img->format->snapshot_apply(img, index, error);
	return control_end(img, &r, ok, error);
}

bool image_snapshot_delete(struct image *img, unsigned index, GError **error)
{
	struct range r;

	if (!img->format->snapshot_delete)
		return unsupported(img, "has no internal snapshots", error);
	if (!control_begin(img, &r, error))
		return false;
	return control_end(img, &r, img->format->snapshot_delete(img, index, error), error);
}

bool image_snapshot_rename(struct image *img, unsigned index, const char *name, GError **error)
{
	struct range r;

	if (!img->format->snapshot_rename)
		return unsupported(img, "has no internal snapshots", error);
	if (!control_begin(img, &r, error))
		return false;
	return control_end(img, &r, img->format->snapshot_rename(img, index, name, error), error);
}
