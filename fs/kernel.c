/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "fs/kernel.h"

#include <errno.h>
#include <string.h>

#include "fs/handles.h"
#include "fs/log.h"
#include "fs/session.h"
#include "io/co.h"
#include "io/loop.h"
#include "io/pool.h"

static struct fuse_session *session;
static GArray *known; /* of uint64_t: nodes of disk.raw and partitions */

void kernel_begin(struct fuse_session *fuse)
{
	session = fuse;
	known = g_array_new(FALSE, FALSE, sizeof(uint64_t));
}

void kernel_end(void)
{
	session = NULL;
	g_clear_pointer(&known, g_array_unref);
}

void kernel_knows(uint64_t node)
{
	for (guint i = 0; known && i < known->len; i++)
		if (g_array_index(known, uint64_t, i) == node)
			return;
	if (known)
		g_array_append_val(known, node);
}

/* ---- notifications, on a thread that may wait ---- */

struct notice {
	uint64_t node;
	off_t offset, len;
	const char *name;
};

static int send_inval(void *arg)
{
	const struct notice *n = arg;

	return fuse_lowlevel_notify_inval_inode(session, n->node, n->offset, n->len);
}

static int send_name(void *arg)
{
	const struct notice *n = arg;

	return fuse_lowlevel_notify_inval_entry(session, n->node, n->name, strlen(n->name));
}

static void log_failure(int ret)
{
	/* ENOENT: the kernel has forgotten it, so there is nothing to drop. */
	if (ret && ret != -ENOENT && ret != -ENODEV && ret != -ENOTCONN)
		log_message("telling the kernel of a change: %s", g_strerror(-ret));
}

static void notify(int (*send)(void *arg), struct notice *n)
{
	struct worker *w = worker_self();
	int ret;

	if (!session)
		return;
	worker_waits_for_kernel(w);
	ret = pool_run_blocking(send, n);
	worker_goes_on(w);
	log_failure(ret);
}

/* ---- writes that the kernel sends from its cache ---- */

static GQueue writes = G_QUEUE_INIT; /* of struct kernel_write, in the order of their coming */
static uint64_t writes_begun;
static struct co_queue writes_ended;

void kernel_write_begin(struct kernel_write *k)
{
	*k = (struct kernel_write){.link.data = k, .number = ++writes_begun};
	g_queue_push_tail_link(&writes, &k->link);
}

void kernel_write_end(struct kernel_write *k)
{
	g_queue_unlink(&writes, &k->link);
	co_queue_wake_all(&writes_ended);
}

static void wait_for_writes(void)
{
	uint64_t last = writes_begun;

	while (writes.head && ((struct kernel_write *)writes.head->data)->number <= last)
		co_queue_wait(&writes_ended);
}

/*
 * Until Linux 6.15 a page counts as written, and is given up without waiting, as soon as its write
 * is queued: these writes are to be done too.
 */
static void drop(uint64_t node, uint64_t offset, uint64_t len)
{
	/* A length of 0 is all the rest for the kernel. */
	struct notice n = {.node = node,
			   .offset = (off_t)offset,
			   .len = len > INT64_MAX - offset ? 0 : (off_t)len};

	if (!len || !session)
		return;
	notify(send_inval, &n);
	worker_receive_all(worker_self());
	wait_for_writes();
}

/* ---- what is asked for ---- */

void kernel_settle_range(uint64_t node, uint64_t offset, uint64_t len)
{
	drop(node, offset, len);
}

/* A copy: others may become known while one is dealt with. */
static GArray *known_now(void)
{
	GArray *copy = g_array_new(FALSE, FALSE, sizeof(uint64_t));

	if (known)
		g_array_append_vals(copy, known->data, known->len);
	return copy;
}

void kernel_settle(void)
{
	g_autoptr(GArray) nodes = known_now();

	for (guint i = 0; i < nodes->len; i++) {
		uint64_t node = g_array_index(nodes, uint64_t, i);

		/* The last close has written everything, a mapping's pages too. */
		if (handles_is_written(node))
			drop(node, 0, UINT64_MAX);
	}
}

void kernel_changed(struct tree *t)
{
	g_autoptr(GArray) nodes = known_now();

	for (guint i = 0; i < nodes->len; i++)
		drop(g_array_index(nodes, uint64_t, i), 0, UINT64_MAX);
}

void kernel_disk_changed(unsigned disk)
{
	g_autoptr(GArray) nodes = known_now();

	for (guint i = 0; i < nodes->len; i++) {
		uint64_t node = g_array_index(nodes, uint64_t, i);

		if (node_disk(node) == disk)
			drop(node, 0, UINT64_MAX);
	}
}

/* ---- attributes ---- */

/*
 * In nanoseconds: one call for many writes. Once told, the kernel asks before the next write, and
 * the writer waits for the answer behind all writes that are on their way; so a stream of them is
 * given more time.
 */
#define ATTR_DELAY     100000000
#define ATTR_DELAY_MAX 1000000000

static bool attributes_old;	/* the kernel may have some */
static uint64_t changed_at;	/* loop_now of the last change of them */
static bool attributes_planned; /* a coroutine will see to them */

void kernel_forget_attributes(uint64_t node)
{
	struct notice n = {.node = node, .offset = -1}; /* no pages */

	/* Nothing that this waits for needs a request to be answered: the limits stay. */
	if (session)
		log_failure(pool_run_blocking(send_inval, &n));
}

static void forget_attributes(void)
{
	g_autoptr(GArray) nodes = known_now();

	attributes_old = false;
	for (guint i = 0; i < nodes->len; i++)
		kernel_forget_attributes(g_array_index(nodes, uint64_t, i));
}

void kernel_attributes_now(void)
{
	if (attributes_old)
		forget_attributes();
}

static void forget_later(void *arg)
{
	uint64_t began = loop_now(), now;

	do {
		co_sleep_ns(ATTR_DELAY);
		now = loop_now();
	} while (now - changed_at < ATTR_DELAY && now - began < ATTR_DELAY_MAX);
	attributes_planned = false;
	kernel_attributes_now();
}

void kernel_attributes_later(void)
{
	if (!session)
		return;
	attributes_old = true;
	changed_at = loop_now();
	if (attributes_planned)
		return;
	attributes_planned = true;
	worker_start_aside(worker_self(), forget_later, NULL);
}

void kernel_name_changed(uint64_t dir, const char *name)
{
	struct notice n = {.node = dir, .name = name};

	notify(send_name, &n);
	n = (struct notice){.node = dir, .offset = 0, .len = 0};
	notify(send_inval, &n);
}
