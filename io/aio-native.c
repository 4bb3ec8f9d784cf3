/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Linux AIO through libaio: asynchronous with O_DIRECT only, so it is never chosen
 * without being asked for. Requests gather in a list while coroutines run;
 * completions count up an eventfd in the loop's epoll set.
 */
#include <config.h>

#include "io/aio.h"

#include <errno.h>

#ifdef HAVE_LIBAIO

#include "io/co.h"
#include "io/loop-internal.h"

#include <libaio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* The whole machine has 65,536 of these by default (fs.aio-max-nr). */
#define DEPTH 128

struct request {
	struct iocb iocb; /* first: completions name it */
	struct request *next;
	struct co *co;
	ssize_t result;
};

struct native {
	struct loop_engine engine;
	struct loop_source source;
	struct loop *loop;
	io_context_t context;
	int event_fd;
	struct request *queue, **queue_tail;
	unsigned in_kernel;
};

static void reap(struct native *n)
{
	struct io_event events[DEPTH];
	struct timespec now = {0};
	int count;

	do {
		/* Looks into the shared ring first: no system call if it is empty. */
		count = io_getevents(n->context, 0, DEPTH, events, &now);
		for (int i = 0; i < count; i++) {
			struct request *r = (struct request *)events[i].obj;

			r->result = (long)events[i].res;
			n->in_kernel--;
			co_wake(r->co);
		}
	} while (count == DEPTH || count == -EINTR);
}

static void native_ready(struct loop_source *source, uint32_t events)
{
	struct native *n = (void *)((char *)source - G_STRUCT_OFFSET(struct native, source));
	uint64_t count;

	while (read(n->event_fd, &count, sizeof(count)) < 0 && errno == EINTR)
		;
	reap(n);
}

static struct request *take_first(struct native *n)
{
	struct request *r = n->queue;

	n->queue = r->next;
	return r;
}

/* One io_submit; false if the kernel took nothing. */
static bool submit_some(struct native *n)
{
	struct iocb *batch[DEPTH];
	int count = 0;

	for (struct request *r = n->queue; r && n->in_kernel + (unsigned)count < DEPTH; r = r->next)
		batch[count++] = &r->iocb;
	if (count == 0)
		return false;

	int taken = io_submit(n->context, count, batch);
	for (int i = 0; i < taken; i++)
		take_first(n);
	if (taken > 0)
		n->in_kernel += (unsigned)taken;
	if (taken >= 0 || taken == -EAGAIN || taken == -EINTR)
		return taken > 0;

	/* The first one is at fault. */
	struct request *r = take_first(n);
	r->result = taken;
	co_wake(r->co);
	return true;
}

static bool native_submit(struct loop_engine *engine)
{
	struct native *n = (struct native *)engine;

	while (n->queue && submit_some(n))
		;
	if (n->in_kernel > 0)
		reap(n);
	return n->queue && n->in_kernel == 0;
}

static void native_free(struct loop_engine *engine)
{
	struct native *n = (struct native *)engine;

	g_assert(!n->queue && n->in_kernel == 0);
	loop_remove_source(n->loop, n->event_fd);
	io_destroy(n->context);
	close(n->event_fd);
	g_free(n);
}

static int context_init(struct native *n)
{
	int ret = io_setup(DEPTH, &n->context);

	if (ret < 0)
		return ret;
	n->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (n->event_fd < 0) {
		ret = -errno;
		io_destroy(n->context);
		return ret;
	}
	ret = loop_add_source(n->loop, n->event_fd, EPOLLIN, &n->source);
	if (ret < 0) {
		close(n->event_fd);
		io_destroy(n->context);
	}
	return ret;
}

static int native_prepare(struct loop *loop)
{
	struct loop_engine **slot = loop_engine_slot(loop, AIO_SLOT_NATIVE);

	if (*slot)
		return 0;

	struct native *n = g_new0(struct native, 1);
	n->engine.submit = native_submit;
	n->engine.free = native_free;
	n->source.ready = native_ready;
	n->loop = loop;
	int ret = context_init(n);
	if (ret < 0) {
		g_free(n);
		return ret;
	}
	*slot = &n->engine;
	return 0;
}

static ssize_t native_transfer(struct loop *loop, const struct aio_transfer *t)
{
	struct native *n = (struct native *)*loop_engine_slot(loop, AIO_SLOT_NATIVE);
	struct request r = {.co = co_self()};

	if (t->write)
		io_prep_pwritev(&r.iocb, t->fd, t->iov, t->niov, (long long)t->offset);
	else
		io_prep_preadv(&r.iocb, t->fd, t->iov, t->niov, (long long)t->offset);
	io_set_eventfd(&r.iocb, n->event_fd);
	if (!n->queue)
		n->queue_tail = &n->queue;
	*n->queue_tail = &r;
	n->queue_tail = &r.next;
	co_yield();
	/* Refused for want of something: a thread can wait for it. */
	if (r.result == -EAGAIN || r.result == -EINTR)
		return aio_threads.transfer(loop, t);
	return r.result;
}

#else

static int native_prepare(struct loop *loop)
{
	return -ENOSYS;
}

static ssize_t native_transfer(struct loop *loop, const struct aio_transfer *t)
{
	return -ENOSYS;
}

#endif

const struct aio_ops aio_native = {
	.name = "native",
	.prepare = native_prepare,
	.transfer = native_transfer,
};
