/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Dirty bitmaps beside an array of bools that does the same slowly. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <glib.h>
#include <string.h>

#include "image/bitmap.h"

#define K	UINT64_C(1024)
#define GRANULE 512u

/* A disk of 70000 granules, the last one cut: more than two pages of bits. */
#define BITS 70000u
#define SIZE (BITS * (uint64_t)GRANULE - 100)

static void mark(bool *model, uint64_t offset, uint64_t len)
{
	for (uint64_t i = offset / GRANULE; len && i <= (offset + len - 1) / GRANULE && i < BITS;
	     i++)
		model[i] = true;
}

static void assert_same(const struct bitmap *b, const bool *model)
{
	uint64_t offset = 0, len;
	unsigned at = 0;

	while (bitmap_next(b, &offset, &len)) {
		assert_int_equal(offset % GRANULE, 0);
		for (; at < offset / GRANULE; at++)
			assert_false(model[at]);
		for (; at < BITS && at < (offset + len + GRANULE - 1) / GRANULE; at++)
			assert_true(model[at]);
		offset += len;
		assert_true(offset <= SIZE);
	}
	for (; at < BITS; at++)
		assert_false(model[at]);
}

static void fill_randomly(struct bitmap *b, bool *model, GRand *random)
{
	for (unsigned i = 0; i < 60; i++) {
		uint64_t offset = (uint64_t)g_rand_double_range(random, 0, SIZE);
		uint64_t len = g_rand_int_range(random, 0, i % 8 ? 3000 : 9000000);

		assert_int_equal(bitmap_set(b, offset, len), 0);
		mark(model, offset, len);
	}
}

static void test_set_and_next(void **state)
{
	for (unsigned seed = 0; seed < 8; seed++) {
		GRand *random = g_rand_new_with_seed(seed);
		g_autofree bool *model = g_new0(bool, BITS);
		struct bitmap *b = bitmap_new(SIZE, 9);

		assert_same(b, model);
		fill_randomly(b, model, random);
		assert_same(b, model);
		bitmap_free(b);
		g_rand_free(random);
	}
}

static void test_edges(void **state)
{
	struct bitmap *b = bitmap_new(SIZE, 9);
	uint64_t offset = 0, len = 0;

	assert_int_equal(bitmap_set(b, SIZE - 1, 1), 0);
	assert_true(bitmap_next(b, &offset, &len));
	assert_int_equal(offset, (BITS - 1) * (uint64_t)GRANULE);
	assert_int_equal(offset + len, SIZE);
	/* From the middle of a run. */
	offset += 10;
	assert_true(bitmap_next(b, &offset, &len));
	assert_int_equal(offset, (BITS - 1) * (uint64_t)GRANULE + 10);
	assert_int_equal(offset + len, SIZE);
	offset = SIZE;
	assert_false(bitmap_next(b, &offset, &len));
	/* Past the disk, or nothing at all. */
	assert_int_equal(bitmap_set(b, SIZE, 5), 0);
	assert_int_equal(bitmap_set(b, 0, 0), 0);
	offset = 0;
	assert_true(bitmap_next(b, &offset, &len));
	assert_int_equal(offset, (BITS - 1) * (uint64_t)GRANULE);
	assert_int_equal(bitmap_set(b, 0, UINT64_MAX), 0);
	offset = 0;
	assert_true(bitmap_next(b, &offset, &len));
	assert_int_equal(len, SIZE);
	bitmap_free(b);
	b = bitmap_new(0, 16);
	offset = 0;
	assert_false(bitmap_next(b, &offset, &len));
	assert_int_equal(bitmap_length(b), 0);
	bitmap_free(b);
}

static void test_limits(void **state)
{
	struct bitmap *b = bitmap_new((uint64_t)BITMAP_MAX_BYTES * 8 << 9, 9);

	assert_non_null(b);
	assert_int_equal(bitmap_length(b), BITMAP_MAX_BYTES);
	bitmap_free(b);
	assert_null(bitmap_new(((uint64_t)BITMAP_MAX_BYTES * 8 << 9) + 1, 9));
	assert_null(bitmap_new(UINT64_MAX, 9));
	b = bitmap_new(INT64_MAX, 31);
	assert_non_null(b);
	bitmap_free(b);
}

static void test_bytes(void **state)
{
	GRand *random = g_rand_new_with_seed(1);
	g_autofree bool *model = g_new0(bool, BITS);
	struct bitmap *b = bitmap_new(SIZE, 9), *copy = bitmap_new(SIZE, 9);
	uint8_t buf[3000];
	bool any = false;

	fill_randomly(b, model, random);
	/* The lowest bit of a byte is the lowest granule. */
	for (uint64_t at = 0; at < bitmap_length(b); at += sizeof(buf)) {
		any |= bitmap_get_bytes(b, at, buf, sizeof(buf));
		for (unsigned i = 0; i < sizeof(buf) * 8 && at * 8 + i < BITS; i++)
			assert_int_equal(buf[i / 8] >> i % 8 & 1, model[at * 8 + i]);
		assert_int_equal(bitmap_or_bytes(copy, at, buf, sizeof(buf)), 0);
	}
	assert_true(any);
	assert_same(copy, model);
	/* Garbage behind the last granule is not a bit. */
	memset(buf, 0xff, sizeof(buf));
	assert_int_equal(bitmap_or_bytes(copy, bitmap_length(copy) - 1, buf, sizeof(buf)), 0);
	bitmap_get_bytes(copy, bitmap_length(copy) - 1, buf, 2);
	assert_int_equal(buf[0], 0xff >> (8 - BITS % 8) % 8);
	assert_int_equal(buf[1], 0);
	assert_false(bitmap_get_bytes(copy, bitmap_length(copy), buf, 2));
	bitmap_free(b);
	bitmap_free(copy);
	g_rand_free(random);
}

static void test_merge(void **state)
{
	struct bitmap *fine = bitmap_new(1000 * K, 9), *coarse = bitmap_new(1000 * K, 16);
	uint64_t offset = 0, len = 0;

	bitmap_set(fine, 65 * K, 1);
	assert_int_equal(bitmap_merge(coarse, fine), 0);
	assert_true(bitmap_next(coarse, &offset, &len));
	assert_int_equal(offset, 64 * K);
	assert_int_equal(len, 64 * K);
	assert_int_equal(bitmap_merge(fine, coarse), 0);
	offset = 0;
	assert_true(bitmap_next(fine, &offset, &len));
	assert_int_equal(offset, 64 * K);
	assert_int_equal(len, 64 * K);
	bitmap_free(fine);
	bitmap_free(coarse);
}

static void test_resized(void **state)
{
	struct bitmap *b = bitmap_new(100 * K + 1, 16), *larger, *smaller;
	uint64_t offset = 0, len = 0;

	bitmap_set(b, 0, 1);
	bitmap_set(b, 100 * K, 1);
	larger = bitmap_resized(b, 300 * K);
	assert_true(bitmap_next(larger, &offset, &len));
	assert_int_equal(len, 128 * K);
	offset += len;
	assert_false(bitmap_next(larger, &offset, &len));
	smaller = bitmap_resized(b, 64 * K);
	offset = 0;
	assert_true(bitmap_next(smaller, &offset, &len));
	assert_int_equal(len, 64 * K);
	assert_int_equal(bitmap_length(smaller), 1);
	bitmap_free(b);
	bitmap_free(larger);
	bitmap_free(smaller);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_set_and_next), cmocka_unit_test(test_edges),
		cmocka_unit_test(test_limits),	     cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_merge),	     cmocka_unit_test(test_resized),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
