/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Stackful coroutines, each pinned to the thread that it began on.
 *
 * A coroutine runs until it yields; nothing else of its loop runs meanwhile, so
 * data of one loop needs no lock between two yields. Never keep errno, or a
 * pointer into a structure that others may change, across a call that may
 * yield. Functions that may yield say so in their comment.
 */
#ifndef IMGFS_IO_CO_H
#define IMGFS_IO_CO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct co;
typedef void co_fn(void *arg);

/* co.c: the coroutine that is running, or NULL outside of any. */
struct co *co_self(void);

/*
 * Starts fn(arg) as a new coroutine of this thread's loop. It runs at once, up
 * to its first yield, and then the caller goes on. Aborts if no stack can be
 * had. May be called inside or outside of a coroutine, on a thread that has a
 * loop.
 */
void co_spawn(co_fn *fn, void *arg);

/* Suspends the running coroutine until somebody calls co_wake on it. */
void co_yield(void);

/*
 * Makes a suspended coroutine ready: it goes on from the loop, never inside
 * this call. Only on the coroutine's own thread (from elsewhere: loop_post).
 */
void co_wake(struct co *co);

/* Lets everything else that is ready run first. Yields. */
void co_relax(void);

/* Suspends the running coroutine for at least this long. Yields. */
void co_sleep_ns(uint64_t nanoseconds);

/*
 * colock.c: waiting for one another, on one loop. All of these are plain data,
 * all zero when unused, and need no destruction.
 */
struct co_queue {
	struct co_waiter *head, **tail;
};

/* Yields until woken; first come, first woken. */
void co_queue_wait(struct co_queue *q);
/* Wakes the one that waits longest; false when nobody waits. */
bool co_queue_wake_one(struct co_queue *q);
void co_queue_wake_all(struct co_queue *q);

struct co_mutex {
	bool held;
	struct co_queue waiters;
};
void co_mutex_lock(struct co_mutex *m); /* may yield */
void co_mutex_unlock(struct co_mutex *m);

/* Fair: a waiting writer goes before readers that come later. */
struct co_rwlock {
	int holders; /* > 0 readers, -1 a writer */
	struct co_queue waiters;
};
void co_rwlock_rdlock(struct co_rwlock *l); /* may yield */
void co_rwlock_wrlock(struct co_rwlock *l); /* may yield */
void co_rwlock_unlock(struct co_rwlock *l);

/*
 * A bounded group: at most `limit` coroutines at a time, and the first error of
 * any of them.
 */
struct co_group {
	unsigned limit, running;
	int error; /* first -errno, 0 while there is none */
	struct co_queue waiters;
};
typedef int co_group_fn(void *arg); /* 0 or -errno */

/* limit >= 1. */
void co_group_init(struct co_group *g, unsigned limit);
/* Yields while the group is full, then starts fn(arg) in a coroutine. */
void co_group_spawn(struct co_group *g, co_group_fn *fn, void *arg);
/* Yields until all have ended; returns the first error and clears it. */
int co_group_wait(struct co_group *g);

#endif
