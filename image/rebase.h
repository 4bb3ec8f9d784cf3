/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Rebase: another backing file for an image, below the same disk. */
#ifndef IMGFS_IMAGE_REBASE_H
#define IMGFS_IMAGE_REBASE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

struct image;

struct rebase_job {
	struct image *top;    /* opened for writing, with its old chain */
	struct image *target; /* the new backing image with its chain; NULL: none from now on */
	const char *name;     /* to be recorded; "" when target is NULL */
	const char *format;   /* the same; NULL: none */
	bool compress;	      /* whole clusters that are copied into top are compressed */
	unsigned coroutines;
	void (*progress)(void *arg, uint64_t done, uint64_t total); /* may be NULL */
	bool (*cancelled)(void *arg);
	void *arg;
};

/*
 * Copies into top what its holes show of the old chain and the new one would show otherwise, makes
 * that durable, and only then records the new name. Cut anywhere, the disk reads as before
 * through one of the two names, and a second run finishes. What could not be finished is refused
 * before anything is copied. Of internal snapshots only the clusters that they have
 * themselves stay. false and *error with a sentence. Yields.
 */
bool image_rebase(const struct rebase_job *job, GError **error);

#endif
