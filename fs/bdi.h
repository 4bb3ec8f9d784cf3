/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How the kernel treats the pages of the mount: /sys/class/bdi. */
#ifndef IMGFS_FS_BDI_H
#define IMGFS_FS_BDI_H

#include <stdbool.h>

/*
 * Sets limits that are made for slow or hostile servers. Only root may; who may not lives with
 * them. Called when the mount stands, not from a coroutine.
 */
void bdi_tune(const char *mountpoint, bool writable);

#endif
