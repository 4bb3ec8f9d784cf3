/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What control/status tells: counters, the job that runs, the last error. Of all loops; every
 * function may be called from any thread, status_count and status_show from a worker's.
 */
#ifndef IMGFS_FS_STATUS_H
#define IMGFS_FS_STATUS_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

struct tree;

/* mode: "ro", "rw", "overlay" or "scratch". The files' names become absolute; overlay: NULL if
 * there is none. */
void status_begin(const char *mode, const char *image, const char *overlay, const char *mountpoint);
void status_clear(void);

/* Requests that were answered, for the mount's counters. */
enum status_counter { STATUS_READ, STATUS_WRITE, STATUS_FLUSH, STATUS_COUNTERS };
/* bytes: how many came or went. Also notes what the metadata cache of t counted. */
void status_count(struct tree *t, enum status_counter what, uint64_t bytes);

/* Something failed with err (positive): stands as the last error, and is an event unless this
 * sentence was one before. source: the file that was written to, "read", "write" ... */
void status_error(int err, const char *source, const char *sentence);

/*
 * A job: something long, one at a time ("commit"). Its begin, steps (at most ten a second) and end
 * are events. status_job_begin: false if one runs already.
 */
enum status_job_end { STATUS_JOB_DONE, STATUS_JOB_FAILED, STATUS_JOB_CANCELLED };
bool status_job_begin(const char *name);
void status_job_progress(uint64_t done, uint64_t total);
/* sentence: why it failed; NULL else. */
void status_job_end(enum status_job_end how, const char *sentence);

/* What is said to who wants to change something in a read-only mount. */
#define STATUS_READ_ONLY "the mount is read-only: mount with -o rw to change the image"

/* The text of control/status. */
void status_show(struct tree *t, GString *out);

#endif
