/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The tree's snapshots: their names and numbers, which stay while others come and go. */
#include "config.h"

#include <errno.h>
#include <string.h>

#include "fs/names.h"
#include "fs/tree-internal.h"

/* Every snapshot of the list has a number; new ones stand at its end. */
static void number_snapshots(struct tree *t, unsigned count)
{
	if (!t->numbers)
		t->numbers = g_array_new(FALSE, FALSE, sizeof(unsigned));
	/* Fewer than are known, by no change of ours: then none is taken for another. */
	if (count < t->numbers->len)
		g_array_set_size(t->numbers, 0);
	while (t->numbers->len < count) {
		g_array_append_val(t->numbers, t->next_number);
		t->next_number++;
	}
}

/* The index of the snapshot with this number, or -1. Numbers ascend. */
int tree_index_of_disk(const struct tree *t, unsigned disk)
{
	unsigned number = disk - DISK_SNAPSHOT_0;
	const unsigned *all = (const unsigned *)(void *)t->numbers->data;
	unsigned low = 0, high = t->numbers->len;

	while (low < high) {
		unsigned index = low + (high - low) / 2;

		if (all[index] < number)
			low = index + 1;
		else
			high = index;
	}
	return low < t->numbers->len && all[low] == number ? (int)low : -1;
}

/* Names of all, made when the first is asked for. Called with the mutex. */
int tree_list_snapshots(struct tree *t)
{
	g_autoptr(GError) error = NULL;
	GPtrArray *list;

	if (t->snapshots)
		return 0;
	list = image_snapshots(t->img, &error);
	if (!list)
		return -EIO;
	if (list->len > UINT16_MAX + 1)
		g_ptr_array_set_size(list, UINT16_MAX + 1);
	t->snapshot_names = g_ptr_array_sized_new(list->len);
	t->snapshot_index = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	for (unsigned i = 0; i < list->len; i++) {
		const struct snapshot *s = g_ptr_array_index(list, i);
		const char *name = name_unique(t->snapshot_index, s->name ? s->name : "",
					       s->id ? s->id : "", i);

		g_ptr_array_add(t->snapshot_names, (char *)name);
	}
	/* name_unique used it as a set; the values come now, keys stay as they are. */
	for (unsigned i = 0; i < list->len; i++) {
		char *name = g_ptr_array_index(t->snapshot_names, i);

		g_hash_table_steal(t->snapshot_index, name);
		g_hash_table_insert(t->snapshot_index, name, GUINT_TO_POINTER(i));
	}
	t->snapshots = list;
	number_snapshots(t, list->len);
	return 0;
}

int tree_need_snapshots(struct tree *t)
{
	int ret;

	if (t->snapshots)
		return 0;
	co_mutex_lock(&t->opening);
	ret = tree_list_snapshots(t);
	co_mutex_unlock(&t->opening);
	return ret;
}

const struct snapshot *tree_snapshot(struct tree *t, uint64_t node)
{
	unsigned disk = node_disk(node);
	int index;

	if (!disk_is_snapshot(disk) || tree_need_snapshots(t))
		return NULL;
	index = tree_index_of_disk(t, disk);
	return index < 0 ? NULL : g_ptr_array_index(t->snapshots, (unsigned)index);
}

void tree_drop_snapshot_list(struct tree *t)
{
	g_clear_pointer(&t->snapshots, g_ptr_array_unref);
	g_clear_pointer(&t->snapshot_names, g_ptr_array_unref);
	g_clear_pointer(&t->snapshot_index, g_hash_table_unref);
}

/* ---- changes ---- */

int tree_change_begin(struct tree *t, GPtrArray **snapshots)
{
	int ret;

	co_mutex_lock(&t->opening);
	ret = tree_list_snapshots(t);
	if (ret)
		co_mutex_unlock(&t->opening);
	else
		*snapshots = t->snapshots;
	return ret;
}

void tree_change_end(struct tree *t, enum tree_change change, unsigned index)
{
	if (change == TREE_REMOVED)
		g_array_remove_index(t->numbers, index);
	if (change == TREE_APPLIED)
		tree_wrote(t);
	else if (change != TREE_SAME)
		tree_drop_snapshot_list(t);
	co_mutex_unlock(&t->opening);
}

int tree_snapshot_index(struct tree *t, const char *name)
{
	void *index;

	if (!g_hash_table_lookup_extended(t->snapshot_index, name, NULL, &index))
		return -1;
	return GPOINTER_TO_INT(index);
}

unsigned tree_snapshot_disk(struct tree *t, unsigned index)
{
	return DISK_SNAPSHOT_0 + g_array_index(t->numbers, unsigned, index);
}
