/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The tree's partition tables, which change when a disk is written. */
#include "config.h"

#include "fs/handles.h"
#include "fs/kernel.h"
#include "fs/tree-internal.h"

/* Called with the mutex. */
static int read_partitions(struct tree *t, struct tree_view *v, struct partition_table **table)
{
	uint64_t writes = t->writes;
	int ret = partition_table_of_image(v->img, table);

	/* What is written while the table is read makes it out of date again. */
	if (!ret)
		v->partitions_at = writes;
	return ret;
}

int tree_last_partitions(struct tree *t, struct window *w, const struct partition_table **table)
{
	struct tree_view *v = w->view;
	int ret = 0;

	if (!v->partitions) {
		co_mutex_lock(&t->opening);
		if (!v->partitions)
			ret = read_partitions(t, v, &v->partitions);
		co_mutex_unlock(&t->opening);
	}
	*table = v->partitions;
	return ret;
}

uint64_t tree_partition_node(struct tree *t, unsigned disk, unsigned number)
{
	uint64_t node = node_make(disk, LEAF_PARTITION_0 + number);
	void *turn =
		disk == DISK_TOP ? g_hash_table_lookup(t->turns, GUINT_TO_POINTER(number)) : NULL;

	return node | (uint64_t)GPOINTER_TO_UINT(turn) << NODE_TURN_SHIFT;
}

/* Does p lie elsewhere in the other table? */
static bool has_moved(const struct partition *p, const struct partition_table *other)
{
	const struct partition *q = partition_find(other, p->number);

	return !q || q->start != p->start || q->len != p->len;
}

/*
 * A partition that is open stays where it is, as with a disk's block device: what a program writes
 * there must not land somewhere else.
 */
static bool moves_open_one(struct tree *t, const struct tree_view *v,
			   const struct partition_table *other)
{
	for (unsigned i = 0; i < v->partitions->entries->len; i++) {
		const struct partition *p = g_ptr_array_index(v->partitions->entries, i);

		if (has_moved(p, other) &&
		    handles_is_open(tree_partition_node(t, v->disk, p->number)))
			return true;
	}
	return false;
}

/* The kernel may still know those that moved, with a size and pages that are no longer right. */
static void turn_moved_ones(struct tree *t, const struct tree_view *v,
			    const struct partition_table *other)
{
	for (unsigned i = 0; i < v->partitions->entries->len; i++) {
		const struct partition *p = g_ptr_array_index(v->partitions->entries, i);
		void *key = GUINT_TO_POINTER(p->number);

		if (has_moved(p, other))
			g_hash_table_insert(
				t->turns, key,
				GUINT_TO_POINTER(
					GPOINTER_TO_UINT(g_hash_table_lookup(t->turns, key)) + 1));
	}
}

/* Somebody looks at the table: it is read anew when the disk was written since it was read. */
static int refresh_partitions(struct tree *t, struct tree_view *v)
{
	struct partition_table *table = NULL;
	uint64_t before;
	int ret;

	if (!v->partitions || v->disk != DISK_TOP || v->partitions_at == t->writes)
		return 0;
	co_mutex_lock(&t->opening);
	before = v->partitions_at;
	ret = read_partitions(t, v, &table);
	if (!ret && moves_open_one(t, v, table)) {
		partition_table_free(table);
		v->partitions_at = before;
	} else if (!ret) {
		turn_moved_ones(t, v, table);
		g_ptr_array_add(v->retired, v->partitions);
		v->partitions = table;
	}
	co_mutex_unlock(&t->opening);
	return ret;
}

static int read_settled(void *img, uint64_t offset, void *buf, size_t len)
{
	kernel_settle_range(node_make(DISK_TOP, LEAF_DISK), offset, len);
	return image_read(img, offset, buf, len);
}

/*
 * A table that a program wrote to disk.raw, itself or through a loop device, and did not sync may
 * still be with the kernel. The table is read for where it is only: the kernel sends what it keeps
 * of these bytes, which counts as writes. Before the mutex, which those writes may want.
 */
static void settle_table(const struct tree_view *v)
{
	struct partition_table *table;

	if (v->disk == DISK_TOP && handles_is_written(node_make(DISK_TOP, LEAF_DISK)) &&
	    !partition_table_read(v->img->size, read_settled, v->img, &table))
		partition_table_free(table);
}

int tree_partitions(struct tree *t, struct window *w, const struct partition_table **table)
{
	int ret;

	settle_table(w->view);
	ret = refresh_partitions(t, w->view);
	return ret ? ret : tree_last_partitions(t, w, table);
}

void tree_wrote(struct tree *t)
{
	t->writes++;
}

const struct partition *tree_partition(struct tree *t, struct window *w, uint64_t node)
{
	const struct partition_table *table;

	if (!node_is_partition(node) || tree_last_partitions(t, w, &table))
		return NULL;
	return partition_find(table, node_leaf(node) - LEAF_PARTITION_0);
}
