/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Files whose every change is logged, so that their contents after a power cut can be made: for
 * tests of the order in which things are written. Not used by the programs.
 *
 * One log may hold several files; it is numbered by positions: a cut at position n happens when
 * the first n entries had begun and nothing after them. What a finished flush covers is there.
 * Anything else of the first n entries may be there, be missing, or be there in some of its
 * 512-byte sectors; the file's growth by itself, too.
 */
#ifndef IMGFS_IO_FILE_RECORD_H
#define IMGFS_IO_FILE_RECORD_H

#include "io/file.h"

struct record_log;

struct record_log *record_log_new(void);
/* All its files must have been closed. */
void record_log_free(struct record_log *log);

/*
 * Passes everything on to inner, of which it takes a reference of its own, and logs it. What
 * inner holds when it is first seen counts as durable. The same file (device, inode) opened again
 * goes on where its log ended.
 */
struct file *record_file(struct record_log *log, struct file *inner);
/* Lets other coroutines run inside of each operation, so that several are under way at a cut. */
void record_log_yield(struct record_log *log, bool yield);

/* For file_set_wrapper with the log as its argument: takes opened over. */
struct file *record_opened(struct file *opened, void *log);
/* Writes the data of one file, not its holes, into another. 0 or -errno. May yield. */
int record_copy_data(struct file *from, struct file *to);

/* Files in the order in which they were first seen. */
unsigned record_log_files(const struct record_log *log);
const char *record_log_name(const struct record_log *log, unsigned file);

/* Entries so far: the position of a cut now. */
size_t record_log_length(const struct record_log *log);
/* Did a flush of some file finish just before this position? */
bool record_log_flushed(const struct record_log *log, size_t position);
/* Operations that a cut at this position may lose, of all files. */
unsigned record_log_pending(const struct record_log *log, size_t position);

/* Which of the pending operations survive. */
#define RECORD_LOSE_ALL UINT64_C(0)
#define RECORD_KEEP_ALL UINT64_C(1)
/* Exactly these: bit 0 of mask is the oldest pending operation; those past bit 62 are lost. */
#define RECORD_SUBSET(mask) (UINT64_C(1) << 63 | (mask))
/* Any other seed: by chance, and the same for all files of one cut. */

/* The contents of one file after a cut, as a new file in memory. */
struct file *record_log_cut(const struct record_log *log, unsigned file, size_t position,
			    uint64_t seed);

/* The entries of [from, to) and what a cut at `to` makes of them, a line each, to find out why a
 * test failed. Caller frees. */
char *record_log_describe(const struct record_log *log, size_t from, size_t to, uint64_t seed);

#endif
