/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What stat(2) says of the files of the mount: what the tree knows, the blocks that hold data, and
 * in a writable mount the times and permissions that were set, for as long as it is mounted.
 */
#ifndef IMGFS_FS_ATTR_H
#define IMGFS_FS_ATTR_H

#include <stdint.h>
#include <sys/stat.h>

#include "fs/fuse.h"
#include "fs/tree.h"

#define ATTR_FOREVER (10 * 365.0 * 86400) /* seconds */

/* 0 or -errno. May yield. */
int attr_stat(struct tree *t, uint64_t node, struct stat *st);
/* How long, in seconds, the kernel may answer by itself. */
double attr_timeout(uint64_t node);

/* The file's bytes were changed just now. */
void attr_wrote(uint64_t node);
/* Keeps times and mode as set (libfuse's FUSE_SET_ATTR_*) says; the rest is not looked at. */
void attr_set(uint64_t node, const struct stat *attr, int set);
/* Forgets what was set (end of process). */
void attr_clear(void);

#endif
