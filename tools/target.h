/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The image that convert and dd write: made, opened, and taken away when the command fails. */
#ifndef IMGFS_TOOLS_TARGET_H
#define IMGFS_TOOLS_TARGET_H

#include "tools/tool.h"

struct target {
	const char *name;
	bool create;  /* else it is there already (-n) */
	bool existed; /* before it was created anew */
	struct image *img;
	bool is_zero;	 /* it was made by us and reads as zeroes: never so of a raw device */
	char *data_name; /* target.c's: a data file that was made with it */
};

/* A format that images can be made of; NULL after saying why. */
const struct format *target_format(const char *word);
/* Is the target one of the sources (by device and inode)? Says so. */
bool target_is_source(const char *name, struct image *const *sources, unsigned n);
/* Makes (t->create) and opens it; false after saying why. o: create options, may be NULL. */
bool target_open(struct args *args, struct target *t, const struct format *format,
		 struct options *o, const struct tool_source *s);
/* Takes it away again before anything was written; the caller said why. */
void target_abandon(struct target *t);
/*
 * Flushes and closes. failure (taken over) is why the command failed, NULL: it did
 * not. Then, or when the flush fails, what this command made is removed, because
 * half a target looks like a whole one; what was there before is called incomplete
 * in the same sentence. Returns whether all is well.
 */
bool target_close(struct target *t, GError *failure);

#endif
