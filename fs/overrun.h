/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writes past the end of what cannot grow. With write-back the kernel takes them without asking,
 * and lets the file grow for everybody; they fail only when it sends them. Then: whoever writes to
 * the file is refused, by way of the attributes that the kernel asks for before a write, so that
 * one who writes until it is full comes to an end; and a moment later the kernel is told the size
 * that the file has.
 */
#ifndef IMGFS_FS_OVERRUN_H
#define IMGFS_FS_OVERRUN_H

#include <stdbool.h>
#include <stdint.h>

/* Bytes were sent for behind the end of the file, which is `size` bytes long and stays so. Does not
 * yield. */
void overrun_note(uint64_t node, uint64_t size);
/* Are writes to the file to be refused now? */
bool overrun_refuses(uint64_t node);

#endif
