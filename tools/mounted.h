/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which mount of imgfs has an image open. */
#ifndef IMGFS_TOOLS_MOUNTED_H
#define IMGFS_TOOLS_MOUNTED_H

#include <glib.h>
#include <stdbool.h>
#include <sys/stat.h>

struct mounted {
	char *at;	  /* the mountpoint */
	bool answers;	  /* else nothing below is known, but for: */
	bool closed;	  /* it lets this user not in */
	bool writable;	  /* the mount may write to the image */
	bool single_file; /* the mountpoint is the disk: there is no control/ */
	bool data_file;	  /* the file is an external data file of an image */
	unsigned depth;	  /* of the file in the mount's chain; 0: the image that it writes to */
};

/*
 * The mount that has this file in its chain, a writable one first; path: a name of it. NULL: none,
 * or none whose word may be taken for it: mounts of other users are not asked, as they could claim
 * any file. Waits at most a second or two for a mount that does not answer.
 */
struct mounted *mounted_find(const struct stat *file, const char *path);
void mounted_free(struct mounted *m); /* NULL is allowed */

#endif
