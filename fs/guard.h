/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A second process that lets a killed imgfs die.
 *
 * A writable mount asks the kernel for what it keeps of the files (fs/kernel.h), on a thread which
 * the kernel wakes when those bytes were written: by this very program. Killed in such a moment,
 * the program answers nothing any more, the thread waits for it and cannot be killed, and because
 * it waits inside of a call on /dev/fuse, the kernel does not see that nobody serves the mount.
 * Every program that uses it would hang, and the image would stay locked. The guard, which has
 * nothing open and never touches the mount, learns of the death and has the kernel end the
 * connection. It is named imgfs-guard, has imgfs' command line, and goes with it.
 */
#ifndef IMGFS_FS_GUARD_H
#define IMGFS_FS_GUARD_H

/*
 * From now on the mount at this absolute path is guarded against the end of the calling thread.
 * Without one (no more processes) it works as well. Does not yield.
 */
void guard_begin(const char *mountpoint);
/* The program ends by itself. */
void guard_end(void);

#endif
