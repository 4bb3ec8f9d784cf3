/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* libfuse's low-level interface, in the version that the whole folder is written for. */
#ifndef IMGFS_FS_FUSE_H
#define IMGFS_FS_FUSE_H

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>

#endif
