/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Waiting for a descriptor. It stays in the epoll set between waits. Only if it
 * is ready while nobody waits is it taken out, because the loop would spin
 * otherwise, and then the next wait puts it back.
 */
#include <config.h>

#include "io/co.h"
#include "io/loop-internal.h"

#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>

struct watch {
	struct loop_source source;
	struct loop *loop;
	int fd;
	uint32_t events;
	bool registered;
	bool cancelled;
	struct co *waiter;
};

static void watch_ready(struct loop_source *source, uint32_t events)
{
	struct watch *w = (struct watch *)source;

	if (w->waiter) {
		struct co *waiter = w->waiter;

		w->waiter = NULL;
		co_wake(waiter);
	} else if (w->registered) {
		loop_remove_source(w->loop, w->fd);
		w->registered = false;
	}
}

static int watch_register(struct watch *w)
{
	int ret = loop_add_source(w->loop, w->fd, w->events, &w->source);

	w->registered = ret == 0;
	return ret;
}

struct watch *watch_new(int fd, short events, bool exclusive, GError **error)
{
	struct watch *w = g_new0(struct watch, 1);

	w->loop = loop_self();
	g_assert(w->loop);
	w->source.ready = watch_ready;
	w->fd = fd;
	w->events = ((events & POLLIN) ? EPOLLIN : 0) | ((events & POLLOUT) ? EPOLLOUT : 0) |
		    (exclusive ? EPOLLEXCLUSIVE : 0);

	int ret = watch_register(w);
	if (ret < 0) {
		g_set_error(error, G_FILE_ERROR, g_file_error_from_errno(-ret),
			    "Could not watch descriptor %d: %s", fd, g_strerror(-ret));
		g_free(w);
		return NULL;
	}
	return w;
}

int watch_wait(struct watch *w)
{
	g_assert(!w->waiter && co_self());
	if (w->cancelled)
		return -ECANCELED;
	if (!w->registered) {
		int ret = watch_register(w);

		if (ret < 0)
			return ret;
	}
	w->waiter = co_self();
	co_yield();
	return w->cancelled ? -ECANCELED : 0;
}

void watch_cancel(struct watch *w)
{
	w->cancelled = true;
	if (w->waiter) {
		struct co *waiter = w->waiter;

		w->waiter = NULL;
		co_wake(waiter);
	}
}

void watch_free(struct watch *w)
{
	if (!w)
		return;
	g_assert(!w->waiter);
	if (w->registered)
		loop_remove_source(w->loop, w->fd);
	g_free(w);
}
