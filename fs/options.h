/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The command line of imgfs, also in the forms that mount(8) and its helpers use. */
#ifndef IMGFS_FS_OPTIONS_H
#define IMGFS_FS_OPTIONS_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define MOUNT_MAX_THREADS 16

struct mount_options {
	char *image, *mountpoint;
	/* Switches: */
	bool foreground, debug, single, help, version;
	bool helper; /* called as mount.imgfs or mount.fuse.imgfs */
	bool fake;   /* helper's -f: do everything but mount */
	bool sloppy; /* helper's -s: unknown words are ignored */
	char *pidfile;
	/* Words of -o: */
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
