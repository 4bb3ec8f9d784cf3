/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Range locks of one disk: held from the map to the end of the I/O, so that
 * nothing frees or moves host space under a reader, and two writers of one
 * cluster do not both allocate it. The list is short (requests in flight).
 */
#include "config.h"

#include "image/core.h"

static bool excluded(const struct range_locks *l, const struct range *r)
{
	for (const struct range *h = l->held; h; h = h->next)
		if (h->start < r->end && r->start < h->end && (h->exclusive || r->exclusive))
			return true;
	return false;
}

void range_lock(struct range_locks *l, struct range *r, uint64_t start, uint64_t len,
		bool exclusive)
{
	r->start = start;
	r->end = start + len;
	r->exclusive = exclusive;
	while (excluded(l, r))
		co_queue_wait(&l->waiters);
	r->next = l->held;
	l->held = r;
}

void range_unlock(struct range_locks *l, struct range *r)
{
	struct range **p = &l->held;

	while (*p != r)
		p = &(*p)->next;
	*p = r->next;
	/* Which of them may go on now is for each to find out: they are few. */
	co_queue_wake_all(&l->waiters);
}
