/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The signals that end a mount: SIGTERM, SIGINT, SIGHUP. */
#ifndef IMGFS_FS_SIGNALS_H
#define IMGFS_FS_SIGNALS_H

/* Before the first thread: the signals wait for signals_watch, what else would kill is ignored. */
void signals_block(void);

struct signals;

/*
 * At the first signal calls leave(arg) in a coroutine of this thread's loop. A second one kills:
 * the way out of a mount whose last requests hang. NULL (out of descriptors): signals do nothing.
 */
struct signals *signals_watch(void (*leave)(void *arg), void *arg);
/* Waits (yields) until a leave() that has begun is over. */
void signals_unwatch(struct signals *g);

#endif
