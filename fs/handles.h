/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which files of the mount are open, so that what would pull a disk from under a program is
 * refused as busy. Of all loops; every function may be called from any thread.
 */
#ifndef IMGFS_FS_HANDLES_H
#define IMGFS_FS_HANDLES_H

#include <stdbool.h>
#include <stdint.h>

/* 0, or -EBUSY while its disk is barred. Every 0 needs one handles_drop. */
int handles_add(uint64_t node, bool writing);
void handles_drop(uint64_t node, bool writing);

/* Is the node open? / Is it open for writing? */
bool handles_is_open(uint64_t node);
bool handles_is_written(uint64_t node);

/*
 * Refuses to open files of this disk until handles_unbar; only_writing: to open them for writing.
 * false: such a file is open already, and nothing is barred. One bar at a time.
 */
bool handles_bar(unsigned disk, bool only_writing);
void handles_unbar(void);

/* Forgets all (end of process). */
void handles_clear(void);

#endif
