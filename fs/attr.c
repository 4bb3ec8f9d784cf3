/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "fs/attr.h"

#include <string.h>
#include <time.h>

#include "fs/data.h"
#include "fs/text.h"

/* What was set of one node; a time of 0 s and 0 ns was not. */
struct override {
	uint64_t node;
	struct timespec atime, mtime;
	mode_t mode; /* permission bits */
	bool has_mode;
};

/* Only a writable mount's one loop has any. */
static GHashTable *overrides;

static struct override *find(uint64_t node)
{
	return overrides ? g_hash_table_lookup(overrides, &node) : NULL;
}

static struct override *find_or_make(uint64_t node)
{
	struct override *o = find(node);

	if (!overrides)
		overrides = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
	if (!o) {
		o = g_new0(struct override, 1);
		o->node = node;
		g_hash_table_insert(overrides, o, o);
	}
	return o;
}

static struct timespec now(void)
{
	struct timespec ts = {0};

	clock_gettime(CLOCK_REALTIME, &ts);
	return ts;
}

void attr_wrote(uint64_t node)
{
	find_or_make(node)->mtime = now();
}

void attr_set(uint64_t node, const struct stat *attr, int set)
{
	struct override *o = find_or_make(node);

	if (set & FUSE_SET_ATTR_MODE) {
		o->has_mode = true;
		o->mode = attr->st_mode & 0777;
	}
	if (set & FUSE_SET_ATTR_ATIME_NOW)
		o->atime = now();
	else if (set & FUSE_SET_ATTR_ATIME)
		o->atime = attr->st_atim;
	if (set & FUSE_SET_ATTR_MTIME_NOW)
		o->mtime = now();
	else if (set & FUSE_SET_ATTR_MTIME)
		o->mtime = attr->st_mtim;
}

static bool is_set(const struct timespec *ts)
{
	return ts->tv_sec || ts->tv_nsec;
}

static void apply(uint64_t node, struct stat *st)
{
	const struct override *o = find(node);

	if (!o)
		return;
	if (is_set(&o->mtime))
		st->st_mtim = st->st_ctim = o->mtime;
	if (is_set(&o->atime))
		st->st_atim = o->atime;
	if (o->has_mode)
		st->st_mode = (st->st_mode & ~(mode_t)0777) | o->mode;
}

int attr_stat(struct tree *t, uint64_t node, struct stat *st)
{
	struct window w;
	int ret = tree_stat(t, node, st);

	if (ret)
		return ret;
	if (node_is_text(node)) {
		st->st_size = (off_t)text_size(node);
		st->st_blocks = (st->st_size + 511) / 512;
	} else if (S_ISREG(st->st_mode) && !node_is_control(node)) {
		ret = tree_window(t, node, &w);
		if (ret)
			return ret;
		st->st_blocks = (blkcnt_t)data_blocks(&w, node);
		tree_window_put(t, &w);
	}
	apply(node, st);
	return 0;
}

/*
 * All but the size of a text that was not made yet. What writing changes the kernel asks for anew
 * by itself; a timeout of 0 would have it ask before every write.
 */
double attr_timeout(uint64_t node)
{
	return node_is_text(node) ? 0 : ATTR_FOREVER;
}

void attr_clear(void)
{
	g_clear_pointer(&overrides, g_hash_table_unref);
}
