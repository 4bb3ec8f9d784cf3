/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Requests that change the disk: write, fsync, truncate, fallocate, copy_file_range. Only
 * disk.raw and the partitions of the image itself take them; layers and snapshots never do.
 *
 * The kernel keeps what programs write and sends it later, merged (write-back). So a write that
 * cannot be done is told to the program by its fsync or close.
 */
#ifndef IMGFS_FS_WRITE_H
#define IMGFS_FS_WRITE_H

#include "fs/fuse.h"

/* What is written with O_SYNC or O_DSYNC is durable when it is answered. */
void write_op_write(fuse_req_t req, fuse_ino_t node, const char *data, size_t size, off_t offset,
		    const struct fuse_file_info *fi);
void write_op_fsync(fuse_req_t req, fuse_ino_t node);
/* set: which of attr, as libfuse's FUSE_SET_ATTR_*. */
void write_op_setattr(fuse_req_t req, fuse_ino_t node, const struct stat *attr, int set);
void write_op_fallocate(fuse_req_t req, fuse_ino_t node, int mode, off_t offset, off_t len);
/* from: any disk of the mount. May copy less than len. */
void write_op_copy_file_range(fuse_req_t req, fuse_ino_t from, off_t from_offset, fuse_ino_t to,
			      off_t to_offset, size_t len);

#endif
