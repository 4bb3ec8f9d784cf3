/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "fs/coherence.h"

#include <glib.h>

#include "fs/handles.h"
#include "fs/kernel.h"
#include "fs/tree.h"

/* A file that was open once. */
struct file {
	uint64_t node;
	uint64_t start, end; /* of the disk; UINT64_MAX: it ends where the disk does */
	unsigned opens;
	bool direct; /* while opens > 0 */
	bool stale;  /* pages that the kernel may have from an earlier time are not to be used */
};

static GPtrArray *files; /* few: the disk and its partitions */

static struct file *find(uint64_t node)
{
	for (guint i = 0; files && i < files->len; i++) {
		struct file *f = g_ptr_array_index(files, i);

		if (f->node == node)
			return f;
	}
	return NULL;
}

static struct file *find_or_make(uint64_t node)
{
	struct file *f = find(node);

	if (!files)
		files = g_ptr_array_new_with_free_func(g_free);
	if (!f) {
		f = g_new0(struct file, 1);
		f->node = node;
		g_ptr_array_add(files, f);
	}
	return f;
}

static bool is_cached(const struct file *f)
{
	return f->opens && !f->direct;
}

static bool must_be_direct(const struct file *f)
{
	for (guint i = 0; i < files->len; i++) {
		const struct file *o = g_ptr_array_index(files, i);

		if (o != f && is_cached(o) && o->start < f->end && f->start < o->end)
			return true;
	}
	return false;
}

struct coherence_open coherence_opened(uint64_t node, const struct window *w)
{
	struct file *f = find_or_make(node);
	struct coherence_open how = {0};
	bool whole = !node_is_partition(node);
	uint64_t start = w->start, end = whole ? UINT64_MAX : w->start + w->size;

	if (!f->opens) {
		if (f->end && (f->start != start || f->end != end))
			f->stale = true;
		f->start = start;
		f->end = end;
		f->direct = must_be_direct(f);
	}
	f->opens++;
	how.direct = f->direct;
	how.keep = !f->direct && !f->stale;
	if (!f->direct)
		f->stale = false;
	return how;
}

void coherence_closed(uint64_t node)
{
	struct file *f = find(node);

	if (f && f->opens)
		f->opens--;
}

bool coherence_is_direct(uint64_t node)
{
	const struct file *f = find(node);

	return f && f->opens && f->direct;
}

/* ---- what overlaps ---- */

struct bytes { /* of the disk */
	uint64_t start, end;
};

/* false: nobody has ever opened two files, or the file is the one that is cached. */
static bool others_matter(uint64_t node, uint64_t offset, uint64_t len, struct bytes *b)
{
	const struct file *f = find(node);
	uint64_t start = f ? f->start : 0;

	if (!files || files->len < (f ? 2 : 1))
		return false;
	b->start = start + offset;
	b->end = len > UINT64_MAX - b->start ? UINT64_MAX : b->start + len;
	return true;
}

/* The part of b that lies in f, as f counts; 0: none. */
static uint64_t part_of(const struct file *f, const struct bytes *b, uint64_t *offset)
{
	uint64_t start = MAX(f->start, b->start), end = MIN(f->end, b->end);

	*offset = start - f->start;
	return start < end ? end - start : 0;
}

enum who { WHO_WRITES, ALL };

static void drop_in_others(uint64_t node, const struct bytes *b, enum who who)
{
	for (guint i = 0; i < files->len; i++) {
		struct file *o = g_ptr_array_index(files, i);
		uint64_t offset, len = part_of(o, b, &offset);

		if (o->node != node && len && is_cached(o) &&
		    (who == ALL || handles_is_written(o->node)))
			kernel_settle_range(o->node, offset, len);
	}
}

bool coherence_is_cached(uint64_t node)
{
	const struct file *f = find(node);

	return f && is_cached(f);
}

void coherence_before_read(uint64_t node, uint64_t offset, uint64_t len)
{
	struct bytes b;

	if (!coherence_is_cached(node) && others_matter(node, offset, len, &b))
		drop_in_others(node, &b, WHO_WRITES);
}

void coherence_before_write(uint64_t node, uint64_t offset, uint64_t len)
{
	coherence_before_read(node, offset, len);
}

void coherence_after_write(uint64_t node, uint64_t offset, uint64_t len)
{
	bool cached = coherence_is_cached(node);
	struct file *f = find(node);
	struct bytes b;

	if (f && !cached)
		f->stale = true;
	if (!others_matter(node, offset, len, &b))
		return;
	for (guint i = 0; i < files->len; i++) {
		struct file *o = g_ptr_array_index(files, i);
		uint64_t at;

		if (o->node != node && !is_cached(o) && part_of(o, &b, &at))
			o->stale = true;
	}
	if (!cached)
		drop_in_others(node, &b, ALL);
}

void coherence_clear(void)
{
	g_clear_pointer(&files, g_ptr_array_unref);
}
