/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Bytes and holes of the windows that the mount shows. */
#ifndef IMGFS_FS_DATA_H
#define IMGFS_FS_DATA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/fuse.h"
#include "fs/tree.h"

/* The largest read that the kernel sends. */
#define DATA_READ_MAX (1u << 20)

/*
 * Answers a read of the window: the bytes, fewer at its end, or an error (which is logged).
 * Zeroes come out of one shared page, a range that one extent describes is read without a
 * second walk. direct: the file was opened with O_DIRECT, so nothing is read ahead. May yield.
 */
void data_reply_read(fuse_req_t req, const struct window *w, uint64_t offset, size_t size,
		     bool direct);

/* SEEK_DATA and SEEK_HOLE: 0 and *found, -ENXIO, or another -errno. May yield. */
int data_seek(const struct window *w, uint64_t offset, int whence, uint64_t *found);

/*
 * Blocks of 512 bytes that hold data, for st_blocks: counted, and remembered for the node.
 * Counting is given up after some milliseconds, then the rest is estimated from what
 * was seen. Promises that cp and tar rely on: 0 only where there is no data
 * at all; less than the size whenever there may be a hole. May yield.
 */
uint64_t data_blocks(const struct window *w, uint64_t node);

/* Data were written, or holes made: what data_blocks remembers is out of date. From any thread. */
void data_changed(void);

/* A snapshot is gone, and its disk's number with it: forgets what data_blocks remembers of it. */
void data_forget_disk(unsigned disk);

/* Frees the calling thread's buffers; what data_blocks remembers. */
void data_thread_end(void);
void data_clear(void);

#endif
