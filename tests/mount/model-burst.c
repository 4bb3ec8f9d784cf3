/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Several threads at a time. Each has stripes of its own, so that the model knows what comes of it,
 * but clusters (and, with buffered writes, pages) are shared with the others. Either all go through
 * the page cache, in one file, or none: mixing these in one page is no promise of the kernel's.
 *
 * Beside them one more gives a command. A snapshot that is made so has every write that had
 * returned before it was asked for, none that began after it was there, and of those between each
 * sector as it was or as it became.
 */
#include "config.h"

#include "tests/mount/model.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define THREADS	       4
#define STRIPE	       1536u
#define OPERATIONS_MAX 160

/* Moments, so that it can be said what came before what. */
static uint64_t moments;

static uint64_t moment(void)
{
	return __atomic_add_fetch(&moments, 1, __ATOMIC_SEQ_CST);
}

struct change {
	uint64_t at; /* of the disk */
	size_t len;
	uint64_t begin, end;
	uint8_t data[STRIPE];
};

struct actor {
	unsigned who, operations;
	uint64_t seed;
	struct window *w;
	bool direct;
	uint64_t from, stripes; /* of the file; the area that all of them share */
	const char *error;
	uint64_t at;
	struct change *changes;
	unsigned count;
};

static uint64_t actor_rnd(struct actor *a, uint64_t below)
{
	a->seed ^= a->seed << 13;
	a->seed ^= a->seed >> 7;
	a->seed ^= a->seed << 17;
	return (a->seed >> 8) % below;
}

/* ---- those who write --------------------------------------------------------------------------
 */

static bool change(struct actor *a, struct change *c, uint8_t *buf, bool punch)
{
	int fd = a->direct ? a->w->direct : a->w->fd;
	bool ok;

	for (size_t i = 0; i < c->len; i++)
		buf[i] = punch ? 0 : (uint8_t)(a->seed >> i % 56);
	memcpy(c->data, buf, c->len);
	memcpy(bytes + c->at, buf, c->len);
	a->error = punch ? "punch" : "write";
	touch(c->at, c->len);
	c->begin = moment();
	if (punch)
		ok = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)a->at,
			       (off_t)c->len) == 0;
	else
		ok = pwrite(fd, buf, c->len, (off_t)a->at) == (ssize_t)c->len;
	c->end = moment();
	touch(c->at, c->len);
	a->count++;
	return ok;
}

static bool act_once(struct actor *a, uint8_t *buf)
{
	uint64_t stripe = actor_rnd(a, a->stripes / THREADS) * THREADS + a->who;
	uint64_t kind = actor_rnd(a, 8);
	struct change *c = &a->changes[a->count];

	a->at = a->from + stripe * STRIPE;
	c->len = STRIPE;
	if (actor_rnd(a, 2)) {
		a->at += SECTOR;
		c->len = SECTOR;
	}
	c->at = a->w->start + a->at;
	if (kind < 5 || (kind == 5 && allowed("punch")))
		return change(a, c, buf, kind == 5);
	a->error = "read";
	if (pread(a->direct ? a->w->direct : a->w->fd, buf, c->len, (off_t)a->at) !=
	    (ssize_t)c->len)
		return false;
	a->error = "read other bytes";
	errno = 0;
	return memcmp(buf, bytes + c->at, c->len) == 0;
}

static void *act(void *arg)
{
	struct actor *a = arg;
	uint8_t *buf = aligned_alloc(4096, 4096);

	for (unsigned i = 0; buf && i < a->operations; i++) {
		if (!act_once(a, buf)) {
			free(buf);
			return a;
		}
	}
	free(buf);
	return NULL;
}

/* ---- the one who commands ---------------------------------------------------------------------
 */

struct command {
	uint64_t after; /* moments */
	bool late;	/* nobody writes any more */
	uint64_t begin, end;
	char made[32]; /* a snapshot */
};

static void *command(void *arg)
{
	struct command *c = arg;

	if (!mount_dir)
		return NULL;
	while (__atomic_load_n(&moments, __ATOMIC_SEQ_CST) < c->after &&
	       !__atomic_load_n(&c->late, __ATOMIC_SEQ_CST))
		usleep(100);
	c->begin = moment();
	switch (rnd(8)) {
	case 0:
	case 1:
	case 2:
		if (allowed("snapshot") && snapshot_count < MAX_SNAPSHOTS &&
		    !snapshot_make(c->made))
			c->made[0] = '\0';
		break;
	case 3:
		snapshot_delete();
		break;
	case 4:
		snapshot_rename();
		break;
	case 5:
	case 6:
		if (base_count && !snapshot_count && !commit_may_run() && allowed("commit"))
			commit_begin();
		break;
	default:
		if (commit_may_run())
			commit_cancel();
		else
			refusals();
	}
	c->end = moment();
	return NULL;
}

/* May this be what the snapshot has of the sector? */
static bool is_possible(const struct actor *a, const struct command *c, uint64_t at,
			const uint8_t *before, const uint8_t *got)
{
	const uint8_t *last = before;

	for (unsigned i = 0; i < a->count; i++) {
		const struct change *w = &a->changes[i];

		if (at < w->at || at >= w->at + w->len)
			continue;
		if (w->begin > c->end)
			break;
		if (w->end < c->begin)
			last = w->data + (at - w->at);
		else if (memcmp(w->data + (at - w->at), got, SECTOR) == 0)
			return true;
	}
	return memcmp(last, got, SECTOR) == 0;
}

/* The snapshot becomes the model's, as it is, if it is one that can be. */
static void judge(const struct actor *actors, const struct command *c, const uint8_t *before)
{
	struct snapshot *s = &snapshots[snapshot_count];
	const struct actor *first = &actors[0];
	uint64_t start = first->w->start + first->from, end = start + first->stripes * STRIPE;

	snprintf(s->name, sizeof(s->name), "%s", c->made);
	s->size = size;
	snapshot_take(s);
	for (uint64_t at = 0; at < size; at += SECTOR) {
		const struct actor *a = &actors[(at - start) / STRIPE % THREADS];

		if (at < start || at >= end)
			same(s->name, s->bytes + at, bytes + at, at, SECTOR);
		else if (!is_possible(a, c, at, before + at, s->bytes + at))
			wrong("snapshot %s: the sector at %" PRIu64
			      " of the disk was never so between moments %" PRIu64 " and %" PRIu64,
			      s->name, at, c->begin, c->end);
	}
	snapshot_count++;
}

/* ---- all of them ------------------------------------------------------------------------------
 */

static void run(struct actor *actors, struct command *c)
{
	pthread_t threads[THREADS], commander;
	void *bad;

	if (pthread_create(&commander, NULL, command, c))
		wrong("pthread_create");
	for (unsigned i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, act, &actors[i]))
			wrong("pthread_create");
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(threads[i], &bad);
		if (bad)
			wrong("burst: thread %u: %s at %" PRIu64 ": %s", i, actors[i].error,
			      actors[i].at, strerror(errno));
	}
	__atomic_store_n(&c->late, true, __ATOMIC_SEQ_CST);
	pthread_join(commander, NULL);
}

void burst(void)
{
	struct window *w = &windows[rnd(window_count)];
	uint64_t room = w->size ? w->size : size, area = 64 * 1024 + rnd(1 << 20);
	struct actor actors[THREADS];
	struct command c = {0};
	bool direct = allowed("direct") && rnd(2);
	unsigned operations = 8 + (unsigned)rnd(OPERATIONS_MAX - 8);
	uint8_t *before = malloc(size);
	uint64_t from;

	if (area > room / 2)
		area = room / 2;
	from = SECTOR + rnd(room - area - SECTOR) / SECTOR * SECTOR;
	note("burst %s %s %" PRIu64 " %" PRIu64 ", %u each", direct ? "direct" : "buffered",
	     w->path, from, area, operations);
	moments = 0;
	c.after = rnd(THREADS * operations);
	for (unsigned i = 0; i < THREADS; i++) {
		actors[i] = (struct actor){.who = i,
					   .operations = operations,
					   .seed = rnd(0) | 1,
					   .w = w,
					   .direct = direct,
					   .from = from,
					   .stripes = area / STRIPE,
					   .changes = calloc(operations, sizeof(struct change))};
		if (!actors[i].changes || !before)
			wrong("memory");
	}
	memcpy(before, bytes, size);
	run(actors, &c);
	counts.beside += (uint64_t)THREADS * operations;
	if (c.made[0])
		judge(actors, &c, before);
	for (unsigned i = 0; i < THREADS; i++)
		free(actors[i].changes);
	free(before);
}
