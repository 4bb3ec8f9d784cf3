/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How the process gets memory from the system. */
#ifndef IMGFS_IO_MEMORY_H
#define IMGFS_IO_MEMORY_H

/*
 * Makes malloc keep what large buffers gave back, up to some 32 MiB, for the next
 * ones. Without it each buffer for I/O is mapped, touched page by page and
 * unmapped again, which costs more than the copy into it. Called once by each
 * main, before there are threads.
 */
void memory_keep_large_buffers(void);

#endif
