/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the loop offers to the other parts of io/: raw event sources, posts without
 * allocation, and the engines that hang on it. */
#ifndef IMGFS_IO_LOOP_INTERNAL_H
#define IMGFS_IO_LOOP_INTERNAL_H

#include "io/loop.h"

/* A descriptor in the loop's epoll set. `ready` runs outside of any coroutine and
 * does no more than to collect results and wake coroutines: another event of the
 * same round may point to what it would free. */
struct loop_source {
	void (*ready)(struct loop_source *source, uint32_t epoll_events);
};
/* 0 or -errno. */
int loop_add_source(struct loop *loop, int fd, uint32_t epoll_events, struct loop_source *source);
void loop_remove_source(struct loop *loop, int fd);

/* loop_post with the caller's memory, which is his again when fn is called. */
struct loop_call {
	struct loop_call *next;
	void (*fn)(void *arg);
	void *arg;
};
void loop_post_call(struct loop *loop, struct loop_call *call);

/* An engine of the loop: made when first used, ended with the loop. */
struct loop_engine {
	/* Hands gathered requests to the kernel and collects what is done; called
	 * after coroutines ran. True if the kernel took nothing and nothing under way
	 * will wake the loop: it comes back soon. */
	bool (*submit)(struct loop_engine *engine);
	void (*free)(struct loop_engine *engine);
};
enum { LOOP_ENGINES = 2 };
/* Where the engine number `slot` is kept; NULL inside until somebody sets it. */
struct loop_engine **loop_engine_slot(struct loop *loop, unsigned slot);

#endif
