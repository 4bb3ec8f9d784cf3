/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* For unit tests that need a loop around them. */
#ifndef IMGFS_TESTS_UNIT_IN_LOOP_H
#define IMGFS_TESTS_UNIT_IN_LOOP_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "io/loop.h"

/* Call first in main: a check that fails inside a coroutine cannot jump back to
 * cmocka on another stack, so it ends the program. */
static inline void fail_by_abort(void)
{
	setenv("CMOCKA_TEST_ABORT", "1", 1);
}

/* Runs fn in a coroutine of a new loop of this thread. */
static inline int in_loop(int (*fn)(void *arg), void *arg)
{
	struct loop *loop = loop_new(NULL);

	assert_non_null(loop);
	int ret = loop_run(loop, fn, arg);
	loop_free(loop);
	return ret;
}

/* test_NAME for cmocka, which runs the coroutine `body` in a loop and expects 0 of it. */
#define TEST_IN_LOOP(name, body)                                                                   \
	static void test_##name(void **state)                                                      \
	{                                                                                          \
		assert_int_equal(in_loop(body, NULL), 0);                                          \
	}

#endif
