/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Power cuts: something is done to image files while every write is recorded; then, cut after cut,
 * the files are made as a power cut could have left them, and judged.
 */
#ifndef IMGFS_TESTS_CRASH_H
#define IMGFS_TESTS_CRASH_H

#include "image/image.h"
#include "io/file-record.h"

/* A power cut, whose files are in the working directory. */
struct cut {
	const struct record_log *log;
	size_t position;
	uint64_t seed;
	unsigned number; /* counts the cuts of one plan */
	bool ask_qemu;	 /* this one is judged by qemu-img too */
};

struct plan {
	const char *name;
	/* Makes the files in the working directory, with nothing recorded. 0, or a status. */
	int (*prepare)(void *arg);
	/* Changes them with everything recorded; may set marks in the log. */
	int (*run)(void *arg, struct record_log *log);
	/* Looks at what is left, and may change it. Called for positions that never fall. */
	bool (*judge)(void *arg, const struct cut *cut, GError **error);
	void *arg;
};

struct crash_options {
	unsigned cuts;	   /* of one plan, about; 0: every position, with several seeds each */
	unsigned seeds;	   /* for each position when cuts is 0 */
	unsigned ask_qemu; /* every so many cuts; 0: never */
	const char *only;  /* plans whose name contains this; NULL: all */
	/* One cut alone, whose files are kept: to look into a failure. */
	size_t position; /* SIZE_MAX: not so */
	uint64_t seed;
	bool keep_going; /* past a failure */
	bool silent;	 /* no line for each plan that went well */
	bool quiet;	 /* failures are what is hoped for: they are counted only */
};
/* Fills in what the command line says; ends the program on a mistake. */
void crash_options_parse(struct crash_options *o, int argc, char **argv);

/* The same, for what qemu-img judges too: false, and why is printed, where it is missing. */
bool crash_begin(struct crash_options *o, int argc, char **argv);

struct crash_counts {
	unsigned plans, cuts, lossy, asked, failures;
};
/* Adds to *counts; says on stderr what failed and how to repeat it. */
void crash_run(const struct plan *plan, const struct crash_options *o, struct crash_counts *counts);
/* Prints the totals; the status to exit with. */
int crash_end(const struct crash_counts *counts);

/* ---- what judges share; none is to be called inside a coroutine --- */

int run_in_loop(int (*fn)(void *arg), void *arg);
/* sh -c in the working directory; false with what it printed in *error. */
bool shell(GError **error, const char *format, ...) G_GNUC_PRINTF(2, 3);
bool have_qemu(void);

struct disk {
	uint64_t size;
	uint8_t *bytes;
};
void disk_clear(struct disk *d);
/* The whole disk, or a snapshot of it. Read-only. */
bool disk_read(const char *name, const char *snapshot, struct disk *d, GError **error);
/* Same size and bytes? *where: the first that differs. */
bool disk_equal(const struct disk *a, const struct disk *b, uint64_t *where);
/* Is what disk_read gives equal to a? `when` is for the sentence. */
bool disk_same(const struct disk *a, const char *name, const char *snapshot, const char *when,
	       GError **error);
/* Names of the snapshots, NULL-terminated. NULL and *error. */
char **disk_snapshots(const char *name, GError **error);

/* At worst leaks: no corruptions, unless the image says itself that it is dirty. */
bool judge_check(const char *name, GError **error);
/* check -r all leaves nothing to be found. */
bool judge_repair(const char *name, GError **error);
/* Every enabled bitmap that is not in use tells all that changed since `before`; *trusted: how many
 * of these there are. */
bool judge_bitmaps(const char *name, const struct disk *before, const struct disk *now,
		   unsigned *trusted, GError **error);
/* The same by qemu-img, of a copy. */
bool judge_by_qemu(const char *name, GError **error);

#endif
