/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The files of a mount. A node is a number: which disk (the image, a layer, a
 * snapshot) and which file of it. Nothing is allocated for a node, so nothing
 * has to be forgotten, the numbers are the same in every mount of the image, and an
 * image with 65,536 snapshots costs nothing until somebody looks. A snapshot that is made while
 * mounted gets a number that was not given before.
 *
 * Each loop has a tree of its own over its own open image, built alike from the
 * same file: there is no lock in here.
 */
#ifndef IMGFS_FS_TREE_H
#define IMGFS_FS_TREE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "image/image.h"
#include "image/partition.h"

/*
 * A node number is disk << 16 | leaf. The root is disk 0, leaf 1, as FUSE wants it. A partition
 * that a new table put elsewhere, and a layer that has another size, is another file for the
 * kernel: bits 48 and up count that.
 */
#define NODE_TURN_SHIFT 48
enum tree_leaf {
	LEAF_DIR = 1,
	LEAF_DISK,
	LEAF_PARTITIONS,
	LEAF_LAYERS,
	LEAF_SNAPSHOTS,
	LEAF_INFO,
	LEAF_MAP,
	LEAF_CHECK,
	LEAF_CONTROL,
	LEAF_CONTROL_0 = 0x40,	  /* + row of the table in control.c */
	LEAF_PARTITION_0 = 0x100, /* + number */
};
enum tree_disk {
	DISK_TOP = 0,
	DISK_LAYER_0 = 1,	   /* + depth */
	DISK_SNAPSHOT_0 = 0x10000, /* + a number that the snapshot keeps; at first its index */
};
static inline uint64_t node_make(unsigned disk, unsigned leaf)
{
	return (uint64_t)disk << 16 | leaf;
}
static inline unsigned node_disk(uint64_t node)
{
	return (unsigned)(node >> 16);
}
static inline unsigned node_leaf(uint64_t node)
{
	return (unsigned)(node & 0xffff);
}
static inline bool node_is_partition(uint64_t node)
{
	return node_leaf(node) > LEAF_PARTITION_0;
}
/* A window on a disk: read by offset, has holes. */
static inline bool node_is_disk(uint64_t node)
{
	return node_leaf(node) == LEAF_DISK || node_is_partition(node);
}
/* A file of the folder control/. */
static inline bool node_is_control(uint64_t node)
{
	return node_leaf(node) >= LEAF_CONTROL_0 && node_leaf(node) < LEAF_PARTITION_0;
}
static inline bool node_is_text(uint64_t node)
{
	return node_leaf(node) >= LEAF_INFO && node_leaf(node) <= LEAF_CHECK;
}

/* How files look to stat; the same for all trees of a mount. */
struct tree_look {
	uid_t uid;
	gid_t gid;
	mode_t file_mode, dir_mode; /* permission bits */
	mode_t disk_mode;	    /* of what may be written to */
	bool single_file;	    /* the root is the disk itself */
	bool writable;		    /* the image may be changed */
	bool scratch;		    /* and nothing of it stays */
	uid_t control_uid;	    /* who mounts: control files are theirs */
	gid_t control_gid;
};

struct tree;
/*
 * snapshot: ID or name of what disk.raw shows, NULL for the active state. img is
 * referenced. NULL and *error if there is no such snapshot. May yield.
 */
struct tree *tree_new(struct image *img, const char *snapshot, const struct tree_look *look,
		      GError **error);
/* No window may be held. */
void tree_free(struct tree *t);
struct image *tree_image(struct tree *t);
bool tree_is_writable(const struct tree *t);
bool tree_is_scratch(const struct tree *t);
/* Is it disk.raw or a partition of the image itself, and may be written to? */
bool tree_node_is_writable(const struct tree *t, uint64_t node);
/* Or the top layer, which has the same bytes? Only in a writable mount. */
bool tree_node_changes(const struct tree *t, uint64_t node);

/*
 * The bytes of a disk.raw or partition: [start, start+size) of img, which stays open until
 * tree_window_put. 0, -ENOENT, or what opening a snapshot gave. May yield.
 */
struct window {
	struct image *img;
	uint64_t start, size;
	struct tree_view *view; /* private */
};
int tree_window(struct tree *t, uint64_t node, struct window *w);
void tree_window_put(struct tree *t, struct window *w);

/* Is the node a window: a disk, a partition, or the root when it is the disk itself? */
bool tree_node_is_disk(const struct tree *t, uint64_t node);

/* The partition that the node is, inside the window's life. NULL: none. May yield. */
const struct partition *tree_partition(struct tree *t, struct window *w, uint64_t node);
/* The table of the window's disk, read anew if that was written to. For as long as the window is
 * held. 0 or -errno. May yield. */
int tree_partitions(struct tree *t, struct window *w, const struct partition_table **table);

/* 0 and *child, or -ENOENT, -ENOTDIR, another -errno. May yield. */
int tree_lookup(struct tree *t, uint64_t dir, const char *name, uint64_t *child);
/*
 * The index-th child of dir (0 first, without "." and ".."), its name in buf. 0,
 * -ENOENT past the last, or another -errno. May yield.
 */
int tree_child(struct tree *t, uint64_t dir, uint64_t index, uint64_t *child, char buf[256]);
/* Directory above: for "..". */
uint64_t tree_parent(uint64_t dir);

/* Everything but st_blocks of a disk and the size of a text. 0 or -errno. May yield. */
int tree_stat(struct tree *t, uint64_t node, struct stat *st);

/* The snapshot that a node of a snapshot belongs to, NULL for others. May yield. */
const struct snapshot *tree_snapshot(struct tree *t, uint64_t node);

/*
 * Changes of what there is. Between begin and end the caller is the only one who opens views or
 * reads lists, and may change the image's snapshots. The list is in table order, -errno (and
 * NULL) if it cannot be read. All may yield, but for what has no other comment.
 */
int tree_change_begin(struct tree *t, GPtrArray **snapshots);
enum tree_change {
	TREE_SAME,
	TREE_ADDED,   /* a snapshot at the end */
	TREE_REMOVED, /* the one of index */
	TREE_RENAMED,
	TREE_APPLIED, /* the disk's contents, perhaps its size */
};
void tree_change_end(struct tree *t, enum tree_change change, unsigned index);
/* Inside a change. The index for a name in snapshots/, or -1; does not yield. */
int tree_snapshot_index(struct tree *t, const char *name);
/* Inside a change. The number of its disk; the name that it has in snapshots/. */
unsigned tree_snapshot_disk(struct tree *t, unsigned index);
/* Inside a change: closes the view of a disk; false: somebody is reading it. */
bool tree_close_view(struct tree *t, unsigned disk);

/* Bytes of the image were changed, so its partition table may have been. */
void tree_wrote(struct tree *t);

#endif
