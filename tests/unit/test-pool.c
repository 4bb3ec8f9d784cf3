/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The worker pool, from one loop and from several at once. */
#include <config.h>

#include "tests/unit/in-loop.h"

#include "io/co.h"
#include "io/pool.h"
#include "io/sanitizers.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

static pthread_t worker_thread;

static int note_thread(void *arg)
{
	worker_thread = pthread_self();
	assert_null(co_self());
	return *(int *)arg;
}

static int runs_elsewhere(void *arg)
{
	int value = -EIO;

	assert_int_equal(pool_run(note_thread, &value), -EIO);
	assert_false(pthread_equal(worker_thread, pthread_self()));
	value = 17;
	assert_int_equal(pool_run_blocking(note_thread, &value), 17);
	assert_false(pthread_equal(worker_thread, pthread_self()));
	return 0;
}

static void test_runs_elsewhere(void **state)
{
	assert_true(pool_width() >= 1);
	in_loop(runs_elsewhere, NULL);
}

static void test_in_place_outside(void **state)
{
	int value = 5;

	assert_int_equal(pool_run(note_thread, &value), 5);
	assert_true(pthread_equal(worker_thread, pthread_self()));
}

static int signals_are_blocked(void *arg)
{
	sigset_t set;

	pthread_sigmask(SIG_SETMASK, NULL, &set);
	return sigismember(&set, SIGTERM) && sigismember(&set, SIGUSR1);
}

static int signals(void *arg)
{
	assert_int_equal(pool_run(signals_are_blocked, NULL), 1);
	return 0;
}

static void test_signals(void **state)
{
	in_loop(signals, NULL);
}

/* --- blocking calls do not wait for one another --- */

#define BLOCKED 32
static pthread_barrier_t barrier;

static int meet(void *arg)
{
	/* Returns only if all of them are running at the same time. */
	pthread_barrier_wait(&barrier);
	return 0;
}

static int meets(void *arg)
{
	return pool_run_blocking(meet, NULL);
}

static int all_meet(void *arg)
{
	struct co_group g;

	co_group_init(&g, BLOCKED);
	for (int i = 0; i < BLOCKED; i++)
		co_group_spawn(&g, meets, NULL);
	return co_group_wait(&g);
}

static void test_blocking(void **state)
{
	assert_int_equal(pthread_barrier_init(&barrier, NULL, BLOCKED), 0);
	assert_int_equal(in_loop(all_meet, NULL), 0);
	pthread_barrier_destroy(&barrier);
}

/* --- jobs that take turns --- */

static struct pool_turn turns[2];
static atomic_uint inside[2], most[2], turns_done;

static int take_turn(void *arg)
{
	unsigned which = *(unsigned *)arg, now = atomic_fetch_add(&inside[which], 1) + 1;

	if (now > atomic_load(&most[which]))
		atomic_store(&most[which], now);
	usleep(200);
	atomic_fetch_sub(&inside[which], 1);
	atomic_fetch_add(&turns_done, 1);
	return (int)which;
}

static int in_turn(void *arg)
{
	unsigned which = *(unsigned *)arg;

	assert_int_equal(pool_run_in_turn(&turns[which], take_turn, &which), which);
	return 0;
}

static int take_turns(void *arg)
{
	struct co_group g;

	co_group_init(&g, 50);
	for (unsigned i = 0; i < 400; i++) {
		unsigned which = i % 2;

		co_group_spawn(&g, in_turn, &which);
	}
	assert_int_equal(co_group_wait(&g), 0);
	assert_int_equal(atomic_load(&turns_done), 400);
	assert_int_equal(atomic_load(&most[0]), 1);
	assert_int_equal(atomic_load(&most[1]), 1);
	assert_false(turns[0].taken || turns[1].taken);
	return 0;
}

static void test_turns(void **state)
{
	in_loop(take_turns, NULL);
}

/* --- many loops --- */

#define JOBS 2000
static atomic_uint done;

static int square(void *arg)
{
	unsigned *n = arg;

	*n *= *n;
	atomic_fetch_add(&done, 1);
	return 0;
}

static int job(void *arg)
{
	unsigned n = *(unsigned *)arg, start = n;
	int ret = n % 2 ? pool_run(square, &n) : pool_run_blocking(square, &n);

	assert_int_equal(n, start * start);
	return ret;
}

static int many_jobs(void *arg)
{
	struct co_group g;

	co_group_init(&g, 100);
	for (unsigned i = 0; i < JOBS; i++)
		co_group_spawn(&g, job, &i);
	return co_group_wait(&g);
}

static void *jobs_thread(void *arg)
{
	assert_int_equal(in_loop(many_jobs, NULL), 0);
	return NULL;
}

static void run_from_loops(void)
{
	pthread_t threads[4];

	atomic_store(&done, 0);
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, jobs_thread, NULL), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(atomic_load(&done), 4 * JOBS);
}

static void test_many_loops(void **state)
{
	run_from_loops();
}

static void test_shutdown_and_again(void **state)
{
	pool_shutdown();
	pool_shutdown();
	run_from_loops();
	pool_shutdown();
	in_loop(runs_elsewhere, NULL);
}

static void test_after_fork(void **state)
{
#ifdef BUILT_WITH_TSAN
	skip(); /* it mistakes the child's threads for the parent's */
#endif
	in_loop(runs_elsewhere, NULL); /* there are threads to be forgotten */
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		alarm(20);
		in_loop(runs_elsewhere, NULL);
		pool_shutdown();
		_exit(0);
	}

	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	in_loop(runs_elsewhere, NULL); /* and the parent kept its own */
}

int main(void)
{
	struct CMUnitTest tests[] = {
		cmocka_unit_test(test_runs_elsewhere),
		cmocka_unit_test(test_in_place_outside),
		cmocka_unit_test(test_signals),
		cmocka_unit_test(test_blocking),
		cmocka_unit_test(test_turns),
		cmocka_unit_test(test_many_loops),
		cmocka_unit_test(test_shutdown_and_again),
		cmocka_unit_test(test_after_fork),
	};

	fail_by_abort();
	int ret = cmocka_run_group_tests(tests, NULL, NULL);
	pool_shutdown();
	return ret;
}
