/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * io_uring: one ring a loop. Requests gather in the submission queue while
 * coroutines run and go to the kernel in one system call; the ring's descriptor
 * is in the loop's epoll set, so completions end the wait.
 */
#include <config.h>

#include "io/aio.h"

#include <errno.h>

#ifdef HAVE_LIBURING

#include "io/co.h"
#include "io/loop-internal.h"

#include <liburing.h>
#include <sys/epoll.h>
#ifdef HAVE_VALGRIND_VALGRIND_H
#include <valgrind/memcheck.h>
#endif

/* Requests under way at once; those that come on top wait. Never more than the
 * submission queue holds, so that it always has room. */
#define DEPTH 256

struct uring {
	struct loop_engine engine;
	struct loop_source source;
	struct loop *loop;
	struct io_uring ring;
	unsigned under_way;   /* queued or in the kernel */
	unsigned unsubmitted; /* of these, not yet in the kernel */
	struct co_queue room;
};

struct request {
	struct co *co;
	int result;
};

static void reap(struct uring *u)
{
	struct io_uring_cqe *cqe;
	unsigned head, seen = 0;

	io_uring_for_each_cqe(&u->ring, head, cqe)
	{
		struct request *r = io_uring_cqe_get_data(cqe);

		r->result = cqe->res;
		co_wake(r->co);
		seen++;
	}
	if (seen > 0)
		io_uring_cq_advance(&u->ring, seen);
}

static void uring_ready(struct loop_source *source, uint32_t events)
{
	reap((void *)((char *)source - G_STRUCT_OFFSET(struct uring, source)));
}

static bool uring_submit(struct loop_engine *engine)
{
	struct uring *u = (struct uring *)engine;

	if (u->unsubmitted > 0) {
		int n = io_uring_submit(&u->ring);

		/* EAGAIN, EBUSY, EINTR: what was not taken stays in the queue. */
		if (n > 0)
			u->unsubmitted -= MIN((unsigned)n, u->unsubmitted);
	}
	/* What the kernel could do at once is there already. */
	if (u->under_way > u->unsubmitted)
		reap(u);
	return u->unsubmitted > 0;
}

static void uring_free(struct loop_engine *engine)
{
	struct uring *u = (struct uring *)engine;

	g_assert(u->under_way == 0);
	loop_remove_source(u->loop, u->ring.ring_fd);
	io_uring_queue_exit(&u->ring);
	g_free(u);
}

static int ring_init(struct io_uring *ring)
{
	int ret = -EINVAL;

#if defined(IORING_SETUP_SINGLE_ISSUER) && defined(IORING_SETUP_COOP_TASKRUN)
	/* The loop comes back to the kernel soon enough by itself: no need to be
	 * interrupted for each completion. */
	ret = io_uring_queue_init(DEPTH, ring,
				  IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN);
#endif
	if (ret == -EINVAL)
		ret = io_uring_queue_init(DEPTH, ring, 0);
	if (ret < 0)
		return ret;
	/* A kernel that drops completions when the queue is full is too old. */
	if (!(ring->features & IORING_FEAT_NODROP)) {
		io_uring_queue_exit(ring);
		return -ENOSYS;
	}
	return 0;
}

static int uring_prepare(struct loop *loop)
{
	struct loop_engine **slot = loop_engine_slot(loop, AIO_SLOT_URING);

	if (*slot)
		return 0;

	struct uring *u = g_new0(struct uring, 1);
	int ret = ring_init(&u->ring);
	if (ret < 0) {
		g_free(u);
		return ret;
	}
	u->engine.submit = uring_submit;
	u->engine.free = uring_free;
	u->source.ready = uring_ready;
	u->loop = loop;
	ret = loop_add_source(loop, u->ring.ring_fd, EPOLLIN, &u->source);
	if (ret < 0) {
		io_uring_queue_exit(&u->ring);
		g_free(u);
		return ret;
	}
	*slot = &u->engine;
	return 0;
}

static ssize_t transfer_once(struct uring *u, const struct aio_transfer *t)
{
	struct request r = {.co = co_self()};

	while (u->under_way >= DEPTH)
		co_queue_wait(&u->room);

	struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
	g_assert(sqe);
	if (t->niov == 1 && t->write)
		io_uring_prep_write(sqe, t->fd, t->iov->iov_base, (unsigned)t->iov->iov_len,
				    t->offset);
	else if (t->niov == 1)
		io_uring_prep_read(sqe, t->fd, t->iov->iov_base, (unsigned)t->iov->iov_len,
				   t->offset);
	else if (t->write)
		io_uring_prep_writev(sqe, t->fd, t->iov, (unsigned)t->niov, t->offset);
	else
		io_uring_prep_readv(sqe, t->fd, t->iov, (unsigned)t->niov, t->offset);
	io_uring_sqe_set_data(sqe, &r);
	u->under_way++;
	u->unsubmitted++;
	co_yield();
	u->under_way--;
	co_queue_wake_one(&u->room);
	return r.result;
}

/* valgrind does not see what the kernel writes for a ring. */
static void tell_valgrind(const struct aio_transfer *t, ssize_t n)
{
#ifdef HAVE_VALGRIND_VALGRIND_H
	for (int i = 0; !t->write && i < t->niov && n > 0; i++) {
		size_t len = MIN(t->iov[i].iov_len, (size_t)n);

		(void)VALGRIND_MAKE_MEM_DEFINED(t->iov[i].iov_base, len);
		n -= (ssize_t)len;
	}
#endif
}

static ssize_t uring_transfer(struct loop *loop, const struct aio_transfer *t)
{
	struct uring *u = (struct uring *)*loop_engine_slot(loop, AIO_SLOT_URING);
	ssize_t n;

	do
		n = transfer_once(u, t);
	while (n == -EINTR);
	/* EAGAIN: the kernel found no way to wait. ECANCELED: a signal kept it from starting a
	 * worker, and we cancel nothing. EINVAL: perhaps an old kernel that lacks the operation; if
	 * it is a real one, it comes again. */
	if (n == -EAGAIN || n == -ECANCELED || n == -EINVAL || n == -EOPNOTSUPP)
		return aio_threads.transfer(loop, t);
	tell_valgrind(t, n);
	return n;
}

#else

static int uring_prepare(struct loop *loop)
{
	return -ENOSYS;
}

static ssize_t uring_transfer(struct loop *loop, const struct aio_transfer *t)
{
	return -ENOSYS;
}

#endif

const struct aio_ops aio_uring = {
	.name = "io_uring",
	.prepare = uring_prepare,
	.transfer = uring_transfer,
};

const struct aio_ops *aio_best(struct loop *loop)
{
	return aio_uring.prepare(loop) == 0 ? &aio_uring : &aio_threads;
}
