/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "fs/overrun.h"

#include <glib.h>

#include "fs/kernel.h"
#include "fs/resized.h"
#include "fs/session.h"
#include "io/co.h"

/* Long enough for a writer whom the kernel makes wait because so much is to be written. */
#define REFUSE_NS 500000000

struct overrun {
	uint64_t node, size;
	struct overrun *next;
};

static struct overrun *overruns; /* of a writable mount's one loop */

bool overrun_refuses(uint64_t node)
{
	for (struct overrun *o = overruns; o; o = o->next)
		if (o->node == node)
			return true;
	return false;
}

static void overrun_main(void *arg)
{
	struct overrun *o = arg, **p = &overruns;

	kernel_forget_attributes(o->node);
	co_sleep_ns(REFUSE_NS);
	while (*p != o)
		p = &(*p)->next;
	*p = o->next;
	resized_tell_file(o->node, o->size);
	g_free(o);
}

void overrun_note(uint64_t node, uint64_t size)
{
	struct overrun *o;

	if (overrun_refuses(node))
		return;
	o = g_new(struct overrun, 1);
	*o = (struct overrun){node, size, overruns};
	overruns = o;
	worker_start_aside(worker_self(), overrun_main, o);
}
