/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Rebase. The walk is compare's: the image against its new backing chain, wherever the image itself
 * says nothing. Order of what becomes durable:
 *
 *   1. clusters of the image that say what the old chain says there: nobody sees a difference
 *   2. a flush: now the image reads the same above both chains
 *   3. the new name, one write of the header
 */
#include "image/rebase.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image/compare.h"
#include "image/core.h"
#include "image/encode.h"

struct rebase {
	const struct rebase_job *job;
	int err;	 /* of the first write or map that failed */
	uint64_t offset; /* and where */
	const char *doing;
};

static int failed(struct rebase *r, const char *doing, uint64_t offset, int err)
{
	if (!r->err) {
		r->err = err;
		r->offset = offset;
		r->doing = doing;
	}
	return err;
}

/* Where the image has bytes of its own, no backing file is asked. */
static int is_hole(void *arg, uint64_t offset, uint64_t *len)
{
	struct rebase *r = arg;
	struct image *top = r->job->top;
	struct extent e;
	int ret = image_map_run(top, offset, *len, top->backing, &e);

	if (ret < 0)
		return failed(r, "reading", offset, ret);
	*len = e.len;
	return e.kind == EXTENT_HOLE && e.depth == 0;
}

static bool same(const uint8_t *x, const uint8_t *y, size_t len)
{
	if (x && y)
		return memcmp(x, y, len) == 0;
	return buffer_is_zero(x ? x : y, len);
}

/* A whole cluster; what does not become shorter is written as it is. */
static int write_compressed(struct rebase *r, uint64_t offset, const uint8_t *buf)
{
	struct image *img = r->job->top;
	g_autofree uint8_t *coded = g_try_malloc(img->cluster_size);
	int64_t result;
	struct encoding e = {
		.codec = img->codec,
		.plain = buf,
		.coded = coded,
		.len = img->cluster_size,
		.unit = img->cluster_size,
		.number = offset / img->cluster_size,
		.result = &result,
	};
	int ret = coded ? encode_units(&e) : -ENOMEM;

	if (ret < 0)
		return failed(r, "compressing", offset, ret);
	if (result == ENCODED_PLAIN)
		return image_write(img, offset, buf, img->cluster_size);
	return image_write_coded(img, offset, coded, result);
}

/* The bytes of one cluster or of what is wanted of it. */
static int keep(struct rebase *r, uint64_t offset, const uint8_t *x, size_t len)
{
	struct image *top = r->job->top;
	bool whole = offset % top->cluster_size == 0 && len == top->cluster_size;
	int ret;

	if (!x || buffer_is_zero(x, len))
		ret = image_write_zeroes(top, offset, len, true);
	else if (r->job->compress && whole)
		ret = write_compressed(r, offset, x);
	else
		ret = image_write(top, offset, x, len);
	return ret < 0 ? failed(r, "writing", offset, ret) : 0;
}

/* Are these bytes to be kept, and as what? 0: no, 1: as data, 2: as zeroes. */
static int verdict(const uint8_t *x, const uint8_t *y, size_t len)
{
	if (same(x, y, len))
		return 0;
	return x && !buffer_is_zero(x, len) ? 1 : 2;
}

/* Some of the bytes differ: whole clusters that do are kept, neighbours in one write. */
static int keep_differing(void *arg, uint64_t offset, const uint8_t *x, const uint8_t *y,
			  size_t len)
{
	struct rebase *r = arg;
	size_t grain = r->job->top->cluster_size, at = 0;
	int ret = 0;

	while (ret == 0 && at < len) {
		size_t n = MIN(len - at, grain - (offset + at) % grain);
		int what = verdict(x ? x + at : NULL, y ? y + at : NULL, n);

		while (what && !r->job->compress && at + n < len) {
			size_t more = MIN(len - at - n, grain);

			if (verdict(x ? x + at + n : NULL, y ? y + at + n : NULL, more) != what)
				break;
			n += more;
		}
		if (what)
			ret = keep(r, offset + at, x ? x + at : NULL, n);
		at += n;
	}
	return ret;
}

static void progressed(void *arg, uint64_t offset)
{
	const struct rebase *r = arg;

	if (r->job->progress)
		r->job->progress(r->job->arg, offset, r->job->top->size);
}

static bool cancelled(void *arg)
{
	const struct rebase *r = arg;

	return r->job->cancelled && r->job->cancelled(r->job->arg);
}

static bool copy_up(struct rebase *r, GError **error)
{
	const struct rebase_job *job = r->job;
	const struct compare_job compare = {
		.a = job->top,
		.b = job->target,
		.len = job->top->size,
		.align = MAX(job->top->cluster_size, 1),
		.coroutines = job->coroutines,
		.wanted = is_hole,
		.examine = keep_differing,
		.progress = progressed,
		.cancelled = cancelled,
		.arg = r,
	};

	switch (image_compare(&compare, NULL, error)) {
	case COMPARE_DONE:
		return true;
	case COMPARE_NOT_MAPPED:
	case COMPARE_NOT_READ:
		return false;
	default:
		break;
	}
	if (!r->err) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_FAILED, "cancelled");
		return false;
	}
	g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_FAILED,
		    "error while %s at byte %" G_GUINT64_FORMAT ": %s", r->doing, r->offset,
		    image_cause(job->top, r->err));
	return false;
}

bool image_rebase(const struct rebase_job *job, GError **error)
{
	struct rebase r = {.job = job};

	if (job->compress && !job->top->codec) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_UNSUPPORTED,
			    "Compression is not supported for '%s'", job->top->filename);
		return false;
	}
	/* What would stop the last step is found out before the first. */
	if (!image_check_backing(job->top, job->name, job->format, error))
		return false;
	/* Zeroes above nothing would be written as holes, and show what is new below them. */
	job->top->gets_backing = job->target != NULL;
	return copy_up(&r, error) && image_set_backing(job->top, job->name, job->format, error);
}
