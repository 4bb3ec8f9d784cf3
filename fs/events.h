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
 * Tells all readers of an event: {"event": NAME, "time": SECONDS, KEY: VALUE, ...}. NULL for a
 * string leaves its row out.
 */
struct event_row {
	const char *key, *string;
	uint64_t number; /* with key, when string is NULL and is_number is set */
	bool is_number;
};
#define EVENT_STRING(key, value)                                                                   \
	{                                                                                          \
		(key), (value), 0, false                                                           \
	}
#define EVENT_NUMBER(key, value)                                                                   \
	{                                                                                          \
		(key), NULL, (value), true                                                         \
	}
#define events_tell(name, ...)                                                                     \
	events_tell_rows(name, (const struct event_row[]){__VA_ARGS__, {NULL, NULL, 0, false}})
void events_tell_rows(const char *name, const struct event_row *rows);

struct events_reader *events_open(void);
/* Answers the reads that wait. */
void events_close(struct events_reader *r);
/*
 * Answers req with whole lines, at least a part of one. When there is none it waits for an event,
 * or answers with EAGAIN or the end of the file. After the unmount event: the end of the file.
 */
enum events_none { EVENTS_WAIT, EVENTS_EAGAIN, EVENTS_END };
void events_reply_read(struct events_reader *r, fuse_req_t req, size_t size, enum events_none none);
/* Answers a poll; ph (taken over) may be NULL. */
void events_reply_poll(struct events_reader *r, fuse_req_t req, struct fuse_pollhandle *ph);

/* Tells of the unmount and answers everybody who waits; afterwards no read waits. */
void events_end(void);
/* Forgets all (end of process, after every reader was closed or its mount is gone). */
void events_clear(void);

#endif
