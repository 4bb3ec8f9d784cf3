/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: how large a new image will be. All tables are counted, whether or not there will be
 * anything in them, because the promise is that the copy fits.
 */
#include "config.h"

#include <errno.h>
#include <string.h>

#include "formats/formats.h"
#include "formats/qcow2.h"

#define REFUSE(...) (g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE, __VA_ARGS__), false)

struct wanted {
	struct qcow2_shape shape;
	bool v3;
	bool all; /* every cluster is taken from the beginning, or nobody can tell */
};

static bool take_compat(struct wanted *w, struct options *o, GError **error)
{
	g_autofree char *compat = options_take_string(o, "compat");

	w->v3 = !compat || !strcmp(compat, "1.1") || !strcmp(compat, "v3");
	if (!w->v3 && strcmp(compat, "0.10") && strcmp(compat, "v2"))
		return REFUSE("Invalid compatibility level: '%s'", compat);
	if (!w->v3 && w->shape.refcount_order != 4)
		return REFUSE("Different refcount widths than 16 bits require compatibility level "
			      "1.1 or above (use compat=1.1 or greater)");
	return true;
}

static bool take_preallocation(struct wanted *w, struct options *o, GError **error)
{
	g_autofree char *mode = options_take_string(o, "preallocation");

	if (!mode || !strcmp(mode, "off") || !strcmp(mode, "metadata"))
		return true;
	w->all = true;
	if (!strcmp(mode, "falloc") || !strcmp(mode, "full"))
		return true;
	return REFUSE("invalid parameter value: %s", mode);
}

/* Options without influence on the size are taken as they come, as qemu-img does. */
static bool parse(struct wanted *w, struct options *o, bool has_source, GError **error)
{
	struct options *encryption = options_take_group(o, "encrypt");
	bool encrypted = encryption;

	options_free(encryption);
	if (encrypted)
		return REFUSE("Encrypted images cannot be measured: encryption is not supported "
			      "yet");
	if (!options_take_bool(o, "extended_l2", &w->shape.extended, error) ||
	    !qcow2_take_widths(&w->shape, o, error) || !take_compat(w, o, error) ||
	    !take_preallocation(w, o, error))
		return false;
	if (w->shape.extended && w->shape.cluster_bits < QCOW2_MIN_EXTENDED_CLUSTER_BITS)
		return REFUSE("Extended L2 entries are only supported with cluster sizes of at "
			      "least 16384 bytes");
	/* What the copy will share with its backing file cannot be known. */
	if (has_source && options_peek(o, "backing_file"))
		w->all = true;
	return true;
}

/* Bytes of the clusters that a copy of the source needs. */
static bool count_data(struct image *source, uint64_t cluster, uint64_t *bytes, GError **error)
{
	uint64_t offset = 0, counted = 0; /* the end of the last cluster counted */

	*bytes = 0;
	while (offset < source->size) {
		struct extent e;
		int ret = image_map_run(source, offset, source->size - offset, NULL, &e);

		if (ret < 0)
			return image_fail(source, ret, "Unable to get block status", error);
		image_ask_host(&e);
		offset += e.len;
		if (extent_is_zero(&e))
			continue;
		uint64_t from = MAX(e.start - e.start % cluster, counted);
		uint64_t to = (offset + cluster - 1) / cluster * cluster;

		*bytes += to > from ? to - from : 0;
		counted = MAX(counted, to);
	}
	return true;
}

struct bitmap_count {
	uint64_t cluster, disk;
	uint64_t directory, data; /* bytes */
};

static bool count_bitmap(void *arg, const struct qcow2_bitmap *b, const char *name)
{
	struct bitmap_count *c = arg;
	uint64_t bits = (c->disk >> b->granularity_bits) +
			((c->disk & ((1ull << b->granularity_bits) - 1)) != 0);
	uint64_t clusters = ((bits + 7) / 8 + c->cluster - 1) / c->cluster;
	uint64_t table = (clusters * 8 + c->cluster - 1) / c->cluster;

	if (b->flags & QCOW2_BITMAP_IN_USE)
		return true;
	c->directory += (sizeof(struct qcow2_bitmap_disk) + b->name_length + 7) & ~7ull;
	c->data += (clusters + table) * c->cluster;
	return true;
}

static bool count_bitmaps(const struct wanted *w, struct image *source, struct image_measure *m,
			  GError **error)
{
	struct bitmap_count c = {.cluster = 1ull << w->shape.cluster_bits};

	if (!source || source->format != &format_qcow2 || !w->v3 ||
	    qcow2_of(source)->header.version < 3)
		return true;
	c.disk = source->size;
	if (!qcow2_bitmaps_each(source, count_bitmap, &c, error))
		return false;
	m->has_bitmaps = true;
	m->bitmaps = c.data + (c.directory + c.cluster - 1) / c.cluster * c.cluster;
	return true;
}

bool qcow2_measure(struct options *options, uint64_t size, struct image *source,
		   struct image_measure *m, GError **error)
{
	struct wanted w = {.shape.size = size};
	struct qcow2_layout l;
	uint64_t data = 0;

	if (!parse(&w, options, source, error))
		return false;
	/* Whole sectors, as a new image has them. */
	w.shape.size = (size + 511) & ~511ull;
	w.shape.l2_tables = qcow2_l2_needed(&w.shape);
	w.shape.data_bytes = w.shape.size;
	if (w.shape.size > INT64_MAX || !qcow2_layout(&w.shape, &l))
		return REFUSE("The image size is too large (try using a larger cluster size)");
	if (source && !w.all && !count_data(source, 1ull << w.shape.cluster_bits, &data, error))
		return false;
	m->required = w.all ? l.end : l.data + data;
	m->fully_allocated = l.end;
	return count_bitmaps(&w, source, m, error);
}
