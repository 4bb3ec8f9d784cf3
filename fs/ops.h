/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IMGFS_FS_OPS_H
#define IMGFS_FS_OPS_H

#include "fs/fuse.h"

/* The requests of FUSE that a read-only tree answers. User data: struct session. */
extern const struct fuse_lowlevel_ops fs_operations;

#endif
