/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Telling the kernel the disk's new size. With its write-back cache it goes by the size that it has
 * in memory, and there is no message for another one; but it takes a size that a program sets. So
 * we set it, through the mount, to what it is already.
 */
#ifndef IMGFS_FS_RESIZED_H
#define IMGFS_FS_RESIZED_H

#include <stdbool.h>

#include "fs/tree.h"

/* Mounted and answering. mountpoint: absolute. single_file: it is the disk. */
void resized_begin(const char *mountpoint, bool single_file);
void resized_end(void);

/*
 * The disk has another size than before. The file may not be barred (fs/handles.h) by the caller
 * for anything but opening it. May yield; its request is answered meanwhile.
 */
void resized_tell(struct tree *t);
/* The same for any file that may be written to, where the kernel has a size that is wrong. */
void resized_tell_file(uint64_t node, uint64_t size);

#endif
