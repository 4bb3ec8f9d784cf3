/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * control/hold: from its first read until it is closed, the image's files stay as they are, so that
 * its owner may read them although the mount writes them: imgtool's info, map and check do. It is
 * not opening that begins it, since a shell opens a file under one number, makes another of it and
 * closes the first. What is read is "held", or
 * an error when the mount has ended the hold by itself, as it does after a minute: a program that
 * was stopped must not stop a disk forever, and one that writes its output to the very disk that it
 * holds is let go.
 */
#include "config.h"

#include <errno.h>

#include "fs/control.h"
#include "fs/kernel.h"
#include "fs/session.h"
#include "io/loop.h"

#define HOLD_SECONDS  60
#define JOIN_SECONDS  30	 /* so much must be left of a hold that another one joins */
#define TICK	      100000000u /* ns */
#define NS_PER_SECOND UINT64_C(1000000000)

/*
 * Those that hold together: whoever comes while the image is held already does not wait behind a
 * writer who waits for just that. They end together, or writers might wait for ever.
 */
struct hold {
	struct worker *worker;
	struct image_hold *image; /* NULL: ended */
	uint64_t until;		  /* loop_now */
	unsigned holders;	  /* open files */
};

/* Of a writable mount's one loop. */
static GPtrArray *holds;
static bool no_more;
/* Stands for the hold of an open file that waits for one; whoever ends it waits for that. */
static struct hold beginning;
static struct co_queue begun;

static void end(struct hold *h)
{
	if (!h->image)
		return;
	image_hold_end(h->image);
	h->image = NULL;
	worker_lift_limit(h->worker, false);
	g_ptr_array_remove_fast(holds, h);
	if (!holds->len)
		g_clear_pointer(&holds, g_ptr_array_unref);
}

/* Ends those whose time is over, as long as there are any. */
static void tick(void *arg)
{
	while (holds) {
		uint64_t now = loop_now();

		for (guint i = holds->len; holds && i-- > 0;) {
			struct hold *h = g_ptr_array_index(holds, i);

			if (now >= h->until)
				end(h);
		}
		co_sleep_ns(TICK);
	}
}

static void enter(struct hold *h)
{
	h->until = loop_now() + HOLD_SECONDS * NS_PER_SECOND;
	if (holds) {
		g_ptr_array_add(holds, h);
		return;
	}
	holds = g_ptr_array_new();
	g_ptr_array_add(holds, h);
	worker_start_aside(h->worker, tick, NULL);
}

/* One that stands and has some time to go; NULL: none. */
static struct hold *find_standing(void)
{
	uint64_t least = loop_now() + JOIN_SECONDS * NS_PER_SECOND;

	for (guint i = 0; holds && i < holds->len; i++) {
		struct hold *h = g_ptr_array_index(holds, i);

		if (h->until >= least)
			return h;
	}
	return NULL;
}

/* NULL and *error. */
static struct hold *begin(struct tree *t, GError **error)
{
	struct hold *h;

	/* What programs have written so far is to be seen. */
	kernel_settle();
	h = g_new0(struct hold, 1);
	h->worker = worker_self();
	/* Writes that wait must not keep the close from coming. */
	worker_lift_limit(h->worker, true);
	if (no_more)
		control_refuse(error, ESHUTDOWN, "the mount ends");
	else
		h->image = image_hold(tree_image(t), error);
	if (h->image) {
		enter(h);
		return h;
	}
	worker_lift_limit(h->worker, false);
	g_free(h);
	return NULL;
}

static int take(struct tree *t, struct control_open *o, GError **error)
{
	struct hold *h = find_standing();

	if (!h) {
		o->data = &beginning;
		h = begin(t, error);
		o->data = NULL;
		co_queue_wake_all(&begun);
	}
	if (!h)
		return no_more ? -ESHUTDOWN : -control_errno(*error);
	h->holders++;
	o->data = h;
	return 0;
}

static int check(const struct control_open *o, GError **error)
{
	const struct hold *h = o->data;

	return h->image ? 0
			: control_refuse(error, ETIMEDOUT,
					 "the image was held for longer than %d seconds, or the "
					 "mount ends: it may have changed",
					 HOLD_SECONDS);
}

static void wait_until_begun(const struct control_open *o)
{
	while (o->data == &beginning)
		co_queue_wait(&begun);
}

int control_hold_show(struct tree *t, struct control_open *o, GString *out, GError **error)
{
	int ret = 0;

	/* Nothing changes in a read-only mount. */
	if (tree_is_writable(t)) {
		wait_until_begun(o);
		ret = o->data ? check(o, error) : take(t, o, error);
	}
	if (!ret)
		g_string_append(out, "held\n");
	return ret;
}

void control_hold_end(struct tree *t, struct control_open *o)
{
	struct hold *h;

	wait_until_begun(o);
	h = o->data;
	o->data = NULL;
	if (h && --h->holders == 0) {
		end(h);
		g_free(h);
	}
}

void control_hold_end_all(void)
{
	no_more = true;
	while (holds)
		end(g_ptr_array_index(holds, holds->len - 1));
}
