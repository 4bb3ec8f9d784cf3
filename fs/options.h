/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The command line of imgfs, also in the forms that mount(8) and its helpers use. */
#ifndef IMGFS_FS_OPTIONS_H
#define IMGFS_FS_OPTIONS_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "image/image.h"

#define MOUNT_MAX_THREADS    16
#define MOUNT_SCRATCH_MEMORY (UINT64_C(256) << 20)

/* Where writes go. */
enum mount_mode {
	MODE_RO,      /* nowhere: no byte of the image changes */
	MODE_RW,      /* to the image */
	MODE_OVERLAY, /* to a qcow2 file above it, which stays */
	MODE_SCRATCH, /* to what is gone at the end */
};
/* "ro", "rw", "overlay", "scratch" */
const char *mount_mode_name(enum mount_mode mode);

struct mount_options {
	char *image, *mountpoint;
	/* Switches: */
	bool foreground, debug, single, help, version;
	bool helper; /* called as mount.imgfs or mount.fuse.imgfs */
	bool fake;   /* helper's -f: do everything but mount */
	bool sloppy; /* helper's -s: unknown words are ignored */
	char *pidfile;
	enum mount_mode mode;
	bool rw_by_mount; /* read-only, although mount(8) said rw, as it always does */
	/* Words of -o: */
	bool ro, rw; /* the last one of them */
	bool writable;
	char *overlay; /* name of the qcow2 file */
	bool scratch;
	uint64_t scratch_memory;  /* bytes of it that stay in memory */
	int discard;		  /* enum discard_mode; DISCARD_DEFAULT: not given */
	int detect_zeroes, cache; /* enum detect_zeroes, enum cache_mode; -1: not given */
	bool sync;		  /* every write is durable when it returns */
	bool allow_other, allow_root, auto_unmount;
	char *fsname, *subtype, *format, *snapshot;
	uint64_t uid, gid; /* UINT64_MAX: not given */
	uint64_t umask;
	uint64_t max_threads;	     /* 0: as many as processors, at most 4 */
	uint64_t cache_size;	     /* bytes of metadata cache, all loops together; 0: default */
	GPtrArray *allow_references; /* of char *: DIR or "any" */
	GString *kernel;	     /* ",nosuid,noexec": what the kernel is to be told */
};

/*
 * Fills *o (which the caller clears with mount_options_clear in any case). false and
 * *error: one sentence. With help or version set, the rest was not judged.
 */
bool mount_options_parse(struct mount_options *o, int argc, char **argv, GError **error);
void mount_options_clear(struct mount_options *o);
/* Prints what every option does. */
void mount_options_help(FILE *out);

#endif
