/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An image that holds still. Each disk of the chain is locked as a reader of all of it does, so
 * reads go on, and whoever wants to write or to change the structure waits in line.
 */
#include "config.h"

#include "image/core.h"

struct image_hold {
	struct image *img;
	GPtrArray *ranges; /* of struct range: one for each layer, top first */
};

static bool flush_all(struct image *img, GError **error)
{
	bool ok = true;

	for (; ok && img; img = img->backing)
		ok = !(img->flags & IMAGE_RDWR) || control_flush(img, error);
	return ok;
}

struct image_hold *image_hold(struct image *img, GError **error)
{
	struct image_hold *h = g_new(struct image_hold, 1);

	h->img = image_ref(img);
	h->ranges = g_ptr_array_new_with_free_func(g_free);
	for (struct image *layer = img; layer; layer = layer->backing) {
		struct range *r = g_new(struct range, 1);

		range_lock(&layer->core->ranges, r, 0, UINT64_MAX, false);
		g_ptr_array_add(h->ranges, r);
	}
	if (flush_all(img, error))
		return h;
	image_hold_end(h);
	return NULL;
}

void image_hold_end(struct image_hold *h)
{
	struct image *layer = h->img;

	for (guint i = 0; i < h->ranges->len; i++, layer = layer->backing)
		range_unlock(&layer->core->ranges, g_ptr_array_index(h->ranges, i));
	g_ptr_array_free(h->ranges, TRUE);
	image_unref(h->img);
	g_free(h);
}
