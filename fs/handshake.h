/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is agreed with the kernel beyond what libfuse knows how to ask for. */
#ifndef IMGFS_FS_HANDSHAKE_H
#define IMGFS_FS_HANDSHAKE_H

#include "fs/fuse.h"

/*
 * After the session was mounted, before its first request: its answer to INIT says also that
 * nothing has to be done about set-uid bits and capabilities when a file is written to. Otherwise
 * the kernel asks for the attribute security.capability in front of every single write. 0 or
 * -errno.
 */
int handshake_watch(struct fuse_session *fuse);

#endif
