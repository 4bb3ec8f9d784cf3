/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Several threads at a time. Each has stripes of its own, so that the model knows what comes of it,
 * but clusters (and, with buffered writes, pages) are shared with the others. Either all go through
 * the page cache, in one file, or none: mixing these in one page is no promise of the kernel's.
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
#include <unistd.h>

#define THREADS	   4
#define STRIPE	   1536u
#define OPERATIONS 24

struct actor {
	unsigned who;
	uint64_t seed;
	struct window *w;
	bool direct;
	uint64_t from, stripes; /* of the file; the area that all of them share */
	const char *error;
	uint64_t at;
};

static uint64_t actor_rnd(struct actor *a, uint64_t below)
{
	a->seed ^= a->seed << 13;
	a->seed ^= a->seed >> 7;
	a->seed ^= a->seed << 17;
	return (a->seed >> 8) % below;
}

static bool act_once(struct actor *a, uint8_t *buf)
{
	uint64_t stripe = actor_rnd(a, a->stripes / THREADS) * THREADS + a->who;
	uint64_t at = a->from + stripe * STRIPE, kind = actor_rnd(a, 8);
	uint8_t *model = bytes + a->w->start + at;
	size_t len = STRIPE;
	int fd = a->direct ? a->w->direct : a->w->fd;

	if (actor_rnd(a, 2)) {
		at += SECTOR;
		model += SECTOR;
		len = SECTOR;
	}
	a->at = at;
	if (kind < 5) {
		for (size_t i = 0; i < len; i++)
			buf[i] = (uint8_t)(a->seed >> i % 56);
		memcpy(model, buf, len);
		a->error = "write";
		return pwrite(fd, buf, len, (off_t)at) == (ssize_t)len;
	}
	if (kind == 5 && allowed("punch")) {
		memset(model, 0, len);
		a->error = "punch";
		return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at,
				 (off_t)len) == 0;
	}
	a->error = "read";
	if (pread(fd, buf, len, (off_t)at) != (ssize_t)len)
		return false;
	a->error = "read other bytes";
	errno = 0;
	return memcmp(buf, model, len) == 0;
}

static void *act(void *arg)
{
	struct actor *a = arg;
	uint8_t *buf = aligned_alloc(4096, 4096);

	for (unsigned i = 0; buf && i < OPERATIONS; i++) {
		if (!act_once(a, buf)) {
			free(buf);
			return a;
		}
	}
	free(buf);
	return NULL;
}

void burst(void)
{
	struct window *w = &windows[rnd(window_count)];
	uint64_t room = w->size ? w->size : size, area = 64 * 1024 + rnd(1 << 20);
	struct actor actors[THREADS];
	pthread_t threads[THREADS];
	bool direct = allowed("direct") && rnd(2);
	uint64_t from;
	void *bad;

	if (area > room / 2)
		area = room / 2;
	from = SECTOR + rnd(room - area - SECTOR) / SECTOR * SECTOR;
	note("burst %s %s %" PRIu64 " %" PRIu64, direct ? "direct" : "buffered", w->path, from,
	     area);
	for (unsigned i = 0; i < THREADS; i++) {
		actors[i] = (struct actor){i, rnd(0) | 1, w, direct, from, area / STRIPE, NULL, 0};
		if (pthread_create(&threads[i], NULL, act, &actors[i]))
			wrong("pthread_create");
	}
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(threads[i], &bad);
		if (bad)
			wrong("burst: thread %u: %s at %" PRIu64 ": %s", i, actors[i].error,
			      actors[i].at, strerror(errno));
	}
}
