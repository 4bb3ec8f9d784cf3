/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The metadata cache's writing half: phases, joined requests, failures, ranges that are forgotten.
 */
#include "config.h"

#include <errno.h>
#include <string.h>

#include "tests/unit/in-loop.h"

#include "image/cache.h"
#include "io/file-fault.h"

struct fixture {
	struct cache *c;
	struct file *memory, *f;
};

static struct fixture begin(size_t bytes)
{
	struct fixture x = {.c = cache_new(0)};

	x.memory = file_new_memory("m", NULL, bytes);
	x.f = file_new_fault(x.memory);
	return x;
}

static void end(struct fixture *x)
{
	cache_drop_file(x->c, x->f);
	cache_unref(x->c);
	file_unref(x->f);
	file_unref(x->memory);
}

static void put(struct fixture *x, uint64_t offset, int byte, size_t len, unsigned phase)
{
	uint8_t *buf = malloc(len);

	memset(buf, byte, len);
	assert_int_equal(cache_write(x->c, x->f, offset, buf, len, phase), 0);
	free(buf);
}

static int in_file(struct fixture *x, uint64_t offset)
{
	uint8_t byte;

	assert_int_equal(file_read(x->memory, offset, &byte, 1), 0);
	return byte;
}

static int in_cache(struct fixture *x, uint64_t offset)
{
	uint8_t byte;

	assert_int_equal(cache_read(x->c, x->f, offset, &byte, 1), 0);
	return byte;
}

static int co_phases(void *arg)
{
	struct fixture x = begin(1 << 20);

	put(&x, 0, 1, 512, 2);
	put(&x, 512, 2, 512, 1);
	put(&x, 1024, 3, 4, 0);
	assert_int_equal(in_file(&x, 0), 0);
	assert_true(cache_has_dirty(x.c, x.f, 2));
	assert_int_equal(cache_write_phase(x.c, x.f, 0), 0);
	assert_int_equal(in_file(&x, 1024), 3);
	assert_int_equal(in_file(&x, 512), 0);
	assert_int_equal(cache_write_phase(x.c, x.f, 1), 0);
	assert_int_equal(in_file(&x, 512), 2);
	assert_int_equal(in_file(&x, 0), 0);
	/* A dirty sector keeps the lower phase, whichever came first. */
	put(&x, 4, 9, 4, 3);
	put(&x, 8, 9, 4, 1);
	assert_false(cache_has_dirty(x.c, x.f, 3));
	assert_false(cache_has_dirty(x.c, x.f, 2));
	assert_int_equal(cache_write_phase(x.c, x.f, 1), 0);
	assert_int_equal(in_file(&x, 0), 1);
	assert_int_equal(in_file(&x, 4), 9);
	for (unsigned p = 0; p < CACHE_PHASES; p++)
		assert_false(cache_has_dirty(x.c, x.f, p));
	end(&x);
	return 0;
}

static int co_joins(void *arg)
{
	struct fixture x = begin(1 << 20);

	/* Written backwards, from the middle of a block to the middle of another. */
	for (int i = 40; i >= 3; i--)
		put(&x, i * 512, i, 512, 0);
	put(&x, 50 * 512, 50, 512, 0);
	assert_int_equal(cache_write_phase(x.c, x.f, 0), 0);
	assert_int_equal(file_fault_count(x.f, FAULT_WRITE), 2);
	for (int i = 0; i < 60; i++)
		assert_int_equal(in_file(&x, i * 512 + 511),
				 (i >= 3 && i <= 40) || i == 50 ? i : 0);
	end(&x);
	return 0;
}

static int co_whole_blocks(void *arg)
{
	struct fixture x = begin(1 << 20);

	put(&x, 0, 7, 4 * CACHE_BLOCK, 0);
	assert_int_equal(file_fault_count(x.f, FAULT_READ), 0);
	/* Nor is what lies past the end of the file. */
	put(&x, 4 << 20, 7, 100, 0);
	assert_int_equal(file_fault_count(x.f, FAULT_READ), 0);
	put(&x, 5 * CACHE_BLOCK, 7, 100, 0);
	assert_int_equal(file_fault_count(x.f, FAULT_READ), 1);
	end(&x);
	return 0;
}

static int co_failure(void *arg)
{
	struct fixture x = begin(1 << 20);

	put(&x, 0, 1, 512, 0);
	put(&x, 8192, 2, 512, 0);
	file_fault_set(x.f, FAULT_WRITE, 1, ENOSPC, false);
	assert_int_equal(cache_write_phase(x.c, x.f, 0), -ENOSPC);
	/* The others are tried all the same, and nothing is forgotten. */
	assert_int_equal(in_file(&x, 8192), 2);
	assert_true(cache_has_dirty(x.c, x.f, 0));
	assert_int_equal(in_cache(&x, 0), 1);
	assert_int_equal(cache_write_phase(x.c, x.f, 0), 0);
	assert_int_equal(in_file(&x, 0), 1);
	end(&x);
	return 0;
}

/* Dirty blocks outlive any number of others; afterwards the cache is as small as before. */
static int co_never_lost(void *arg)
{
	struct fixture x = begin(8 << 20);
	struct cache_stats s;

	cache_get_stats(x.c, &s);
	for (uint64_t i = 0; i < 300; i++)
		put(&x, i * CACHE_BLOCK, 1 + i % 200, 1, 0);
	assert_true(cache_wants_flush(x.c, x.f));
	for (uint64_t i = 300; i < 1000; i++)
		in_cache(&x, i * CACHE_BLOCK);
	for (uint64_t i = 0; i < 300; i++)
		assert_int_equal(in_cache(&x, i * CACHE_BLOCK), 1 + i % 200);
	assert_int_equal(cache_write_phase(x.c, x.f, 0), 0);
	assert_false(cache_wants_flush(x.c, x.f));
	for (uint64_t i = 0; i < 300; i++)
		assert_int_equal(in_file(&x, i * CACHE_BLOCK), 1 + i % 200);
	cache_get_stats(x.c, &s);
	assert_int_equal(s.dirty, 0);
	assert_true(s.bytes <= s.limit);
	end(&x);
	return 0;
}

static int co_drops(void *arg)
{
	struct fixture x = begin(1 << 20);

	put(&x, 0, 1, 2 * CACHE_BLOCK, 0);
	cache_drop_range(x.c, x.f, 512, 1024);
	cache_drop_range(x.c, x.f, CACHE_BLOCK, CACHE_BLOCK);
	assert_int_equal(file_write(x.f, 512, "\5", 1), 0);
	assert_int_equal(in_cache(&x, 0), 1);
	assert_int_equal(in_cache(&x, 512), 5);
	assert_int_equal(in_cache(&x, 1024), 0);
	assert_int_equal(in_cache(&x, 1536), 1);
	assert_int_equal(in_cache(&x, CACHE_BLOCK), 0);
	assert_int_equal(cache_write_phase(x.c, x.f, 0), 0);
	assert_int_equal(in_file(&x, 0), 1);
	assert_int_equal(in_file(&x, 512), 5);
	assert_int_equal(in_file(&x, 1024), 0);
	assert_int_equal(in_file(&x, 1536), 1);
	/* A clean block that is dropped in part and then as a whole, by a range of any length. */
	cache_drop_range(x.c, x.f, 0, 512);
	assert_int_equal(file_write(x.f, 0, "\6\6", 2), 0);
	assert_int_equal(in_cache(&x, 1), 6);
	cache_drop_range(x.c, x.f, 0, UINT64_MAX / 2);
	assert_int_equal(in_cache(&x, 1), 6);
	end(&x);
	return 0;
}

TEST_IN_LOOP(phases, co_phases)
TEST_IN_LOOP(joins, co_joins)
TEST_IN_LOOP(whole_blocks, co_whole_blocks)
TEST_IN_LOOP(failure, co_failure)
TEST_IN_LOOP(never_lost, co_never_lost)
TEST_IN_LOOP(drops, co_drops)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_phases),	     cmocka_unit_test(test_joins),
		cmocka_unit_test(test_whole_blocks), cmocka_unit_test(test_failure),
		cmocka_unit_test(test_never_lost),   cmocka_unit_test(test_drops),
	};

	fail_by_abort();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
