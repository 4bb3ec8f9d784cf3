/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Range locks of one disk: held from the map to the end of the I/O, so that
 * nothing frees or moves host space under a reader, and two writers of one
 * cluster do not both allocate it. Who comes later and overlaps waits also for those who still
 * wait themselves: a change of structure, which wants the whole disk, would otherwise wait for as
 * long as anybody writes. The list is short (requests in flight).
 */
#include "config.h"

#include "image/core.h"

/* Is there one before r that it must wait for? */
static bool excluded(const struct range_locks *l, const struct range *r)
{
	for (const struct range *h = l->first; h != r; h = h->next)
		if (h->start < r->end && r->start < h->end && (h->exclusive || r->exclusive))
			return true;
	return false;
}

void range_lock(struct range_locks *l, struct range *r, uint64_t start, uint64_t len,
		bool exclusive)
{
	struct range **p = &l->first;

	*r = (struct range){.start = start, .end = start + len, .exclusive = exclusive};
	while (*p)
		p = &(*p)->next;
	*p = r;
	while (excluded(l, r))
		co_queue_wait(&l->waiters);
}

void disk_lock(struct image *img, struct disk_lock *l, uint64_t start, uint64_t len, bool exclusive)
{
	struct image *owner = img->core->owner ? img->core->owner : img;

	range_lock(&img->core->ranges, &l->own, start, len, exclusive);
	/* Always from the top down, so that nobody waits for one who waits for him. */
	l->lower = owner->core->written_below;
	if (l->lower)
		range_lock(&l->lower->core->ranges, &l->below, start, len, false);
}

void disk_unlock(struct image *img, struct disk_lock *l)
{
	if (l->lower)
		range_unlock(&l->lower->core->ranges, &l->below);
	range_unlock(&img->core->ranges, &l->own);
}

void range_unlock(struct range_locks *l, struct range *r)
{
	struct range **p = &l->first;

	while (*p != r)
		p = &(*p)->next;
	*p = r->next;
	/* Which of them may go on now is for each to find out: they are few. */
	co_queue_wake_all(&l->waiters);
}
