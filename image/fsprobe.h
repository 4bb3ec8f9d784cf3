/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What file system (or RAID, LVM, LUKS member) lies in a range of a disk, as blkid tells it. */
#ifndef IMGFS_IMAGE_FSPROBE_H
#define IMGFS_IMAGE_FSPROBE_H

#include <stdint.h>

struct image;

struct fsprobe {
	char *type, *label, *uuid, *version; /* UTF-8; NULL: not known */
};

/*
 * Looks at [start, start+len) of the disk: its first and last 2 MiB are copied to
 * a file in memory, because libblkid wants a descriptor and must never be
 * given one of our own mount. Finding nothing is no error. 0 or -errno (a read
 * that failed). Without libblkid, or when it finds two that contradict each other,
 * all fields are NULL. May yield; the probing itself runs on the worker pool.
 */
int fsprobe_image(struct image *img, uint64_t start, uint64_t len, struct fsprobe *found);
void fsprobe_clear(struct fsprobe *found);

#endif
