/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* -p, SIGUSR1, and ending on SIGINT without leaving half a target. */
#include <signal.h>
#include <stdio.h>

#include "tools/tool.h"

static volatile sig_atomic_t asked, ended_by;

static void on_signal(int sig)
{
	if (sig == SIGUSR1)
		asked = 1;
	else
		ended_by = sig;
}

void tool_catch_signals(void)
{
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

	sigaction(SIGUSR1, &sa, NULL);
	/* Only the first one is caught: a second ends a command that hangs. */
	sa.sa_flags |= SA_RESETHAND;
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
}

void tool_let_signals_end(void)
{
	signal(SIGINT, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	tool_die_of_signal();
}

bool tool_interrupted(void)
{
	return ended_by != 0;
}

void tool_die_of_signal(void)
{
	if (!ended_by)
		return;
	signal(ended_by, SIG_DFL);
	raise(ended_by);
}

static double percent(uint64_t done, uint64_t total)
{
	return total ? 100.0 * (double)done / (double)total : 100.0;
}

void progress_begin(struct progress *p, bool shown, double step)
{
	*p = (struct progress){.shown = shown, .step = step};
	if (shown) {
		printf("    (%3.2f/100%%)\r", 0.0);
		fflush(stdout);
	}
}

void progress_update(struct progress *p, uint64_t done, uint64_t total)
{
	double now = percent(done, total);

	if (p->shown && (now - p->last >= p->step || (now >= 100 && p->last < 100))) {
		printf("    (%3.2f/100%%)\r", now);
		fflush(stdout);
		p->last = now;
	}
	if (asked) {
		asked = 0;
		if (!p->shown)
			fprintf(stderr, "    (%3.2f/100%%)\n", now);
	}
}

void progress_end(struct progress *p)
{
	if (p->shown)
		printf("\n");
	p->shown = false;
}

void tool_progressed(void *arg, uint64_t done, uint64_t total)
{
	progress_update(arg, done, total);
}

bool tool_cancelled(void *arg)
{
	(void)arg;
	return tool_interrupted();
}
