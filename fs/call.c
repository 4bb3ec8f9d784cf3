/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "fs/call.h"

#include <errno.h>
#include <string.h>

#include "fs/log.h"
#include "fs/receive.h"
#include "fs/session.h"

static void call_main(void *arg)
{
	struct call *c = arg;

	c->run(c);
	if (c->buffer) {
		receive_buffer_put(c->buffer);
		c->worker->kept_bytes -= c->size;
	}
	g_free(c);
}

struct call *call_new(fuse_req_t req, void (*run)(struct call *c), uint64_t node, const char *name)
{
	size_t len = name ? strlen(name) + 1 : 0;
	struct call *c = g_malloc0(sizeof(*c) + len);

	c->worker = worker_self();
	c->req = req;
	c->run = run;
	c->node = node;
	if (name)
		memcpy(c->name, name, len);
	return c;
}

void call_start(struct call *c)
{
	worker_start(c->worker, call_main, c);
}

void call_keep_buffer(struct call *c)
{
	c->buffer = g_steal_pointer(&c->worker->buffer);
	c->worker->kept_bytes += c->size;
}

void call_error(struct call *c, int err)
{
	if (err == EIO)
		log_read_error(tree_image(c->worker->tree), 0, 0, err);
	fuse_reply_err(c->req, err);
}
