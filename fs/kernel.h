/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the kernel keeps of our files: getting out of it what programs wrote, and telling it that
 * something has changed. Only in a writable mount; in a read-only one all of these do nothing.
 *
 * All may yield and never block the loop: the calls wait for locks inside the kernel, some of which
 * are held until this loop has answered another request, so they are made on threads of their own.
 * The caller may be answering a request, but must not hold what answering a read or a write of
 * disk.raw or a partition needs: no range lock, no co_mutex that a window takes.
 */
#ifndef IMGFS_FS_KERNEL_H
#define IMGFS_FS_KERNEL_H

#include <stdbool.h>
#include <stdint.h>

#include <glib.h>

#include "fs/fuse.h"
#include "fs/tree.h"

/* From now on, until kernel_end, calls reach the kernel. */
void kernel_begin(struct fuse_session *fuse);
void kernel_end(void);

/* The kernel has learnt of this disk, partition or layer: a lookup was answered. Does not yield. */
void kernel_knows(uint64_t node);

/*
 * Around a write that the kernel makes from its cache of the file, from the moment it is received:
 * who has the kernel give pages up waits for those before. So it must not do that itself. Neither
 * yields.
 */
struct kernel_write {
	GList link;
	uint64_t number;
};
void kernel_write_begin(struct kernel_write *k);
void kernel_write_end(struct kernel_write *k);

/*
 * What programs have written into these bytes of the file and the kernel still keeps is written to
 * the image when this returns, and its pages are dropped. What is written meanwhile may be left.
 * Not from a request in which the kernel holds one of these pages (a read or a cached write of the
 * same file). len UINT64_MAX: up to the end.
 */
void kernel_settle_range(uint64_t node, uint64_t offset, uint64_t len);
/*
 * The same for disk.raw and all partitions, as far as they are open for writing: the state of the
 * disk at the moment of the call.
 */
void kernel_settle(void);

/*
 * The bytes of disk.raw and the partitions, and perhaps their sizes, are others now (snapshot
 * applied, layer committed, disk resized): pages and attributes are dropped. Kept writes are
 * written first, so settle before the change.
 */
void kernel_changed(struct tree *t);
/* The same for the files of one disk, such as a layer. */
void kernel_disk_changed(unsigned disk);

/*
 * The blocks that files take have changed: stat(2) will ask anew, at once after
 * kernel_attributes_now; else a moment (0.1 s) after the last change, or in the midst of many
 * changes after a second. The first does not yield.
 */
void kernel_attributes_later(void);
void kernel_attributes_now(void);
/* Of this file, whatever has changed. Yields. */
void kernel_forget_attributes(uint64_t node);

/*
 * An entry of a directory has come, gone, or stands for another node: its name and the listing are
 * asked for anew. Do not await it where a request on that same directory (mkdir, rmdir, rename,
 * lookup in it) is being answered, because the kernel holds the directory until the reply: for
 * these it knows by itself what it asked for.
 */
void kernel_name_changed(uint64_t dir, const char *name);

#endif
