/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* QEMU's image locks. Internal to io/. */
#ifndef IMGFS_IO_LOCK_H
#define IMGFS_IO_LOCK_H

#include <glib.h>
#include <stdbool.h>

/*
 * Takes the locks for `perms` and `unshared` (enum file_perm bits) on an open
 * file; closing it frees them. False and *error (no path in front) if another
 * holder is in conflict: what was taken is given back. True where the file
 * system has no such locks.
 */
/* Gives back what lock_take took of these. */
void lock_give_back(int fd, unsigned perms, unsigned unshared);
bool lock_take(int fd, const char *path, unsigned perms, unsigned unshared, GError **error);

#endif
