/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One round of the loop: run what is ready, hand requests to the kernel, wait,
 * collect events, run posted calls, wake sleepers whose time has come. Only
 * the posts are shared with other threads, under `lock`.
 */
#include <config.h>

#include "io/co-internal.h"
#include "io/loop-internal.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* Coroutines that keep waking one another cannot hold back events for longer than
 * this many rounds. */
#define ROUNDS_PER_POLL 16
#define EVENTS_PER_POLL 64

struct sleeper {
	uint64_t due;	/* loop_now() */
	uint64_t order; /* equal times: first come, first woken */
	struct co *co;
};

struct loop {
	int epoll_fd;
	int event_fd;
	struct loop_source posts;
	struct sleeper *heap; /* binary heap, the earliest first */
	size_t sleeping, heap_size;
	uint64_t sleeps;
	struct loop_engine *engines[LOOP_ENGINES];
	bool hurry; /* an engine could not submit: try again soon */
	bool running;

	pthread_mutex_t lock;
	struct loop_call *calls, **calls_tail;
};
static __thread struct loop *this_loop;

struct loop *loop_self(void)
{
	return this_loop;
}

uint64_t loop_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

int loop_add_source(struct loop *loop, int fd, uint32_t epoll_events, struct loop_source *source)
{
	struct epoll_event event = {.events = epoll_events, .data.ptr = source};

	return epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : -errno;
}

void loop_remove_source(struct loop *loop, int fd)
{
	/* Fails only if fd was closed before, and then it is gone already. */
	(void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

struct loop_engine **loop_engine_slot(struct loop *loop, unsigned slot)
{
	g_assert(slot < LOOP_ENGINES);
	return &loop->engines[slot];
}

static void posts_ready(struct loop_source *source, uint32_t events)
{
	struct loop *loop = (void *)((char *)source - G_STRUCT_OFFSET(struct loop, posts));
	uint64_t count;

	/* Only resets the descriptor; EAGAIN cannot hurt. */
	while (read(loop->event_fd, &count, sizeof(count)) < 0 && errno == EINTR)
		;
}

struct loop *loop_new(GError **error)
{
	g_assert(!this_loop);
	struct loop *loop = g_new0(struct loop, 1);
	int err;

	loop->event_fd = -1;
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll_fd < 0)
		goto fail;
	loop->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (loop->event_fd < 0)
		goto fail;
	loop->posts.ready = posts_ready;
	err = loop_add_source(loop, loop->event_fd, EPOLLIN, &loop->posts);
	if (err) {
		errno = -err;
		goto fail;
	}
	pthread_mutex_init(&loop->lock, NULL);
	loop->calls_tail = &loop->calls;
	this_loop = loop;
	return loop;
fail:
	err = errno;
	g_set_error(error, G_FILE_ERROR, g_file_error_from_errno(err),
		    "Could not make an event loop: %s", g_strerror(err));
	if (loop->event_fd >= 0)
		close(loop->event_fd);
	if (loop->epoll_fd >= 0)
		close(loop->epoll_fd);
	g_free(loop);
	return NULL;
}

void loop_free(struct loop *loop)
{
	if (!loop)
		return;
	g_assert(loop == this_loop && !co_self() && co_alive() == 0);
	for (unsigned i = 0; i < LOOP_ENGINES; i++)
		if (loop->engines[i])
			loop->engines[i]->free(loop->engines[i]);
	co_free_stacks();

	/* A poster may still be on its way out of loop_post_call. */
	pthread_mutex_lock(&loop->lock);
	g_assert(!loop->calls);
	pthread_mutex_unlock(&loop->lock);
	pthread_mutex_destroy(&loop->lock);
	close(loop->event_fd);
	close(loop->epoll_fd);
	g_free(loop->heap);
	g_free(loop);
	this_loop = NULL;
}

void loop_post_call(struct loop *loop, struct loop_call *call)
{
	static const uint64_t one = 1;

	call->next = NULL;
	pthread_mutex_lock(&loop->lock);
	bool first = !loop->calls;
	*loop->calls_tail = call;
	loop->calls_tail = &call->next;
	/* Under the lock, so that the loop, which takes the calls under it too, cannot
	 * be freed with its descriptor before this write is over. */
	if (first)
		while (write(loop->event_fd, &one, sizeof(one)) < 0 && errno == EINTR)
			;
	pthread_mutex_unlock(&loop->lock);
}

static void run_calls(struct loop *loop)
{
	pthread_mutex_lock(&loop->lock);
	struct loop_call *call = loop->calls;
	loop->calls = NULL;
	loop->calls_tail = &loop->calls;
	pthread_mutex_unlock(&loop->lock);

	while (call) {
		struct loop_call *next = call->next; /* the memory may go with the call */

		call->fn(call->arg);
		call = next;
	}
}

struct post {
	struct loop_call call;
	void (*fn)(void *arg);
	void *arg;
};

static void post_run(void *arg)
{
	struct post *post = arg;

	post->fn(post->arg);
	g_free(post);
}

void loop_post(struct loop *loop, void (*fn)(void *arg), void *arg)
{
	struct post *post = g_new0(struct post, 1);

	post->fn = fn;
	post->arg = arg;
	post->call.fn = post_run;
	post->call.arg = post;
	loop_post_call(loop, &post->call);
}

/* --- sleeping --- */

static bool earlier(const struct sleeper *a, const struct sleeper *b)
{
	return a->due != b->due ? a->due < b->due : a->order < b->order;
}

static void sleepers_push(struct loop *loop, struct sleeper s)
{
	if (loop->sleeping == loop->heap_size) {
		loop->heap_size = MAX(16, 2 * loop->heap_size);
		loop->heap = g_renew(struct sleeper, loop->heap, loop->heap_size);
	}

	struct sleeper *v = loop->heap;
	size_t i = loop->sleeping++;
	while (i > 0 && earlier(&s, &v[(i - 1) / 2])) {
		v[i] = v[(i - 1) / 2];
		i = (i - 1) / 2;
	}
	v[i] = s;
}

static struct sleeper sleepers_pop(struct loop *loop)
{
	struct sleeper *v = loop->heap;
	size_t n = --loop->sleeping, i = 0;
	struct sleeper first = v[0], last = v[n];

	for (;;) {
		size_t child = 2 * i + 1;

		if (child >= n)
			break;
		if (child + 1 < n && earlier(&v[child + 1], &v[child]))
			child++;
		if (!earlier(&v[child], &last))
			break;
		v[i] = v[child];
		i = child;
	}
	v[i] = last;
	return first;
}

void co_sleep_ns(uint64_t nanoseconds)
{
	struct loop *loop = this_loop;
	uint64_t now = loop_now();
	struct sleeper s = {.due = now + MIN(nanoseconds, UINT64_MAX - now), .co = co_self()};

	g_assert(loop && s.co);
	s.order = loop->sleeps++;
	sleepers_push(loop, s);
	co_yield();
}

static void wake_sleepers(struct loop *loop)
{
	if (loop->sleeping == 0)
		return;

	uint64_t now = loop_now();
	while (loop->sleeping > 0 && loop->heap[0].due <= now)
		co_wake(sleepers_pop(loop).co);
}

/* For epoll_wait: milliseconds, rounded up so that nobody wakes too early. */
static int poll_timeout(struct loop *loop)
{
	if (co_any_ready())
		return 0;
	if (loop->hurry)
		return 1;
	if (loop->sleeping == 0)
		return -1;

	uint64_t due = loop->heap[0].due, now = loop_now();
	if (due <= now)
		return 0;
	return (int)MIN((due - now + 999999) / 1000000, 3600000);
}

/* --- running --- */

static void submit_all(struct loop *loop)
{
	loop->hurry = false;
	for (unsigned i = 0; i < LOOP_ENGINES; i++)
		if (loop->engines[i])
			loop->hurry |= loop->engines[i]->submit(loop->engines[i]);
}

static void poll_events(struct loop *loop)
{
	struct epoll_event events[EVENTS_PER_POLL];
	int n = epoll_wait(loop->epoll_fd, events, EVENTS_PER_POLL, poll_timeout(loop));

	if (n < 0 && errno != EINTR)
		g_error("epoll_wait: %s", g_strerror(errno));
	for (int i = 0; i < n; i++) {
		struct loop_source *source = events[i].data.ptr;

		source->ready(source, events[i].events);
	}
}

struct main_call {
	int (*fn)(void *arg);
	void *arg;
	int ret;
	bool ended;
};

static void main_run(void *arg)
{
	struct main_call *m = arg;

	m->ret = m->fn(m->arg);
	m->ended = true;
}

int loop_run(struct loop *loop, int (*fn)(void *arg), void *arg)
{
	struct main_call m = {.fn = fn, .arg = arg};

	g_assert(loop == this_loop && !loop->running && !co_self());
	loop->running = true;
	co_spawn(main_run, &m);
	while (!m.ended) {
		submit_all(loop);
		for (int i = 0; i < ROUNDS_PER_POLL && co_any_ready() && !m.ended; i++) {
			co_run_ready();
			submit_all(loop);
		}
		if (m.ended)
			break;
		poll_events(loop);
		run_calls(loop);
		wake_sleepers(loop);
	}
	loop->running = false;
	return m.ret;
}
