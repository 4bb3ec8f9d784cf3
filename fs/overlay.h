/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A layer above the image of a mount that takes its writes: a qcow2 file that stays (overlay=), or
 * one that nobody sees and that is gone at the end (scratch). The image is opened read-only and
 * never gets a byte.
 */
#ifndef IMGFS_FS_OVERLAY_H
#define IMGFS_FS_OVERLAY_H

#include <glib.h>

#include "fs/options.h"
#include "image/image.h"

/*
 * open: for the whole chain, with the gate (which learns that the image may be opened) and what
 * writing needs. An overlay that is there is continued if its backing file is the image, else it is
 * made. NULL and *error: one sentence. May yield.
 */
struct image *overlay_open(const struct mount_options *o, struct image_open_options *open,
			   GError **error);
struct image *overlay_open_scratch(const struct mount_options *o, struct image_open_options *open,
				   GError **error);
/* At the end. failed: the mount never stood; an overlay that was made for it goes away. */
void overlay_end(bool failed);

#endif
