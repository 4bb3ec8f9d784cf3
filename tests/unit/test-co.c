/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Coroutines and how they wait for one another. Built twice: with the stack switch
 * of this processor, and with the portable one. */
#include <config.h>

#include "tests/unit/in-loop.h"

#include "io/co-switch.h"
#include "io/co.h"
#include "io/sanitizers.h"

#include <errno.h>
#include <fenv.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* What happened, in order, one letter an event. */
static char trace[256];

static void event(char c)
{
	size_t n = strlen(trace);

	assert_true(n < sizeof(trace) - 1);
	trace[n] = c;
	trace[n + 1] = 0;
}

static void no_events(void)
{
	memset(trace, 0, sizeof(trace));
}

/* --- spawn, yield, wake --- */

static struct co *sleeper;

static void yields_once(void *arg)
{
	sleeper = co_self();
	event('a');
	co_yield();
	event('c');
}

static int spawn_runs_to_first_yield(void *arg)
{
	struct co *self = co_self();

	no_events();
	co_spawn(yields_once, NULL);
	assert_ptr_equal(co_self(), self);
	event('b');
	co_wake(sleeper);
	event('w'); /* waking does not run it */
	co_relax();
	event('d');
	assert_string_equal(trace, "abwcd");
	return 0;
}

static void test_spawn(void **state)
{
	assert_null(co_self());
	in_loop(spawn_runs_to_first_yield, NULL);
	assert_null(co_self());
}

static void spawns_deeper(void *arg)
{
	int depth = *(int *)arg;
	char local[64];

	memset(local, depth, sizeof(local));
	if (depth > 0) {
		int next = depth - 1;

		co_spawn(spawns_deeper, &next);
	}
	co_relax();
	for (size_t i = 0; i < sizeof(local); i++)
		assert_int_equal(local[i], depth);
	event((char)('0' + depth));
}

static int nested(void *arg)
{
	int depth = 5;

	no_events();
	co_spawn(spawns_deeper, &depth);
	for (int i = 0; i < 3; i++)
		co_relax();
	/* The innermost reached its yield first. */
	assert_string_equal(trace, "012345");
	return 0;
}

static void test_nested(void **state)
{
	in_loop(nested, NULL);
}

static unsigned ended;

/* ThreadSanitizer needs minutes for thousands of fibers. */
#ifdef BUILT_WITH_TSAN
#define MANY 300
#else
#define MANY 3000
#endif

static void yields_often(void *arg)
{
	unsigned char fill = (unsigned char)(uintptr_t)arg;
	unsigned char local[1000];

	memset(local, fill, sizeof(local));
	for (int i = 0; i < 3; i++) {
		co_relax();
		for (size_t j = 0; j < sizeof(local); j += 100)
			assert_int_equal(local[j], fill);
	}
	ended++;
}

static int many(void *arg)
{
	ended = 0;
	for (uintptr_t i = 0; i < MANY; i++)
		co_spawn(yields_often, (void *)i);
	while (ended < MANY)
		co_relax();
	return 42;
}

static void test_many(void **state)
{
	assert_int_equal(in_loop(many, NULL), 42);
	assert_int_equal(in_loop(many, NULL), 42); /* with what the first left behind */
}

static void rounds_up(void *arg)
{
	fesetround(FE_UPWARD);
	co_relax();
	assert_int_equal(fegetround(), FE_UPWARD);
}

static int rounding(void *arg)
{
	fesetround(FE_DOWNWARD);
	co_spawn(rounds_up, NULL);
	/* The first switch is a call like any other: it changes no modes here. */
	assert_int_equal(fegetround(), FE_DOWNWARD);
	co_relax();
	assert_int_equal(fegetround(), FE_DOWNWARD);
	fesetround(FE_TONEAREST);
	return 0;
}

static void test_floating_point_modes(void **state)
{
	if (strcmp(co_switch_name(), "x86-64") != 0 || getenv("RUNNING_ON_VALGRIND"))
		skip(); /* the others need not keep them */
	in_loop(rounding, NULL);
}

static int eat_stack(volatile char *above, int calls)
{
	volatile char here[1024];

	here[0] = *above;
	if (calls == 0)
		return 0;
	return eat_stack(here, calls - 1) + here[0];
}

static int overflow(void *arg)
{
	char c = 0;

	return eat_stack(&c, 1 << 20);
}

static void test_guard_page(void **state)
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		struct rlimit no_core = {0, 0};

		setrlimit(RLIMIT_CORE, &no_core);
		if (!freopen("/dev/null", "w", stderr))
			_exit(1);
		in_loop(overflow, NULL);
		_exit(0);
	}

	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	/* A sanitizer catches the signal, reports and exits with a status. */
	assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) > 1);
}

/* --- sleeping --- */

static uint64_t last_deadline;

/* They end in the order of their deadlines, which on a busy machine need not be that of ms. */
static void sleeps(void *arg)
{
	unsigned ms = (unsigned)(uintptr_t)arg;
	uint64_t deadline = loop_now() + ms * UINT64_C(1000000);

	co_sleep_ns(ms * UINT64_C(1000000));
	assert_true(loop_now() >= deadline);
	assert_true(deadline >= last_deadline);
	last_deadline = deadline;
	ended++;
}

static int sleeping(void *arg)
{
	static const unsigned ms[] = {50, 10, 30, 0, 40, 20};

	ended = 0;
	last_deadline = 0;
	for (size_t i = 0; i < sizeof(ms) / sizeof(ms[0]); i++)
		co_spawn(sleeps, (void *)(uintptr_t)ms[i]);
	co_sleep_ns(200000000);
	assert_int_equal(ended, 6);
	return 0;
}

static void test_sleep(void **state)
{
	in_loop(sleeping, NULL);
}

/* --- locks --- */

static struct co_mutex mutex;

static void takes_mutex(void *arg)
{
	co_mutex_lock(&mutex);
	event((char)(uintptr_t)arg);
	co_relax();
	co_mutex_unlock(&mutex);
}

static int mutex_is_fair(void *arg)
{
	no_events();
	co_mutex_lock(&mutex);
	for (uintptr_t c = 'a'; c <= 'c'; c++)
		co_spawn(takes_mutex, (void *)c);
	assert_string_equal(trace, "");
	co_mutex_unlock(&mutex);
	/* Unlocked, but promised to 'a': whoever comes now is last. */
	co_mutex_lock(&mutex);
	assert_string_equal(trace, "abc");
	co_mutex_unlock(&mutex);
	assert_false(mutex.held);
	return 0;
}

static void test_mutex(void **state)
{
	in_loop(mutex_is_fair, NULL);
}

static struct co_rwlock rwlock;

static void reads(void *arg)
{
	co_rwlock_rdlock(&rwlock);
	event((char)(uintptr_t)arg);
	co_relax();
	assert_true(rwlock.holders > 0);
	co_rwlock_unlock(&rwlock);
}

static void writes(void *arg)
{
	co_rwlock_wrlock(&rwlock);
	event((char)(uintptr_t)arg);
	co_relax();
	assert_int_equal(rwlock.holders, -1);
	co_rwlock_unlock(&rwlock);
}

static int rwlock_is_fair(void *arg)
{
	no_events();
	co_spawn(reads, (void *)'a');
	co_spawn(reads, (void *)'b');
	assert_string_equal(trace, "ab"); /* together */
	co_spawn(writes, (void *)'W');
	co_spawn(reads, (void *)'c'); /* behind the writer */
	co_spawn(reads, (void *)'d');
	co_spawn(writes, (void *)'X');
	assert_string_equal(trace, "ab");
	co_rwlock_wrlock(&rwlock);
	assert_string_equal(trace, "abWcdX");
	co_rwlock_unlock(&rwlock);
	assert_int_equal(rwlock.holders, 0);
	return 0;
}

static void test_rwlock(void **state)
{
	in_loop(rwlock_is_fair, NULL);
}

static struct co_queue queue;

static void queues(void *arg)
{
	co_queue_wait(&queue);
	event((char)(uintptr_t)arg);
}

static int queue_is_in_order(void *arg)
{
	no_events();
	assert_false(co_queue_wake_one(&queue));
	for (uintptr_t c = 'a'; c <= 'd'; c++)
		co_spawn(queues, (void *)c);
	assert_true(co_queue_wake_one(&queue));
	co_relax();
	assert_string_equal(trace, "a");
	co_queue_wake_all(&queue);
	co_relax();
	assert_string_equal(trace, "abcd");
	assert_false(co_queue_wake_one(&queue));
	return 0;
}

static void test_queue(void **state)
{
	in_loop(queue_is_in_order, NULL);
}

/* --- groups --- */

static unsigned now_running, most_running;

static int member(void *arg)
{
	int ret = *(int *)arg;

	now_running++;
	if (now_running > most_running)
		most_running = now_running;
	co_sleep_ns(1000000);
	now_running--;
	return ret;
}

static int group(void *arg)
{
	struct co_group g;

	co_group_init(&g, 3);
	most_running = 0;
	for (int i = 0; i < 10; i++) {
		int ret = i == 4 ? -ENOSPC : i == 7 ? -EIO : 0;

		co_group_spawn(&g, member, &ret);
	}
	assert_int_equal(co_group_wait(&g), -ENOSPC); /* the first one */
	assert_int_equal(now_running, 0);
	assert_int_equal(most_running, 3);
	assert_int_equal(co_group_wait(&g), 0); /* cleared */
	return 0;
}

static void test_group(void **state)
{
	in_loop(group, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_spawn),	   cmocka_unit_test(test_nested),
		cmocka_unit_test(test_many),	   cmocka_unit_test(test_floating_point_modes),
		cmocka_unit_test(test_guard_page), cmocka_unit_test(test_sleep),
		cmocka_unit_test(test_mutex),	   cmocka_unit_test(test_rwlock),
		cmocka_unit_test(test_queue),	   cmocka_unit_test(test_group),
	};

	fail_by_abort();
	printf("stack switch: %s\n", co_switch_name());
	return cmocka_run_group_tests(tests, NULL, NULL);
}
