/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Opening the image of a mount as the options ask for it. */
#ifndef IMGFS_FS_OPEN_H
#define IMGFS_FS_OPEN_H

#include <glib.h>
#include <stdbool.h>

#include "fs/options.h"
#include "image/image.h"

/*
 * Opens the image for the calling loop, one of `loops` of which each gets its share of the metadata
 * cache. first: warnings are told. *gate outlives the image and is freed after it; it is set in any
 * case. NULL and *error: one sentence. May yield.
 */
struct image *open_mounted(const struct mount_options *o, unsigned loops, bool first,
			   struct gate **gate, GError **error);
/*
 * An error that is the refusal of a lock, for which qemu-img has two lines, becomes one sentence
 * that names who has the image in use. img: where it is known which; else the error's name counts.
 */
void open_name_holders(GError **error, const struct image *img);
/* Of the file that the user named as the image: there may be a layer above it. */
const struct stat *open_named_stat(const struct mount_options *o, const struct image *img);
/* Do both loops show the same files? Somebody may have put another under the name meanwhile. */
bool open_same_chain(struct image *a, struct image *b);

#endif
