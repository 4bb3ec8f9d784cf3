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

bool control_flush(struct image *img, GError **error)
{
	int ret = image_flush(img);

	if (ret < 0)
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_FAILED, "Could not flush '%s': %s",
			    img->filename, image_cause(img, ret));
	return ret == 0;
}

/* The whole disk; control_end gives it free. */
bool control_lock(struct image *img, struct range *r, GError **error)
{
	if (!(img->flags & IMAGE_RDWR) || img->is_view) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE,
			    "'%s' is open read-only and cannot be changed", img->filename);
		return false;
	}
	if (img->core->changes) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_BUSY,
			    "'%s' is being committed: it cannot be changed otherwise until that "
			    "has ended",
			    img->filename);
		return false;
	}
	range_lock(&img->core->ranges, r, 0, UINT64_MAX, true);
	return true;
}

bool control_begin(struct image *img, struct range *r, GError **error)
{
	if (!control_lock(img, r, error))
		return false;
	if (!control_flush(img, error)) {
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
		ok = control_flush(img, error);
	else
		image_flush(img);
	range_unlock(&img->core->ranges, r);
	return ok;
}

/*
 * The cluster in which the disk's end lies may have more than the disk shows: what is behind the
 * end in a compressed or shared cluster, or in a longer backing file. Written anew it is the disk's
 * own, with zeroes behind the end, so that nothing else comes to light when the disk grows.
 */
static int settle_end(struct image *img)
{
	uint64_t len = img->cluster_size ? img->size % img->cluster_size : 0;
	g_autofree uint8_t *buf = NULL;
	struct iovec iov;
	struct extent e;
	int ret;

	if (!len || !img->format->reserve)
		return 0;
	ret = layer_map(img, img->size - 1, 1, &e);
	if (ret < 0 || e.kind == EXTENT_ZERO ||
	    (e.kind == EXTENT_DATA && (e.flags & EXTENT_WRITABLE)))
		return ret;
	if (e.kind == EXTENT_HOLE && (!img->backing || img->backing->size <= img->size))
		return 0;
	buf = g_try_malloc(len);
	if (!buf)
		return -ENOMEM;
	iov = (struct iovec){buf, len};
	ret = read_unlocked(img, img->size - len, &iov, 1, NULL);
	return ret < 0 ? ret : write_unlocked(img, img->size - len, &iov, 1);
}

/* With the disk locked, before the metadata is. */
static bool prepare_resize(struct image *img, uint64_t size, GError **error)
{
	int ret = size > img->size ? settle_end(img) : 0;

	if (ret == 0)
		return control_flush(img, error);
	g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_FAILED,
		    "The last cluster of '%s' could not be written anew: %s", img->filename,
		    image_cause(img, ret));
	return false;
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
	ok = control_lock(img, &r, error);
	if (ok) {
		ok = prepare_resize(img, size, error);
		co_rwlock_wrlock(&img->core->lock);
		ok = ok && img->format->resize(img, size, options ? options : none, error);
		ok = control_end(img, &r, ok, error);
	}
	options_free(none);
	return ok;
}

bool control_empty(struct image *img, GError **error)
{
	int ret;

	if (!img->format->unmap || !img->format->has_backing)
		return unsupported(img, "cannot be emptied", error);
	if (!control_flush(img, error))
		return false;
	co_rwlock_wrlock(&img->core->lock);
	image_fault_clear(img);
	ret = img->format->empty ? img->format->empty(img) : -EOPNOTSUPP;
	if (ret == -EOPNOTSUPP)
		ret = img->size ? img->format->unmap(img, 0, img->size, UNMAP_TO_HOLE) : 0;
	if (ret < 0)
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_FAILED, "Could not empty '%s': %s",
			    img->filename, image_cause(img, ret));
	co_rwlock_unlock(&img->core->lock);
	if (ret == 0)
		return control_flush(img, error);
	/* What the driver left in its tables is consistent. */
	image_flush(img);
	return false;
}

bool image_empty(struct image *img, GError **error)
{
	struct range r;
	bool ok;

	if (!control_lock(img, &r, error))
		return false;
	ok = control_empty(img, error);
	range_unlock(&img->core->ranges, &r);
	return ok;
}

bool image_check_backing(struct image *img, const char *name, const char *format, GError **error)
{
	bool ok;

	if (!img->format->set_backing) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_UNSUPPORTED,
			    "Could not change the backing file to '%s': Operation not supported",
			    name);
		return false;
	}
	if (!img->format->check_backing)
		return true;
	co_rwlock_wrlock(&img->core->lock);
	ok = img->format->check_backing(img, name, format, error);
	co_rwlock_unlock(&img->core->lock);
	if (!ok)
		g_prefix_error(error, "Could not change the backing file to '%s': ", name);
	return ok;
}

bool image_set_backing(struct image *img, const char *name, const char *format, GError **error)
{
	struct range r;

	if (!image_check_backing(img, name, format, error) || !control_begin(img, &r, error))
		return false;
	return control_end(img, &r, img->format->set_backing(img, name, format, error), error);
}

/* What "size" of these options will be, if it is one. */
static uint64_t wanted_size(const struct image *img, const struct options *options)
{
	const char *text = options_peek(options, "size");
	uint64_t size = 0;

	return text && units_parse(text, "size", 0, INT64_MAX, &size, NULL) ? size : img->size;
}

bool image_amend(struct image *img, struct options *options, const struct image_progress *progress,
		 GError **error)
{
	struct range r;
	bool ok;

	if (!img->format->amend) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_UNSUPPORTED,
			    "Format driver '%s' does not support option amendment",
			    img->format->name);
		return false;
	}
	if (!control_lock(img, &r, error))
		return false;
	ok = prepare_resize(img, wanted_size(img, options), error);
	co_rwlock_wrlock(&img->core->lock);
	ok = ok && img->format->amend(img, options, progress, error);
	return control_end(img, &r, ok, error);
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

/* With everything else at rest. A view has found the snapshot's clusters already. */
static bool may_be_deleted(struct image *img, unsigned index, GError **error)
{
	g_autoptr(GPtrArray) list = img->format->snapshot_list(img, error);
	const struct snapshot *s;

	if (!list)
		return false;
	g_assert(index < list->len);
	s = g_ptr_array_index(list, index);
	if (!snapshot_is_shown(img, s->id))
		return true;
	g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_BUSY, "Snapshot '%s' is in use", s->name);
	return false;
}

bool image_snapshot_delete(struct image *img, unsigned index, GError **error)
{
	struct range r;
	bool ok;

	if (!img->format->snapshot_delete)
		return unsupported(img, "has no internal snapshots", error);
	if (!control_begin(img, &r, error))
		return false;
	ok = may_be_deleted(img, index, error) && img->format->snapshot_delete(img, index, error);
	return control_end(img, &r, ok, error);
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
