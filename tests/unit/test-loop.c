/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The loop: posts from other threads, watched descriptors, several loops. */
#include <config.h>

#include "tests/unit/in-loop.h"

#include "io/co.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

/* --- posts --- */

#define POSTERS 4
#define POSTS	5000

static struct loop *target;
static struct co *waiter;
static unsigned arrived; /* on the loop's thread only */

static void arrive(void *arg)
{
	assert_null(co_self());
	assert_ptr_equal(loop_self(), target);
	if (++arrived == POSTERS * POSTS)
		co_wake(waiter);
}

static void *poster(void *arg)
{
	for (int i = 0; i < POSTS; i++)
		loop_post(target, arrive, NULL);
	return NULL;
}

static int receives_posts(void *arg)
{
	pthread_t threads[POSTERS];

	target = loop_self();
	waiter = co_self();
	arrived = 0;
	for (int i = 0; i < POSTERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, poster, NULL), 0);
	co_yield();
	assert_int_equal(arrived, POSTERS * POSTS);
	for (int i = 0; i < POSTERS; i++)
		pthread_join(threads[i], NULL);
	return 0;
}

static void test_post(void **state)
{
	in_loop(receives_posts, NULL);
}

static atomic_int rounds;

static void wake_waiter(void *arg)
{
	co_wake(arg);
}

struct one_post {
	struct loop *loop;
	struct co *co;
};

static void *post_once(void *arg)
{
	struct one_post *p = arg;

	loop_post(p->loop, wake_waiter, p->co);
	return NULL;
}

static int waits_for_one_post(void *arg)
{
	struct one_post p = {loop_self(), co_self()};
	pthread_t *thread = arg;

	assert_int_equal(pthread_create(thread, NULL, post_once, &p), 0);
	co_yield();
	atomic_fetch_add(&rounds, 1);
	return 0;
}

/* The loop goes as soon as it has the post: the poster may still be inside. */
static void test_loop_freed_at_once(void **state)
{
	atomic_store(&rounds, 0);
	for (int i = 0; i < 300; i++) {
		pthread_t thread;

		in_loop(waits_for_one_post, &thread);
		pthread_join(thread, NULL);
	}
	assert_int_equal(atomic_load(&rounds), 300);
}

/* --- running --- */

static int returns_arg(void *arg)
{
	co_relax();
	return *(int *)arg;
}

static void test_run_again(void **state)
{
	struct loop *loop = loop_new(NULL);

	assert_ptr_equal(loop_self(), loop);
	for (int i = 0; i < 3; i++)
		assert_int_equal(loop_run(loop, returns_arg, &i), i);
	loop_free(loop);
	assert_null(loop_self());
	loop_free(NULL);
}

static void spins(void *arg)
{
	bool *stop = arg;

	while (!*stop)
		co_relax();
}

/* Coroutines that are always ready hold back neither timers nor events. */
static int busy(void *arg)
{
	bool stop = false;

	co_spawn(spins, &stop);
	co_sleep_ns(5000000);
	stop = true;
	co_relax();
	co_relax();
	return 0;
}

static void test_busy(void **state)
{
	in_loop(busy, NULL);
}

static void *loop_thread(void *arg)
{
	in_loop(busy, NULL);
	return NULL;
}

static void test_many_loops(void **state)
{
	pthread_t threads[4];

	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, loop_thread, NULL), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
}

/* --- watches --- */

static int fds[2];

static void make_pipe(void)
{
	assert_int_equal(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
}

static void put(const char *bytes, size_t n)
{
	assert_int_equal(write(fds[1], bytes, n), n);
}

static char get(void)
{
	char c;

	assert_int_equal(read(fds[0], &c, 1), 1);
	return c;
}

static void writes_later(void *arg)
{
	co_sleep_ns(2000000);
	put("z", 1);
}

static int watches(void *arg)
{
	struct watch *w = watch_new(fds[0], POLLIN, false, NULL);
	char c;

	assert_non_null(w);
	co_spawn(writes_later, NULL);
	assert_int_equal(watch_wait(w), 0);
	assert_int_equal(get(), 'z');

	/* A reader may take less than there is and wait again. */
	put("abc", 3);
	for (char want = 'a'; want <= 'c'; want++) {
		assert_int_equal(watch_wait(w), 0);
		assert_int_equal(get(), want);
	}
	assert_int_equal(read(fds[0], &c, 1), -1);

	/* Ready while nobody waits: neither lost nor a busy loop. */
	put("d", 1);
	for (int i = 0; i < 100; i++)
		co_relax();
	co_sleep_ns(1000000);
	assert_int_equal(watch_wait(w), 0);
	assert_int_equal(get(), 'd');
	co_spawn(writes_later, NULL);
	assert_int_equal(watch_wait(w), 0);
	assert_int_equal(get(), 'z');
	watch_free(w);

	w = watch_new(fds[1], POLLOUT, false, NULL);
	assert_int_equal(watch_wait(w), 0);
	watch_free(w);
	watch_free(NULL);
	return 0;
}

static void close_pipe(void)
{
	close(fds[0]);
	close(fds[1]);
}

static void test_watch(void **state)
{
	make_pipe();
	in_loop(watches, NULL);
	close_pipe();
}

static void cancels(void *arg)
{
	co_relax();
	watch_cancel(arg);
}

static int is_cancelled(void *arg)
{
	struct watch *w = watch_new(fds[0], POLLIN, false, NULL);

	co_spawn(cancels, w);
	assert_int_equal(watch_wait(w), -ECANCELED);
	assert_int_equal(watch_wait(w), -ECANCELED); /* from now on */
	watch_free(w);
	return 0;
}

static void test_cancel(void **state)
{
	make_pipe();
	in_loop(is_cancelled, NULL);
	close_pipe();
}

static int regular_file(void *arg)
{
	GError *error = NULL;
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_null(watch_new(fd, POLLIN, false, &error)); /* epoll has no use for it */
	assert_non_null(error);
	g_error_free(error);
	close(fd);
	return 0;
}

static void test_watch_refused(void **state)
{
	in_loop(regular_file, NULL);
}

/* Several loops take bytes out of one pipe, as they take requests from /dev/fuse. */
#define BYTES 3000
static atomic_int taken;

static int takes(void *arg)
{
	struct watch *w = watch_new(fds[0], POLLIN, true, NULL);
	char c = 0;

	while (c != 'q') {
		assert_int_equal(watch_wait(w), 0);
		while (c != 'q' && read(fds[0], &c, 1) == 1)
			if (c == 'x')
				atomic_fetch_add(&taken, 1);
		/* Sometimes it is not there when the next one comes. */
		if (atomic_load(&taken) % 7 == 0)
			co_sleep_ns(10000);
	}
	watch_free(w);
	return 0;
}

static void *taker(void *arg)
{
	in_loop(takes, NULL);
	return NULL;
}

static void put_blocking(char c)
{
	while (write(fds[1], &c, 1) != 1)
		usleep(100);
}

static void test_exclusive(void **state)
{
	pthread_t threads[3];

	make_pipe();
	atomic_store(&taken, 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, taker, NULL), 0);
	for (int i = 0; i < BYTES; i++)
		put_blocking('x');
	for (int i = 0; i < 3; i++)
		put_blocking('q');
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(atomic_load(&taken), BYTES);
	close_pipe();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_post),	   cmocka_unit_test(test_loop_freed_at_once),
		cmocka_unit_test(test_run_again),  cmocka_unit_test(test_busy),
		cmocka_unit_test(test_many_loops), cmocka_unit_test(test_watch),
		cmocka_unit_test(test_cancel),	   cmocka_unit_test(test_watch_refused),
		cmocka_unit_test(test_exclusive),
	};

	fail_by_abort();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
