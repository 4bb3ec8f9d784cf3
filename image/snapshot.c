/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Internal snapshots: finding one, and an image that shows it. */
#include "config.h"

#include <string.h>

#include "image/cache.h"
#include "image/core.h"

struct snapshot *snapshot_new(void)
{
	struct snapshot *s = g_new0(struct snapshot, 1);

	s->icount = UINT64_MAX;
	return s;
}

void snapshot_free(struct snapshot *s)
{
	if (!s)
		return;
	g_free(s->id);
	g_free(s->name);
	g_free(s);
}

GPtrArray *image_snapshots(struct image *img, GError **error)
{
	GPtrArray *list;

	if (!img->format->snapshot_list)
		return g_ptr_array_new_with_free_func((GDestroyNotify)snapshot_free);
	co_rwlock_wrlock(&img->core->lock);
	list = img->format->snapshot_list(img, error);
	co_rwlock_unlock(&img->core->lock);
	if (!list)
		g_prefix_error(error, "Could not read the snapshots of '%s': ", img->filename);
	return list;
}

bool image_snapshot_usage(struct image *img, unsigned index, uint64_t *own, uint64_t *shared,
			  GError **error)
{
	bool ok;

	if (!img->format->snapshot_usage) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_UNSUPPORTED,
			    "Format '%s' of '%s' has no internal snapshots", img->format->name,
			    img->filename);
		return false;
	}
	co_rwlock_wrlock(&img->core->lock);
	ok = img->format->snapshot_usage(img, index, own, shared, error);
	co_rwlock_unlock(&img->core->lock);
	return ok;
}

/* The first one that has this ID and this name; NULL: any. */
static int find(GPtrArray *list, const char *id, const char *name)
{
	for (guint i = 0; i < list->len; i++) {
		const struct snapshot *s = g_ptr_array_index(list, i);

		if ((!id || strcmp(s->id, id) == 0) && (!name || strcmp(s->name, name) == 0))
			return i;
	}
	return -1;
}

int image_find_snapshot(GPtrArray *list, const char *id_or_name, GError **error)
{
	int i = find(list, id_or_name, NULL);

	if (i < 0)
		i = find(list, NULL, id_or_name);
	if (i < 0)
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_NOT_FOUND, "Snapshot '%s' not found",
			    id_or_name);
	return i;
}

int image_find_snapshot_param(GPtrArray *list, const char *param, GError **error)
{
	struct options *o;
	g_autofree char *id = NULL, *name = NULL;
	int i;

	if (!g_str_has_prefix(param, "snapshot."))
		return image_find_snapshot(list, param, error);
	o = options_new();
	if (!options_parse(o, param, NULL, error)) {
		options_free(o);
		return -1;
	}
	id = options_take_string(o, "snapshot.id");
	name = options_take_string(o, "snapshot.name");
	if (!options_refuse_rest(o, NULL, error)) {
		options_free(o);
		return -1;
	}
	options_free(o);
	i = find(list, id, name);
	if (i < 0)
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_NOT_FOUND, "Snapshot '%s' not found",
			    param);
	return i;
}

/* From now on the snapshot cannot be deleted, until the view is closed. */
static bool note_view(struct image *img, unsigned index, struct image *view, GError **error)
{
	g_autoptr(GPtrArray) list = NULL;

	if (!(img->flags & IMAGE_RDWR)) /* nothing can be deleted in it */
		return true;
	list = img->format->snapshot_list(img, error);
	if (!list)
		return false;
	g_assert(index < list->len);
	view->core->shows = g_strdup(((struct snapshot *)g_ptr_array_index(list, index))->id);
	if (!img->core->views)
		img->core->views = g_ptr_array_new();
	g_ptr_array_add(img->core->views, view);
	return true;
}

bool snapshot_is_shown(const struct image *img, const char *id)
{
	GPtrArray *views = img->core->views;

	for (guint i = 0; views && i < views->len; i++)
		if (strcmp(((struct image *)g_ptr_array_index(views, i))->core->shows, id) == 0)
			return true;
	return false;
}

/*
 * A read-only image that shows snapshot `index` of img; shares its file, cache and
 * backing image, and holds a reference to it.
 */
struct image *image_view(struct image *img, unsigned index, GError **error)
{
	struct image *view;
	bool ok;

	if (!img->format->view) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_UNSUPPORTED,
			    "Format '%s' of '%s' has no internal snapshots", img->format->name,
			    img->filename);
		return NULL;
	}
	view = image_new();
	view->format = img->format;
	view->file = file_ref(img->file);
	view->filename = g_strdup(img->filename);
	view->flags = img->flags & ~IMAGE_RDWR;
	view->is_view = true;
	view->cluster_size = img->cluster_size;
	view->backing_name = g_strdup(img->backing_name);
	view->backing_format = g_strdup(img->backing_format);
	view->encrypted = img->encrypted;
	view->compressed = img->compressed;
	view->cache = cache_ref(img->cache);
	view->gate = gate_ref(img->gate);
	view->core->options = img->core->options;
	view->core->owner = image_ref(img);
	view->core->guarded = img->core->guarded;
	view->backing = img->backing ? image_ref(img->backing) : NULL;

	co_rwlock_wrlock(&img->core->lock);
	ok = img->format->view(img, index, view, error);
	ok = ok && note_view(img, index, view, error);
	co_rwlock_unlock(&img->core->lock);
	if (ok)
		return view;
	g_prefix_error(error, "Could not open a snapshot of '%s': ", img->filename);
	image_unref(view);
	return NULL;
}
