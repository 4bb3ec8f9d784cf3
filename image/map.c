/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The one walk: what a layer says, and what the whole chain says. Reading, comparing, `imgtool
 * map`, SEEK_HOLE and block counts all come from here.
 */
#include "config.h"

#include <errno.h>
#include <string.h>

#include "image/core.h"

/* Bytes of the file up to which clusters begin inside of it. */
static uint64_t clusters_end(const struct image *img, struct file *f)
{
	uint64_t size = file_size(f), grain = img->cluster_size;

	if (!grain)
		return size;
	return size % grain == 0 ? size : size - size % grain + grain;
}

/*
 * Cuts a DATA extent at the file's end; -EIO when it begins there. A table that
 * points past the end is damage, and zeros instead would look like data. Somebody
 * else may have made the file longer since (-U), so the system is asked again first.
 */
static int check_host(struct image *img, struct extent *e)
{
	uint64_t need = e->kind == EXTENT_DATA ? e->len : 1;
	uint64_t end = clusters_end(img, e->file);

	if (e->host <= end && need <= end - e->host)
		return 0;
	if (file_refresh_size(e->file) == 0)
		end = clusters_end(img, e->file);
	if (e->host >= end) {
		image_fault(img, EIO, e->start,
			    "the data's place in '%s', offset %" G_GUINT64_FORMAT
			    ", is past the end of that file",
			    file_name(e->file), e->host);
		return -EIO;
	}
	if (e->kind == EXTENT_DATA)
		e->len = MIN(e->len, end - e->host);
	return 0;
}

/* What a driver promises; breaking it is a bug of the driver, whatever the image says. */
static void assert_contract(const struct extent *e, uint64_t offset, uint64_t len)
{
	g_assert(e->start == offset);
	g_assert(e->len > 0 && e->len <= len);
	if (e->kind == EXTENT_DATA)
		g_assert(e->file);
	if (e->kind == EXTENT_CODED) {
		g_assert(e->file && e->codec && e->coded_len > 0);
		g_assert(e->unit_start <= e->start &&
			 e->start + e->len <= e->unit_start + e->unit_len);
	}
}

int layer_map(struct image *img, uint64_t offset, uint64_t len, struct extent *e)
{
	int ret;

	memset(e, 0, sizeof(*e));
	co_rwlock_rdlock(&img->core->lock);
	ret = img->format->map(img, offset, len, e);
	co_rwlock_unlock(&img->core->lock);
	if (ret < 0) {
		image_fault(img, ret, offset, "the place of the data could not be found");
		return ret;
	}
	assert_contract(e, offset, len);
	e->layer = img;
	if (e->kind == EXTENT_DATA || e->kind == EXTENT_CODED)
		return check_host(img, e);
	return 0;
}

/* A raw file says by its holes what is zero. */
static int ask_sparse(struct extent *e)
{
	bool is_data;
	uint64_t run;
	int ret;

	if (e->kind != EXTENT_DATA || !(e->flags & EXTENT_SPARSE))
		return 0;
	ret = file_extent(e->file, e->host, e->len, &is_data, &run);
	if (ret < 0) {
		image_fault(e->layer, ret, e->start, "the holes of '%s' could not be found",
			    file_name(e->file));
		return ret;
	}
	e->len = run;
	if (!is_data) {
		e->kind = EXTENT_ZERO;
		e->flags |= EXTENT_HAS_HOST;
	}
	return 0;
}

/* Of the last layer's answer only the space that it keeps stays. */
static void set_hole(struct extent *e, uint64_t offset, uint64_t len, unsigned depth)
{
	struct extent last = *e;

	memset(e, 0, sizeof(*e));
	e->start = offset;
	e->len = len;
	e->kind = EXTENT_HOLE;
	e->depth = depth;
	if (last.flags & EXTENT_HAS_HOST) {
		e->flags = EXTENT_HAS_HOST;
		e->file = last.file;
		e->host = last.host;
	}
}

int image_map(struct image *img, uint64_t offset, uint64_t len, struct image *base,
	      struct extent *e)
{
	unsigned depth = 0;

	if (len == 0 || offset >= img->size || len > img->size - offset)
		return -EINVAL;
	e->flags = 0;
	for (struct image *layer = img; layer && layer != base; layer = layer->backing) {
		int ret;

		if (offset >= layer->size)
			break; /* a short backing file: zeros, told of the layer above it */
		len = MIN(len, layer->size - offset);
		ret = layer_map(layer, offset, len, e);
		if (ret == 0)
			ret = ask_sparse(e);
		if (ret < 0)
			return ret;
		if (e->kind != EXTENT_HOLE) {
			e->depth = depth;
			return 0;
		}
		len = e->len;
		depth++;
	}
	set_hole(e, offset, len, depth ? depth - 1 : 0);
	return 0;
}

/* Does b, which begins where a ends, continue it? */
static bool continues(const struct extent *a, const struct extent *b)
{
	if (a->kind != b->kind || a->layer != b->layer || a->depth != b->depth ||
	    a->flags != b->flags)
		return false;
	if (a->kind == EXTENT_DATA || (a->flags & EXTENT_HAS_HOST))
		return a->file == b->file && a->host + a->len == b->host &&
		       a->cryptor == b->cryptor;
	return true;
}

int image_map_run(struct image *img, uint64_t offset, uint64_t len, struct image *base,
		  struct extent *e)
{
	int ret = image_map(img, offset, len, base, e);

	while (ret == 0 && e->len < len) {
		struct extent more;

		/* An error further on is told when it is reached. */
		if (image_map(img, offset + e->len, len - e->len, base, &more) < 0 ||
		    !continues(e, &more))
			break;
		e->len += more.len;
		if (e->kind == EXTENT_CODED)
			e->coded_len = e->unit_len = 0;
	}
	return ret;
}

void image_ask_host(struct extent *e)
{
	uint64_t run;
	bool is_data;

	if (e->kind != EXTENT_DATA || !(e->flags & EXTENT_MAYBE_SPARSE) || e->cryptor ||
	    file_extent(e->file, e->host, e->len, &is_data, &run) < 0)
		return;
	e->len = run;
	if (!is_data)
		e->kind = EXTENT_ZERO;
}
