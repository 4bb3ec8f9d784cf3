/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "fs/signals.h"

#include <glib.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "io/co.h"
#include "io/loop.h"

struct signals {
	void (*leave)(void *arg);
	void *arg;
	int fd;
	struct watch *watch;
	bool done;
	struct co *joiner;
};

static void ending_signals(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGHUP);
}

static void mask(int how)
{
	sigset_t set;

	ending_signals(&set);
	pthread_sigmask(how, &set, NULL);
}

/* What signalfd only showed stays pending, and would kill once it is not blocked. */
static void take(int fd)
{
	struct signalfd_siginfo info;

	while (read(fd, &info, sizeof(info)) > 0)
		;
}

static void signals_main(void *arg)
{
	struct signals *g = arg;

	if (watch_wait(g->watch) == 0) {
		take(g->fd);
		mask(SIG_UNBLOCK);
		g->leave(g->arg);
	}
	g->done = true;
	if (g->joiner)
		co_wake(g->joiner);
}

void signals_block(void)
{
	mask(SIG_BLOCK);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
}

struct signals *signals_watch(void (*leave)(void *arg), void *arg)
{
	struct signals *g = g_new0(struct signals, 1);
	sigset_t set;

	g->leave = leave;
	g->arg = arg;
	ending_signals(&set);
	g->fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	g->watch = g->fd >= 0 ? watch_new(g->fd, POLLIN, false, NULL) : NULL;
	if (!g->watch) {
		if (g->fd >= 0)
			close(g->fd);
		g_free(g);
		return NULL;
	}
	co_spawn(signals_main, g);
	return g;
}

void signals_unwatch(struct signals *g)
{
	if (!g)
		return;
	watch_cancel(g->watch);
	if (!g->done) {
		g->joiner = co_self();
		co_yield();
	}
	watch_free(g->watch);
	close(g->fd);
	g_free(g);
}
