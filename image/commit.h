/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Commit: what an overlay holds goes down into an image below it. */
#ifndef IMGFS_IMAGE_COMMIT_H
#define IMGFS_IMAGE_COMMIT_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

struct image;
struct throttle;

struct commit_job {
	struct image *top;  /* opened for writing if it is to be emptied */
	struct image *base; /* below top, opened for writing (image_open_options.writable_depth) */
	bool empty; /* forget in top what the base has now; only where base is right below */
	/*
	 * The top is in use, by this process: it is read and written meanwhile, and the base is
	 * below it read-only as yet. Only in the last moment its writers wait.
	 */
	bool live;
	void (*begun)(void *arg); /* live: nothing refuses it any more; may be NULL */
	unsigned coroutines;
	struct throttle *throttle;				    /* NULL: no limit */
	void (*progress)(void *arg, uint64_t done, uint64_t total); /* may be NULL */
	bool (*cancelled)(void *arg);
	void *arg;
};

/*
 * Writes to the base what the layers above it hold, makes it durable, and only then empties the
 * top: cut anywhere, the top reads as before, and a second commit finishes. A base that is
 * shorter than the top becomes as long; a longer one keeps its size. Internal snapshots of both
 * stay as they are. false and *error with a sentence. Yields.
 */
bool image_commit(const struct commit_job *job, GError **error);
/*
 * Live: refused when the top has internal snapshots (what they show of the base would change), and
 * while another commit of it is under way (IMAGE_ERROR_BUSY). Structure cannot be changed
 * meanwhile. With base deeper than right below, the images between show the base's new bytes
 * afterwards where they hold none: as with qemu-img commit -b, they are of no use any more.
 */

/*
 * How far below top the image is that `name` names: the same file, or the name as an image of
 * the chain records it. 0: none.
 */
unsigned image_find_layer(struct image *top, const char *name);

#endif
