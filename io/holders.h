/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who has a file locked: for the sentence that says why it cannot be had. */
#ifndef IMGFS_IO_HOLDERS_H
#define IMGFS_IO_HOLDERS_H

/*
 * "qemu-nbd disk.qcow2 (process 12), imgfs -o rw disk.qcow2 mnt (process 34)": the processes that
 * have byte-range locks on the file, as far as this one may look; at most a few, each command line
 * cut off where it is long. NULL: none is seen. Blocks for as long as reading /proc takes. Caller
 * frees.
 */
char *holders_name(const char *path);

#endif
