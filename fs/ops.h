/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IMGFS_FS_OPS_H
#define IMGFS_FS_OPS_H

#include "fs/fuse.h"
#include "fs/tree.h"

/* What a lookup or mkdir of node in dir answers. 0 or -errno. May yield. */
int ops_fill_entry(struct tree *t, uint64_t dir, uint64_t node, struct fuse_entry_param *e);

/* The requests of FUSE that are answered. User data: struct session. */
extern const struct fuse_lowlevel_ops fs_operations;

#endif
