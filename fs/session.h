/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The mount from open to unmount: loops that take requests off /dev/fuse. Each
 * loop is a thread with an open image and a tree of its own; a request is
 * answered by a coroutine of the loop that took it.
 */
#ifndef IMGFS_FS_SESSION_H
#define IMGFS_FS_SESSION_H

#include <stdbool.h>

#include "fs/fuse.h"
#include "fs/options.h"
#include "fs/tree.h"

struct session;

/* One loop's part. */
struct worker {
	struct session *session;
	unsigned number;
	struct tree *tree;
	/* Private to session.c: */
	struct loop *loop;
	GThread *thread;
	struct image *img;
	struct gate *gate;
	struct watch *watch;
	struct co *receiver; /* waits for in_flight to fall; NULL: does not */
	unsigned in_flight, aside, with_kernel;
	unsigned unlimited; /* calls of worker_lift_limit that stand */
	bool serving;	    /* a stop will be posted; session.lock */
	bool stop;
	size_t kept_bytes; /* of the writes that are in flight */
	void *buffer;	   /* of the request that is received next; taken by call_keep_buffer */
};

/*
 * Opens, mounts, serves until unmounted or told by a signal, and cleans up.
 * Reports by daemonize_ready or daemonize_failed; returns the exit status.
 */
int session_main(const struct mount_options *options);

/* The calling thread's; only in requests. */
struct worker *worker_self(void);
/* Starts fn(arg) as a coroutine that counts as a request in flight. */
void worker_start(struct worker *w, void (*fn)(void *arg), void *arg);
/* The same for what may wait for other requests: however many there are, more are received. */
void worker_start_aside(struct worker *w, void (*fn)(void *arg), void *arg);
/* Receives what the kernel has queued, and begins to answer it. Yields. */
void worker_receive_all(struct worker *w);
/*
 * on: requests are received however many are in flight, until as many calls with off came. For
 * somebody who makes writes wait for a request that is still to come. Does not yield.
 */
void worker_lift_limit(struct worker *w, bool on);
/*
 * Between the two a request waits for the kernel, which may need others answered before it goes on:
 * there is no limit then, and even after the mount was told to end, requests are taken.
 */
void worker_waits_for_kernel(struct worker *w);
void worker_goes_on(struct worker *w);
/* INIT came: called by the handler; the session goes on when it was answered. */
void session_initialised(struct session *s);
/* What the kernel has sent could not be written. Once the mount has been told to end nobody else
 * learns of it: then that is its exit status. */
void session_lost_write(struct session *s);
/* May the image be written to? */
bool session_is_writable(const struct session *s);

#endif
