/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * control/hold: while it is open, the image's files stay as they are, so that its owner may read
 * them although the mount writes them: imgtool's info, map and check do. What is read is "held", or
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
#define TICK	      100000000u /* ns */
#define NS_PER_SECOND UINT64_C(1000000000)

struct hold {
	struct worker *worker;
	struct image_hold *image; /* NULL: ended */
	uint64_t until;		  /* loop_now */
};

/* Of a writable mount's one loop. */
static GPtrArray *holds;
static bool no_more;

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

static void begin(struct hold *h)
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

int control_hold_opened(struct tree *t, struct control_open *o, GError **error)
{
	struct hold *h;

	/* Nothing changes in a read-only mount. */
	if (!tree_is_writable(t))
		return 0;
	/* What programs have written so far is to be seen. */
	kernel_settle();
	h = g_new0(struct hold, 1);
	h->worker = worker_self();
	/* Writes that wait must not keep the close from coming. */
	worker_lift_limit(h->worker, true);
	h->image = no_more ? NULL : image_hold(tree_image(t), error);
	if (h->image) {
		begin(h);
		o->data = h;
		return 0;
	}
	worker_lift_limit(h->worker, false);
	g_free(h);
	return no_more ? control_refuse(error, ESHUTDOWN, "the mount ends")
		       : -control_errno(*error);
}

int control_hold_show(struct tree *t, struct control_open *o, GString *out, GError **error)
{
	const struct hold *h = o->data;

	if (tree_is_writable(t) && !(h && h->image))
		return control_refuse(error, ETIMEDOUT,
				      "the image was held for longer than %d seconds, or the mount "
				      "ends: it may have changed",
				      HOLD_SECONDS);
	g_string_append(out, "held\n");
	return 0;
}

void control_hold_end(struct tree *t, struct control_open *o)
{
	struct hold *h = o->data;

	if (h)
		end(h);
	o->data = NULL;
	g_free(h);
}

void control_hold_end_all(void)
{
	no_more = true;
	while (holds)
		end(g_ptr_array_index(holds, holds->len - 1));
}
