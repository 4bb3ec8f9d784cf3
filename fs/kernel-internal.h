/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Between kernel.c and kernel-size.c. */
#ifndef IMGFS_FS_KERNEL_INTERNAL_H
#define IMGFS_FS_KERNEL_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

/* For kernel_begin and kernel_end. */
void kernel_size_begin(const char *mounted_at, bool single_file);
void kernel_size_end(void);
/* The disk has this size now: so has disk.raw. May yield. */
void kernel_size_changed(uint64_t size);

#endif
