/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The worker pool: one a process, as many threads as processors (made when
 * first needed, ended by pool_shutdown), for work that is long in processor
 * time or that can only block: inflate, hash, zero detection of large buffers,
 * system calls without an asynchronous form.
 */
#ifndef IMGFS_IO_POOL_H
#define IMGFS_IO_POOL_H

#include <stdbool.h>

/* Runs fn(arg) on a worker and yields until it is done; returns what fn
 * returned. fn touches nothing of the loop. Outside of a coroutine it runs fn
 * in place. */
int pool_run(int (*fn)(void *arg), void *arg);

/*
 * The same, but never two jobs of one turn at a time: for work that would only wait for a lock of
 * the kernel's, and keep a processor from other work meanwhile. The turn is the caller's, zeroed,
 * and lives until the jobs are done.
 */
struct pool_turn {
	bool taken;
	struct job *first, **tail; /* those that wait */
};
int pool_run_in_turn(struct pool_turn *turn, int (*fn)(void *arg), void *arg);

/* The same for system calls that may block long: has threads of its own (up to
 * 64), so that a slow disk does not starve the processors' work. */
int pool_run_blocking(int (*fn)(void *arg), void *arg);

/* How many workers pool_run uses. >= 1. */
unsigned pool_width(void);

/* Ends the threads. No work may be under way. Later work starts them again
 * (a child after fork() also begins without threads). */
void pool_shutdown(void);

#endif
