/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * control/events: each open file gets the events from its opening on, one JSON object a line. A
 * read waits for the next event without a coroutine, so that readers that wait hold up nothing:
 * the request is kept, and answered by whoever makes the event. From any thread.
 */
#ifndef IMGFS_FS_EVENTS_H
#define IMGFS_FS_EVENTS_H

#include <glib.h>
#include <stdbool.h>

#include "fs/fuse.h"

#define EVENTS_QUEUE_MAX 256 /* events that a slow reader may be behind */

struct events_reader;

/*
 * Tells all readers of an event: {"event": NAME, "time": SECONDS, KEY: VALUE, ...}. The arguments
 * after name are pairs of const char *, ended by NULL; a pair with the value NULL is left out.
 */
void events_tell(const char *name, ...) G_GNUC_NULL_TERMINATED;
/* The same with two numbers in front of the pairs: how far a job is. */
void events_tell_progress(const char *name, const char *job, uint64_t done, uint64_t total);

struct events_reader *events_open(void);
/* Answers the reads that wait. */
void events_close(struct events_reader *r);
/*
 * Answers req with whole lines, at least a part of one; now, or when there is an event. wait false:
 * EAGAIN instead of later. After the unmount event: the end of the file.
 */
void events_reply_read(struct events_reader *r, fuse_req_t req, size_t size, bool wait);
/* Answers a poll; ph (taken over) may be NULL. */
void events_reply_poll(struct events_reader *r, fuse_req_t req, struct fuse_pollhandle *ph);

/* Tells of the unmount and answers everybody who waits; afterwards no read waits. */
void events_end(void);
/* Forgets all (end of process, after every reader was closed or its mount is gone). */
void events_clear(void);

#endif
