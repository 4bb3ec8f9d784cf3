/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Commit. Order of what becomes durable:
 *
 *   1. the base's new size, where it was shorter. The top has its own size and hides it.
 *   2. the data in the base: clusters that the layers above it hold, which hide them.
 *   3. a flush of the base: now it reads as the top does
 *   4. the emptying of the top, at once or cluster by cluster: what is empty shows the base's
 *	bytes instead, the same
 *   5. a flush of the top
 */
#include "image/commit.h"

#include <string.h>

#include "image/bitmap.h"
#include "image/copy.h"
#include "image/core.h"

unsigned image_find_layer(struct image *top, const char *name)
{
	struct stat st;
	bool exists = file_lookup(name, &st) == 0;
	unsigned depth = 1;

	for (struct image *img = top; img->backing; img = img->backing, depth++) {
		if (exists && stat_same_file(file_stat(img->backing->file), &st))
			return depth;
		if (img->backing_name && strcmp(img->backing_name, name) == 0)
			return depth;
	}
	return 0;
}

struct commit {
	const struct commit_job *job;
	uint64_t total, before; /* before: bytes of this total that earlier copies did */
	bool locked;		/* the top's disk is ours alone */
};

static void copied(void *arg, uint64_t done)
{
	const struct commit *c = arg;

	if (c->job->progress)
		c->job->progress(c->job->arg, c->before + done, c->total);
}

static bool cancelled(void *arg)
{
	const struct commit *c = arg;

	return c->job->cancelled && c->job->cancelled(c->job->arg);
}

static bool grow_base(const struct commit_job *job, GError **error)
{
	if (job->base->size >= job->top->size)
		return true;
	if (image_resize(job->base, job->top->size, NULL, error))
		return true;
	g_prefix_error(error, "'%s' cannot be made as long as '%s': ", job->base->filename,
		       job->top->filename);
	return false;
}

static struct copy_job copy_of(const struct commit_job *job)
{
	return (struct copy_job){
		.source = job->top,
		.len = job->top->size,
		.base = job->base,
		.target = job->base,
		/* Zeroes that a layer describes stay zeroes without data; data is only looked
		 * through in whole pieces, so that the base is not cut into fragments. */
		.sparse = COPY_SPARSE_MAX,
		.coroutines = job->coroutines,
		.out_of_order = true,
		.throttle = job->throttle,
		.progress = copied,
		.cancelled = cancelled,
	};
}

static bool copy_down(const struct commit_job *job, GError **error)
{
	struct commit c = {.job = job, .total = job->top->size};
	struct copy_job copy = copy_of(job);

	copy.arg = &c;
	return image_copy(&copy, error) && control_flush(job->base, error);
}

static bool commit_at_rest(const struct commit_job *job, GError **error)
{
	if (!grow_base(job, error) || !copy_down(job, error))
		return false;
	return !job->empty || image_empty(job->top, error);
}

/*
 * ---- while the top is in use
 * ---------------------------------------------------------------------
 *
 * Writes to the top go on, and each marks where (core.changes, before it begins to write). Rounds
 * copy what was marked since the round before; a write that began before its mark was taken is
 * waited for by the copy's read, which locks those bytes. In the last round the whole disk is
 * locked: nothing can change while the rest is copied, the base is flushed and the top emptied, in
 * the order above. Until that moment the top has all its bytes, and hides what the base got.
 *
 * Whoever reads through the top locks the same bytes of the base (written_below), because there
 * clusters may move: writing to a part of a compressed or shared one frees the old one.
 */

#define CHANGE_BITS 16	       /* writes are marked by 64 KiB */
#define FEW	    (8u << 20) /* bytes that writers may wait for */
#define ROUNDS_MAX  12	       /* writers that are faster than the copy: they have to wait */

static bool has_snapshots(struct image *img, bool *has, GError **error)
{
	g_autoptr(GPtrArray) list = image_snapshots(img, error);

	*has = list && list->len;
	return list;
}

static bool may_commit(const struct commit_job *job, GError **error)
{
	bool has;

	if (job->top->core->changes) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_BUSY, "'%s' is being committed already",
			    job->top->filename);
		return false;
	}
	if (!has_snapshots(job->top, &has, error))
		return false;
	if (has)
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_UNSUPPORTED,
			    "'%s' has internal snapshots: what they show of '%s' would change",
			    job->top->filename, job->base->filename);
	return !has;
}

/* Waits for all that began on img before now. */
static void wait_out(struct image *img)
{
	struct range r;

	range_lock(&img->core->ranges, &r, 0, UINT64_MAX, true);
	range_unlock(&img->core->ranges, &r);
}

/* From now on readers of everything above the base lock what they read of it. */
static void guard_readers(const struct commit_job *job, bool guard)
{
	for (struct image *img = job->top; img != job->base; img = img->backing)
		img->core->written_below = guard ? job->base : NULL;
	for (struct image *img = job->top; guard && img != job->base; img = img->backing)
		wait_out(img);
	if (guard)
		wait_out(job->base);
}

static uint64_t count_changes(const struct bitmap *b)
{
	uint64_t at = 0, len, total = 0;

	for (; bitmap_next(b, &at, &len); at += len)
		total += len;
	return total;
}

static bool copy_range(struct commit *c, uint64_t start, uint64_t len, GError **error)
{
	const struct commit_job *job = c->job;
	struct copy_job copy = copy_of(job);

	copy.start = copy.target_start = start;
	copy.len = len;
	copy.live = true;
	copy.locked = c->locked;
	/* Who waits for the end of it shall not wait for the rate too. */
	copy.throttle = c->locked ? NULL : job->throttle;
	copy.arg = c;
	if (!image_copy(&copy, error))
		return false;
	c->before += len;
	return true;
}

/* What was marked, widened to the base's clusters so that it never has to fill one. */
static bool copy_changes(struct commit *c, const struct bitmap *b, GError **error)
{
	const struct commit_job *job = c->job;
	uint64_t grain = MAX(job->base->cluster_size, 1), size = job->top->size, len;

	c->before = 0;
	c->total = MAX(count_changes(b), 1);
	for (uint64_t at = 0; bitmap_next(b, &at, &len); at += len) {
		uint64_t start = at - at % grain, end = MIN(at + len, size);

		end = MIN(end + (grain - end % grain) % grain, size);
		if (start < end && !copy_range(c, start, end - start, error))
			return false;
	}
	return true;
}

/* The marks so far, and new ones from now on. NULL: no memory. */
static struct bitmap *take_changes(struct image *top)
{
	struct bitmap *old = top->core->changes, *new = bitmap_new(top->size, CHANGE_BITS);

	if (!new)
		return NULL;
	top->core->changes = new;
	return old;
}

static bool no_memory(const struct image *top, GError **error)
{
	g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_FAILED,
		    "No memory to note which parts of '%s' are written", top->filename);
	return false;
}

static bool copy_rounds(struct commit *c, GError **error)
{
	const struct commit_job *job = c->job;
	bool ok;

	c->total = MAX(job->top->size, 1);
	ok = copy_range(c, 0, job->top->size, error);
	for (unsigned n = 0; ok && n < ROUNDS_MAX && count_changes(job->top->core->changes) > FEW;
	     n++) {
		struct bitmap *marks = take_changes(job->top);

		if (!marks)
			return no_memory(job->top, error);
		ok = copy_changes(c, marks, error);
		bitmap_free(marks);
	}
	/* Most of it is durable before anybody waits. */
	return ok && control_flush(job->base, error);
}

/* With all of the top for ourselves. */
static bool finish_locked(struct commit *c, GError **error)
{
	const struct commit_job *job = c->job;

	c->locked = true;
	return copy_changes(c, job->top->core->changes, error) && control_flush(job->base, error) &&
	       (!job->empty || control_empty(job->top, error));
}

static bool commit_marked(const struct commit_job *job, GError **error)
{
	struct commit c = {.job = job};
	struct range all;
	bool ok;

	if (!grow_base(job, error))
		return false;
	if (job->begun)
		job->begun(job->arg);
	if (!copy_rounds(&c, error))
		return false;
	range_lock(&job->top->core->ranges, &all, 0, UINT64_MAX, true);
	ok = finish_locked(&c, error);
	range_unlock(&job->top->core->ranges, &all);
	return ok;
}

static bool commit_live(const struct commit_job *job, GError **error)
{
	bool ok;

	if (!may_commit(job, error))
		return false;
	job->top->core->changes = bitmap_new(job->top->size, CHANGE_BITS);
	if (!job->top->core->changes)
		return no_memory(job->top, error);
	ok = image_set_writable(job->base, true, error);
	if (ok) {
		guard_readers(job, true);
		ok = commit_marked(job, error);
		guard_readers(job, false);
		/* Its flush is no news: what the top gave up was flushed before. */
		image_set_writable(job->base, false, NULL);
	}
	g_clear_pointer(&job->top->core->changes, bitmap_free);
	return ok;
}

bool image_commit(const struct commit_job *job, GError **error)
{
	g_assert(!job->empty || job->top->backing == job->base);
	return job->live ? commit_live(job, error) : commit_at_rest(job, error);
}
