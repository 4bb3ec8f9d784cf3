/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Making, removing and renaming the folders in snapshots/: snapshots of the image. */
#ifndef IMGFS_FS_SNAPSHOT_DIR_H
#define IMGFS_FS_SNAPSHOT_DIR_H

#include <glib.h>

#include "fs/fuse.h"
#include "fs/tree.h"

/*
 * Changes, as functions for control_run (arg: struct snapshot_change *) and for commands, which run
 * as such anyway. All wait until what the kernel holds of our files has come, all tell an event.
 */
struct snapshot_change {
	const char *name, *new_name;
	bool shown; /* name is one of snapshots/; else: an ID or a name of the table */
};
int snapshot_create(struct tree *t, void *arg, GError **error); /* shown: name is not escaped */
int snapshot_delete(struct tree *t, void *arg, GError **error);
int snapshot_rename(struct tree *t, void *arg, GError **error);
int snapshot_apply(struct tree *t, void *arg, GError **error);

void snapshot_dir_op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void snapshot_dir_op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void snapshot_dir_op_rename(fuse_req_t req, fuse_ino_t parent, const char *name,
			    fuse_ino_t new_parent, const char *new_name, unsigned flags);
/* Refused. */
void snapshot_dir_op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void snapshot_dir_op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
			   dev_t dev);
void snapshot_dir_op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent,
			     const char *name);
void snapshot_dir_op_link(fuse_req_t req, fuse_ino_t node, fuse_ino_t parent, const char *name);

#endif
