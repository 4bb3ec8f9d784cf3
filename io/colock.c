/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Waiting for one another on one loop. Who waits keeps its place in the queue on
 * its own stack, so nothing here allocates. */
#include <config.h>

#include "io/co.h"

#include <glib.h>

struct co_waiter {
	struct co_waiter *next;
	struct co *co;
	bool writer; /* co_rwlock only */
};

static void queue_wait(struct co_queue *q, bool writer)
{
	struct co_waiter self = {.co = co_self(), .writer = writer};

	g_assert(self.co); /* a thread that waits would stop its loop for ever */
	if (!q->head)
		q->tail = &q->head;
	*q->tail = &self;
	q->tail = &self.next;
	co_yield();
}

void co_queue_wait(struct co_queue *q)
{
	queue_wait(q, false);
}

bool co_queue_wake_one(struct co_queue *q)
{
	struct co_waiter *first = q->head;

	if (!first)
		return false;
	q->head = first->next;
	co_wake(first->co);
	return true;
}

void co_queue_wake_all(struct co_queue *q)
{
	while (co_queue_wake_one(q))
		;
}

void co_mutex_lock(struct co_mutex *m)
{
	/* The unlocker hands the mutex over while it is still held, so nobody who
	 * comes later can get in between. */
	if (m->held)
		queue_wait(&m->waiters, false);
	m->held = true;
}

void co_mutex_unlock(struct co_mutex *m)
{
	g_assert(m->held);
	m->held = co_queue_wake_one(&m->waiters);
}

/* Lets in whom the front of the queue allows: one writer, or all readers up to the
 * next writer. */
static void rwlock_admit(struct co_rwlock *l)
{
	while (l->waiters.head) {
		bool writer = l->waiters.head->writer;

		if (writer ? l->holders != 0 : l->holders < 0)
			return;
		l->holders = writer ? -1 : l->holders + 1;
		co_queue_wake_one(&l->waiters);
	}
}

void co_rwlock_rdlock(struct co_rwlock *l)
{
	if (l->holders >= 0 && !l->waiters.head)
		l->holders++;
	else
		queue_wait(&l->waiters, false);
}

void co_rwlock_wrlock(struct co_rwlock *l)
{
	if (l->holders == 0 && !l->waiters.head)
		l->holders = -1;
	else
		queue_wait(&l->waiters, true);
}

void co_rwlock_unlock(struct co_rwlock *l)
{
	g_assert(l->holders != 0);
	l->holders = l->holders < 0 ? 0 : l->holders - 1;
	rwlock_admit(l);
}

void co_group_init(struct co_group *g, unsigned limit)
{
	g_assert(limit >= 1);
	*g = (struct co_group){.limit = limit};
}

struct member {
	struct co_group *group;
	co_group_fn *fn;
	void *arg;
};

static void member_run(void *arg)
{
	/* A copy: the original is on the stack of co_group_spawn. */
	struct member m = *(struct member *)arg;
	int ret = m.fn(m.arg);

	if (ret < 0 && m.group->error == 0)
		m.group->error = ret;
	m.group->running--;
	co_queue_wake_all(&m.group->waiters);
}

void co_group_spawn(struct co_group *g, co_group_fn *fn, void *arg)
{
	struct member m = {.group = g, .fn = fn, .arg = arg};

	while (g->running >= g->limit)
		co_queue_wait(&g->waiters);
	g->running++;
	co_spawn(member_run, &m);
}

int co_group_wait(struct co_group *g)
{
	while (g->running > 0)
		co_queue_wait(&g->waiters);

	int error = g->error;
	g->error = 0;
	return error;
}
