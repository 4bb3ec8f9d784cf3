/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files fs/tree*.c know of a tree beside tree.h; private to them. */
#ifndef IMGFS_FS_TREE_INTERNAL_H
#define IMGFS_FS_TREE_INTERNAL_H

#include "fs/tree.h"
#include "io/co.h"

/* A disk that somebody looked at: its image and, when it was asked for, its table. */
struct tree_view {
	unsigned disk, users;
	uint64_t used; /* the tree's clock when last used */
	struct image *img;
	struct partition_table *partitions;
	uint64_t partitions_at; /* the tree's count of writes when they were read */
	GPtrArray *retired;	/* tables that windows may still look into */
};

/* A file of layers/. */
struct tree_layer {
	char *name;
	uint64_t size; /* as it was shown last */
	unsigned turn; /* how often that was another one */
};

struct tree {
	struct image *img, *top; /* top: a view of img with -o snapshot= */
	const struct tree_look *look;
	GArray *layers;	      /* of struct tree_layer, top first */
	GPtrArray *snapshots; /* of struct snapshot; NULL until asked for */
	GPtrArray *snapshot_names;
	GHashTable *snapshot_index; /* name -> index; owns the names */
	GArray *numbers; /* of unsigned, ascending: node number of each snapshot; NULL: the index */
	unsigned next_number;
	GHashTable *views; /* disk -> struct tree_view */
	uint64_t clock, writes;
	GHashTable *turns;	 /* number of a partition of the disk -> how often it moved */
	struct co_mutex opening; /* views, tables and lists are made by one coroutine */
};

static inline bool disk_is_snapshot(unsigned disk)
{
	return disk >= DISK_SNAPSHOT_0;
}

/* tree-snapshots.c. list: with the mutex, need: without; 0 or -errno, may yield. */
int tree_list_snapshots(struct tree *t);
int tree_need_snapshots(struct tree *t);
void tree_drop_snapshot_list(struct tree *t);
/* With a list: the index of the snapshot that has this disk's number, or -1. */
int tree_index_of_disk(const struct tree *t, unsigned disk);

/* tree-partitions.c. The table as it was read last: what a window on a partition means stays while
 * it is open. 0 or -errno. May yield. */
int tree_last_partitions(struct tree *t, struct window *w, const struct partition_table **table);
uint64_t tree_partition_node(struct tree *t, unsigned disk, unsigned number);

#endif
