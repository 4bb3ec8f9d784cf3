/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "fs/handles.h"

#include <errno.h>
#include <glib.h>
#include <pthread.h>

#include "fs/tree.h"

struct open_node {
	uint64_t node;
	unsigned opens, writers;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static GHashTable *open_nodes; /* of struct open_node, which begins with its key */
static struct bar {
	bool up, only_writing;
	unsigned disk;
} bar;

static struct open_node *find(uint64_t node)
{
	return open_nodes ? g_hash_table_lookup(open_nodes, &node) : NULL;
}

static bool is_barred(uint64_t node, bool writing)
{
	return bar.up && node_disk(node) == bar.disk && (writing || !bar.only_writing);
}

int handles_add(uint64_t node, bool writing)
{
	struct open_node *o;
	int ret = 0;

	pthread_mutex_lock(&lock);
	if (!open_nodes)
		open_nodes = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
	o = find(node);
	if (is_barred(node, writing)) {
		ret = -EBUSY;
	} else {
		if (!o) {
			o = g_new0(struct open_node, 1);
			o->node = node;
			g_hash_table_insert(open_nodes, o, o);
		}
		o->opens++;
		o->writers += writing;
	}
	pthread_mutex_unlock(&lock);
	return ret;
}

void handles_drop(uint64_t node, bool writing)
{
	struct open_node *o;

	pthread_mutex_lock(&lock);
	o = find(node);
	if (o) {
		o->opens--;
		o->writers -= writing;
		if (!o->opens)
			g_hash_table_remove(open_nodes, &node);
	}
	pthread_mutex_unlock(&lock);
}

bool handles_is_open(uint64_t node)
{
	bool is_open;

	pthread_mutex_lock(&lock);
	is_open = find(node);
	pthread_mutex_unlock(&lock);
	return is_open;
}

bool handles_is_written(uint64_t node)
{
	struct open_node *o;
	bool written;

	pthread_mutex_lock(&lock);
	o = find(node);
	written = o && o->writers;
	pthread_mutex_unlock(&lock);
	return written;
}

/* Few files are open at a time. */
static bool disk_is_open(unsigned disk, bool only_writing)
{
	GHashTableIter iter;
	struct open_node *o;

	if (!open_nodes)
		return false;
	g_hash_table_iter_init(&iter, open_nodes);
	while (g_hash_table_iter_next(&iter, NULL, (void **)&o))
		if (node_disk(o->node) == disk && (!only_writing || o->writers))
			return true;
	return false;
}

bool handles_bar(unsigned disk, bool only_writing)
{
	bool good;

	pthread_mutex_lock(&lock);
	good = !bar.up && !disk_is_open(disk, only_writing);
	if (good)
		bar = (struct bar){true, only_writing, disk};
	pthread_mutex_unlock(&lock);
	return good;
}

void handles_unbar(void)
{
	pthread_mutex_lock(&lock);
	bar.up = false;
	pthread_mutex_unlock(&lock);
}

void handles_clear(void)
{
	pthread_mutex_lock(&lock);
	g_clear_pointer(&open_nodes, g_hash_table_unref);
	bar.up = false;
	pthread_mutex_unlock(&lock);
}
