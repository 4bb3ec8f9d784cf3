/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * info.json, map.json, check.json: what imgtool prints, made when opened and kept in an unlinked
 * temporary file, because a map may have millions of rows. In a read-only mount it is made once;
 * in a writable one each open file has its own, as the image was when it was opened.
 */
#ifndef IMGFS_FS_TEXT_H
#define IMGFS_FS_TEXT_H

#include "fs/fuse.h"
#include "fs/tree.h"

struct text;
/* The text of the node; text_close gives it back. 0 or -errno (said in the log). May yield. */
int text_open(struct tree *t, uint64_t node, struct text **text);
/* From any thread. */
void text_close(struct text *text);
/* Bytes of the text that was made last, 0 before. From any thread. */
uint64_t text_size(uint64_t node);
/* Answers a read. From any thread. */
void text_reply_read(fuse_req_t req, const struct text *text, uint64_t offset, size_t size);
/* Forgets all (end of process). */
void text_clear(void);

#endif
