/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What libfuse is asked for: the mount itself, and the words of its options. */
#ifndef IMGFS_FS_MOUNTING_H
#define IMGFS_FS_MOUNTING_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>

#include "fs/fuse.h"
#include "fs/options.h"

/*
 * Can the mountpoint of the options be mounted on? *single_file: it is a regular file, and the disk
 * is shown there alone. false: `error` (IMAGE_ERROR_USAGE) says why not.
 */
bool mounting_judge(const struct mount_options *o, bool *single_file, GError **error);
/*
 * Mounts, with a descriptor that does not block; requests go to `ops` with `userdata`. NULL:
 * `error` tells, nothing is mounted. The result is the caller's, for mounting_end.
 */
struct fuse_session *mounting_begin(const struct mount_options *o,
				    const struct fuse_lowlevel_ops *ops, size_t ops_size,
				    void *userdata, GError **error);
/* gone: the mount is not there any more. */
void mounting_end(struct fuse_session *fuse, bool gone);
/* Sets an error for a mount that failed, with libfuse's own words where it had some, or `why`. */
bool mounting_failed(GError **error, const struct mount_options *o, const char *why);
/* At the end of the program. */
void mounting_clear(void);

#endif
