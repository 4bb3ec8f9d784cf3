/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Messages of a running mount: to stderr in the foreground, to syslog else. From any thread. */
#ifndef IMGFS_FS_LOG_H
#define IMGFS_FS_LOG_H

#include <glib.h>
#include <stdint.h>

struct image;

void log_message(const char *format, ...) G_GNUC_PRINTF(1, 2);
/*
 * A read of the disk failed with err (positive): says which image, where and why,
 * once for each cause, as the image recorded it. A reader that tries again and again does not
 * fill the log.
 */
void log_read_error(struct image *img, uint64_t offset, size_t len, int err);
/* The same when a change of the disk failed. doing: "writing", "flushing" ... */
void log_change_error(struct image *img, const char *doing, uint64_t offset, uint64_t len, int err);
/* Forgets what was said (end of process). */
void log_clear(void);

#endif
