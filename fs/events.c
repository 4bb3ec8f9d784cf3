/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "fs/events.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>

#include "fs/session.h"
#include "image/report.h"
#include "io/co.h"

/* A read that waits. */
struct waiter {
	fuse_req_t req;
	size_t size;
};

struct events_reader {
	GQueue lines; /* of GString */
	GQueue waiters;
	unsigned lost; /* events since the queue was full */
	struct fuse_pollhandle *poll;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static GQueue readers = G_QUEUE_INIT; /* of struct events_reader */
static bool ending;		      /* atomic: each loop says so */
static bool ended;

/* ---- lines ---- */

static struct report *begin_line(GString *line, const char *name)
{
	struct report *r = report_new(line, REPORT_JSON_COMPACT, 0);

	report_begin_object(r, NULL);
	report_string(r, "event", name);
	report_uint(r, "time", (uint64_t)(g_get_real_time() / G_USEC_PER_SEC));
	return r;
}

static void end_line(struct report *r)
{
	report_end_object(r);
	report_free(r);
}

static GString *lost_line(unsigned count)
{
	GString *line = g_string_new(NULL);
	struct report *r = begin_line(line, "lost");

	report_uint(r, "count", count);
	end_line(r);
	return line;
}

/* ---- readers; all with the lock ---- */

static void free_line(void *line)
{
	g_string_free(line, TRUE);
}

/* Lines into out, as many as fit whole; of a line that is longer than size, a part. */
static void take(struct events_reader *r, GString *out, size_t size)
{
	GString *line;

	while ((line = g_queue_peek_head(&r->lines))) {
		if (out->len && out->len + line->len > size)
			return;
		if (line->len > size) {
			g_string_append_len(out, line->str, (gssize)size);
			g_string_erase(line, 0, (gssize)size);
			return;
		}
		g_string_append_len(out, line->str, (gssize)line->len);
		free_line(g_queue_pop_head(&r->lines));
	}
}

static void answer(struct events_reader *r, fuse_req_t req, size_t size)
{
	g_autoptr(GString) out = g_string_new(NULL);

	if (r->lost && g_queue_get_length(&r->lines) < EVENTS_QUEUE_MAX) {
		g_queue_push_tail(&r->lines, lost_line(r->lost));
		r->lost = 0;
	}
	take(r, out, size);
	fuse_reply_buf(req, out->str, out->len);
}

/* Those whom a signal interrupted are answered in any case. */
static void answer_waiters(struct events_reader *r)
{
	struct waiter *w;
	GQueue keep = G_QUEUE_INIT;

	while ((w = g_queue_pop_head(&r->waiters))) {
		if (fuse_req_interrupted(w->req)) {
			fuse_reply_err(w->req, EINTR);
		} else if (!g_queue_is_empty(&r->lines) || ended) {
			answer(r, w->req, w->size);
		} else {
			g_queue_push_tail(&keep, w);
			continue;
		}
		g_free(w);
	}
	r->waiters = keep;
}

static void notify(struct events_reader *r)
{
	if (!r->poll)
		return;
	fuse_lowlevel_notify_poll(r->poll);
	fuse_pollhandle_destroy(r->poll);
	r->poll = NULL;
}

/* A reader that is behind is told how many it missed where they are missing. */
static void push(struct events_reader *r, const GString *line)
{
	if (r->lost && g_queue_get_length(&r->lines) < EVENTS_QUEUE_MAX) {
		g_queue_push_tail(&r->lines, lost_line(r->lost));
		r->lost = 0;
	}
	if (g_queue_get_length(&r->lines) < EVENTS_QUEUE_MAX)
		g_queue_push_tail(&r->lines, g_string_new_len(line->str, (gssize)line->len));
	else
		r->lost++;
	answer_waiters(r);
	notify(r);
}

static void push_all(const GString *line)
{
	pthread_mutex_lock(&lock);
	for (GList *l = readers.head; l; l = l->next)
		push(l->data, line);
	pthread_mutex_unlock(&lock);
}

/* ---- telling ---- */

void events_tell_rows(const char *name, const struct event_row *rows)
{
	g_autoptr(GString) line = g_string_new(NULL);
	struct report *r = begin_line(line, name);

	for (; rows->key; rows++) {
		if (rows->is_number)
			report_uint(r, rows->key, rows->number);
		else if (rows->string)
			report_string(r, rows->key, rows->string);
	}
	end_line(r);
	push_all(line);
}

/* ---- the file ---- */

struct events_reader *events_open(void)
{
	struct events_reader *r = g_new0(struct events_reader, 1);

	g_queue_init(&r->lines);
	g_queue_init(&r->waiters);
	pthread_mutex_lock(&lock);
	g_queue_push_tail(&readers, r);
	pthread_mutex_unlock(&lock);
	return r;
}

static void reader_free(struct events_reader *r)
{
	struct waiter *w;

	/* The kernel closes no file that is being read; this is for one that is gone. */
	while ((w = g_queue_pop_head(&r->waiters))) {
		fuse_reply_err(w->req, EINTR);
		g_free(w);
	}
	g_queue_clear_full(&r->lines, free_line);
	if (r->poll)
		fuse_pollhandle_destroy(r->poll);
	g_free(r);
}

void events_close(struct events_reader *r)
{
	pthread_mutex_lock(&lock);
	g_queue_remove(&readers, r);
	reader_free(r);
	pthread_mutex_unlock(&lock);
}

/*
 * The reader got a signal. libfuse calls this with locks held that answering takes too, so that is
 * left to a coroutine that begins with a pause.
 */
static void answer_interrupted(void *unused)
{
	co_relax();
	pthread_mutex_lock(&lock);
	for (GList *l = readers.head; l; l = l->next)
		answer_waiters(l->data);
	pthread_mutex_unlock(&lock);
}

static void interrupted(fuse_req_t req, void *unused)
{
	worker_start_aside(worker_self(), answer_interrupted, NULL);
}

void events_reply_read(struct events_reader *r, fuse_req_t req, size_t size, enum events_none none)
{
	struct waiter *w;

	pthread_mutex_lock(&lock);
	if (!g_queue_is_empty(&r->lines) || ended || !size || none == EVENTS_END) {
		answer(r, req, size);
	} else if (none == EVENTS_EAGAIN) {
		fuse_reply_err(req, EAGAIN);
	} else {
		w = g_new(struct waiter, 1);
		*w = (struct waiter){req, size};
		g_queue_push_tail(&r->waiters, w);
		fuse_req_interrupt_func(req, interrupted, NULL);
	}
	pthread_mutex_unlock(&lock);
}

void events_reply_poll(struct events_reader *r, fuse_req_t req, struct fuse_pollhandle *ph)
{
	pthread_mutex_lock(&lock);
	if (ph) {
		if (r->poll)
			fuse_pollhandle_destroy(r->poll);
		r->poll = ph;
	}
	fuse_reply_poll(req, !g_queue_is_empty(&r->lines) || ended ? POLLIN | POLLRDNORM : 0);
	pthread_mutex_unlock(&lock);
}

void events_end(void)
{
	static const struct event_row none;

	/* The first loop that ends does it all: another one must not answer before the event is
	 * there. */
	if (__atomic_exchange_n(&ending, true, __ATOMIC_ACQ_REL))
		return;
	events_tell_rows("unmount", &none);
	pthread_mutex_lock(&lock);
	ended = true;
	for (GList *l = readers.head; l; l = l->next) {
		answer_waiters(l->data);
		notify(l->data);
	}
	pthread_mutex_unlock(&lock);
}

void events_clear(void)
{
	struct events_reader *r;

	while ((r = g_queue_pop_head(&readers)))
		reader_free(r);
	ending = ended = false;
}
