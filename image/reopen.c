/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An image that is open changes between read-only and writable, while others read it. */
#include "config.h"

#include "image/cache.h"
#include "image/core.h"

static unsigned file_count(const struct image *img)
{
	return 1 + (img->core->extra_files ? img->core->extra_files->len : 0);
}

static struct file *file_at(const struct image *img, unsigned i)
{
	return i ? g_ptr_array_index(img->core->extra_files, i - 1) : img->file;
}

/* All of them, or none. */
static bool set_files(struct image *img, bool writable, GError **error)
{
	for (unsigned i = 0; i < file_count(img); i++) {
		if (file_set_writable(file_at(img, i), writable, error))
			continue;
		while (i--)
			file_set_writable(file_at(img, i), !writable, NULL);
		return false;
	}
	return true;
}

static bool tell_driver(struct image *img, GError **error)
{
	return !img->format->set_writable || img->format->set_writable(img, error);
}

static bool begin(struct image *img, GError **error)
{
	if (!set_files(img, true, error))
		return false;
	/* What was read while others might have written is read again. */
	cache_drop_file(img->cache, img->file);
	img->flags |= IMAGE_RDWR;
	img->core->options.flags |= IMAGE_RDWR;
	if (tell_driver(img, error))
		return true;
	img->flags &= ~IMAGE_RDWR;
	img->core->options.flags &= ~IMAGE_RDWR;
	cache_drop_file(img->cache, img->file);
	set_files(img, false, NULL);
	return false;
}

static void end(struct image *img)
{
	img->flags &= ~IMAGE_RDWR;
	img->core->options.flags &= ~IMAGE_RDWR;
	tell_driver(img, NULL);
	/* A file that cannot be had read-only stays as it is: nobody writes to it. */
	set_files(img, false, NULL);
}

bool image_set_writable(struct image *img, bool writable, GError **error)
{
	struct range r;
	bool ok;

	g_assert(img->core->guarded && !img->is_view);
	if (!(img->flags & IMAGE_RDWR) == !writable)
		return true;
	/* Whoever opens it by the same name from now on must not get this one. */
	open_unshare(img);
	range_lock(&img->core->ranges, &r, 0, UINT64_MAX, true);
	ok = writable || control_flush(img, error);
	co_rwlock_wrlock(&img->core->lock);
	if (!writable)
		end(img);
	else
		ok = begin(img, error);
	co_rwlock_unlock(&img->core->lock);
	range_unlock(&img->core->ranges, &r);
	if (!ok && writable)
		g_prefix_error(error, "'%s' cannot be written to: ", img->filename);
	return ok;
}
