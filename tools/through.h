/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Commands on an image that a mount has open. Those that change it are given to the mount's control
 * files; those that read it do so while the mount holds it still; the others are refused with the
 * mountpoint's name.
 */
#ifndef IMGFS_TOOLS_THROUGH_H
#define IMGFS_TOOLS_THROUGH_H

#include "tools/tool.h"

enum through {
	THROUGH_NOTHING, /* no mount is in the way */
	THROUGH_REFUSED, /* *error names the mountpoint instead of the lock */
	THROUGH_HELD, /* open it again with IMAGE_FORCE_SHARE: it holds still until through_end */
	THROUGH_SENT, /* the command is to be given to args->mount */
};

/*
 * After an image could not be opened because of a lock: look is the same, opened with
 * IMAGE_FORCE_SHARE. writable_depth: as of struct image_open_options.
 */
enum through through_find(struct args *args, struct image *look, bool writing,
			  unsigned writable_depth, GError **error);
/* *error is of opening or creating file `name`: of a lock that a mount has, it becomes the sentence
 * that names the mountpoint. */
void through_explain(const struct args *args, const char *name, GError **error);

/*
 * Writes a line to control/FILE of args->mount, which has carried it out when this returns true.
 * *error: the mount's sentence.
 */
bool through_send(struct args *args, const char *file, const char *line, GError **error);
/* What control/FILE says. NULL and *error. Caller frees. */
char *through_read(struct args *args, const char *file, GError **error);
/*
 * Hands what control/FILE says to look, at once and whenever there is news or a signal came, until
 * look returns false. *error: it cannot be read.
 */
bool through_follow(struct args *args, const char *file, bool (*look)(void *arg, char *text),
		    void *arg, GError **error);
/* "NAME" as control files take a word. NULL and *error: no line can have it. Caller frees. */
char *through_quote(const char *name, GError **error);

/* Ends what stands; status, or 1 after saying that the image did not hold still to the end. */
int through_end(struct args *args, int status);

#endif
