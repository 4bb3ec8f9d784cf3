/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * info.json, map.json, check.json: what imgtool prints, made when first opened
 * and kept in an unlinked temporary file, because a map may have millions of rows.
 */
#ifndef IMGFS_FS_TEXT_H
#define IMGFS_FS_TEXT_H

#include "fs/fuse.h"
#include "fs/tree.h"

/* Makes the text of the node unless it is there. 0 or -errno (said in the log). May yield. */
int text_make(struct tree *t, uint64_t node);
/* Bytes of a text that was made, else 0. From any thread. */
uint64_t text_size(uint64_t node);
/* Answers a read of a text that was made. From any thread. */
void text_reply_read(fuse_req_t req, uint64_t node, uint64_t offset, size_t size);
/* Closes all (end of process). */
void text_clear(void);

#endif
