/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image/throttle.h"

#include <glib.h>

#include "io/co.h"
#include "io/loop.h"

/* Of one sleep: a low rate must not keep a command from ending when it is told to. */
#define NAP_NS 100000000u

bool throttle_wait(struct throttle *t, uint64_t bytes, bool (*stop)(void *arg), void *arg)
{
	uint64_t now;

	if (!t->rate)
		return true;
	while ((now = loop_now()) < t->next) {
		if (stop && stop(arg))
			return false;
		co_sleep_ns(MIN(t->next - now, NAP_NS));
	}
	t->next = MAX(t->next, now > THROTTLE_BURST_NS ? now - THROTTLE_BURST_NS : 0);
	/* In floating point: bytes times 10^9 may pass 64 bits. */
	t->next += (uint64_t)((double)bytes / (double)t->rate * 1e9);
	return true;
}
