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
	uint64_t total;
};

static void copied(void *arg, uint64_t done)
{
	const struct commit *c = arg;

	if (c->job->progress)
		c->job->progress(c->job->arg, done, c->total);
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

static bool copy_down(const struct commit_job *job, GError **error)
{
	struct commit c = {.job = job, .total = job->top->size};
	const struct copy_job copy = {
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
		.arg = &c,
	};

	return image_copy(&copy, error) && control_flush(job->base, error);
}

bool image_commit(const struct commit_job *job, GError **error)
{
	g_assert(!job->empty || job->top->backing == job->base);
	if (!grow_base(job, error) || !copy_down(job, error))
		return false;
	return !job->empty || image_empty(job->top, error);
}
