/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * disk.raw and the partitions in it are different files with the same bytes, and the kernel keeps
 * pages for each file by itself. So that all of them show the same at any time:
 *
 * Of files that overlap only one is cached at a time, the one that was opened first; the kernel
 * may keep what is written there. One that is opened beside it is direct: each of its reads and
 * writes comes here, and first has the kernel give up what it keeps of these bytes of the cached
 * one. Partitions do not overlap one another, so all of them may be cached. A file stays what it
 * is until its last close. Pages that are left of an earlier time are dropped at the next open if
 * these bytes were written through another file since.
 *
 * No deadlock: giving pages up waits for locks that the kernel holds while a read or write of
 * the cached file is answered, and those never wait for anything here.
 *
 * What it cannot do: a direct file cannot be mapped shared, and where two programs write into the
 * same page through both files at the same moment, each its own part of it, one part may be lost.
 *
 * Only for a writable mount's one loop.
 */
#ifndef IMGFS_FS_COHERENCE_H
#define IMGFS_FS_COHERENCE_H

#include <stdbool.h>
#include <stdint.h>

struct window;

/* The file is opened; w is its window. direct: it must not be cached; keep: what the kernel has of
 * it is still true. Does not yield. */
struct coherence_open {
	bool direct, keep;
};
struct coherence_open coherence_opened(uint64_t node, const struct window *w);
void coherence_closed(uint64_t node);
/* Is it open, and not cached? */
bool coherence_is_direct(uint64_t node);

/* Does the kernel keep its pages? Then nothing below yields for it. */
bool coherence_is_cached(uint64_t node);
/* Before bytes of the file are read or looked for: what was written to them through another file
 * has come. Yields. */
void coherence_before_read(uint64_t node, uint64_t offset, uint64_t len);
/* Around a change of bytes of the file, which is made between the two and answered after them.
 * Both yield. */
void coherence_before_write(uint64_t node, uint64_t offset, uint64_t len);
void coherence_after_write(uint64_t node, uint64_t offset, uint64_t len);

void coherence_clear(void);

#endif
