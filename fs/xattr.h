/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Facts about files as extended attributes user.imgfs.*. */
#ifndef IMGFS_FS_XATTR_H
#define IMGFS_FS_XATTR_H

#include <glib.h>

#include "fs/tree.h"

#define XATTR_PREFIX "user.imgfs."

/* 0 and *value (caller frees), -ENODATA, or another -errno. May yield. */
int xattr_get(struct tree *t, uint64_t node, const char *name, char **value);
/* Adds each name with its NUL. 0 or -errno. May yield. */
int xattr_list(struct tree *t, uint64_t node, GString *names);

#endif
