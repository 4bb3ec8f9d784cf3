/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A file that fails when it is told to: for tests of what happens after an I/O
 * error, on a full disk or when the power goes. Not used by the programs.
 */
#ifndef IMGFS_IO_FILE_FAULT_H
#define IMGFS_IO_FILE_FAULT_H

#include "io/file.h"

enum fault_op {
	FAULT_READ,
	FAULT_WRITE, /* writes and copies into the file */
	FAULT_FLUSH,
	FAULT_TRUNCATE,
	FAULT_CHANGE, /* allocate, zero, punch */
	FAULT_OPS,
};

/* Passes everything on to inner, of which it takes a reference of its own. */
struct file *file_new_fault(struct file *inner);

/*
 * The nth operation of this kind from now on (1: the next) fails with `error`, a
 * positive errno, and does nothing; with `forever`, so do all later ones. nth == 0
 * takes it back.
 */
void file_fault_set(struct file *f, enum fault_op op, uint64_t nth, int error, bool forever);

/* How many operations of this kind came, the failed ones included. */
uint64_t file_fault_count(const struct file *f, enum fault_op op);

/*
 * One plan for several files, so that the nth operation of a whole command fails, whatever it
 * concerns.
 */
struct fault_plan {
	unsigned kinds; /* 1 << enum fault_op: those that are counted and may fail */
	uint64_t nth;	/* as above */
	int error;
	bool forever;
	uint64_t count; /* of operations of these kinds that came */
	uint64_t failed;
	unsigned unsynced; /* files with a change that no flush has made durable since */
};
/* f takes part from now on. The plan outlives the file. */
void file_fault_follow(struct file *f, struct fault_plan *plan);

/* From now on everything that changes the file fails with EIO and does nothing, as
 * after a power cut. */
void file_fault_cut(struct file *f);

/* Lets other coroutines run before each operation, so that tests meet the orders
 * that a slow disk makes possible. */
void file_fault_yield(struct file *f, bool yield);

#endif
