/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The event loop: one a thread, owner of every coroutine, timer, watched file
 * descriptor and AIO request that began on that thread.
 */
#ifndef IMGFS_IO_LOOP_H
#define IMGFS_IO_LOOP_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

struct loop;

/*
 * Makes a loop for the calling thread (at most one a thread) and makes it the
 * thread's own. NULL and *error when the kernel refuses epoll or eventfd.
 */
struct loop *loop_new(GError **error);
/* All its coroutines must have ended. NULL is allowed. */
void loop_free(struct loop *loop);
/* The calling thread's loop, or NULL. */
struct loop *loop_self(void);

/* Runs fn(arg) in a coroutine, and the loop until that returns. Returns what fn
 * returned. Not to be nested. */
int loop_run(struct loop *loop, int (*fn)(void *arg), void *arg);

/* From any thread: has fn(arg) called on the loop's thread, outside of any
 * coroutine, soon. fn must not block. */
void loop_post(struct loop *loop, void (*fn)(void *arg), void *arg);

/* Monotonic time in nanoseconds. */
uint64_t loop_now(void);

/*
 * Waits for a file descriptor. A watch stays registered (one epoll_ctl for many
 * waits). `exclusive`: of several loops that watch the same descriptor, wake
 * one.
 */
struct watch;
/* events: POLLIN and/or POLLOUT. NULL and *error if epoll refuses fd. */
struct watch *watch_new(int fd, short events, bool exclusive, GError **error);
/* Yields until ready. 0, or -ECANCELED after watch_cancel. */
int watch_wait(struct watch *w);
/* Makes the coroutine that waits, and every later watch_wait, return -ECANCELED. */
void watch_cancel(struct watch *w);
void watch_free(struct watch *w);

#endif
