/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The metadata cache, reading: what it holds, for how long, and that each block is read once. */
#include "config.h"

#include "tests/unit/in-loop.h"

#include <errno.h>
#include <string.h>

#include "image/cache.h"
#include "io/co.h"
#include "io/file-fault.h"

#define BLOCKS 200u
#define SIZE   (BLOCKS * CACHE_BLOCK - 1000) /* the last block is cut short */

static uint8_t byte_at(uint64_t offset)
{
	return offset < SIZE ? 1 + offset / 16 % 251 : 0;
}

/* A file of known bytes that counts reads. */
static struct file *counted(void)
{
	g_autofree uint8_t *bytes = g_malloc(SIZE);
	struct file *inner, *f;

	for (uint64_t i = 0; i < SIZE; i++)
		bytes[i] = byte_at(i);
	inner = file_new_memory("tables", bytes, SIZE);
	f = file_new_fault(inner);
	file_unref(inner);
	return f;
}

static uint64_t reads(const struct file *f)
{
	return file_fault_count(f, FAULT_READ);
}

static void expect(struct cache *c, struct file *f, uint64_t offset, size_t len)
{
	g_autofree uint8_t *buf = g_malloc(len);

	assert_int_equal(cache_read(c, f, offset, buf, len), 0);
	for (size_t i = 0; i < len; i++)
		if (buf[i] != byte_at(offset + i))
			fail_msg("byte %zu is %d", (size_t)offset + i, buf[i]);
}

static int contents(void *arg)
{
	struct cache *c = cache_new(1 << 20);
	struct file *f = counted();
	struct cache_block *b;
	const void *data;
	size_t left;

	for (uint64_t at = 0; at < SIZE + 20000; at += 777)
		expect(c, f, at, 1 + at % 9000);
	expect(c, f, UINT64_C(1) << 40, 10);
	assert_int_equal(cache_get(c, f, CACHE_BLOCK + 100, &b, &data, &left), 0);
	assert_int_equal(left, CACHE_BLOCK - 100);
	assert_int_equal(*(const uint8_t *)data, byte_at(CACHE_BLOCK + 100));
	cache_put(b);
	cache_drop_file(c, f);
	cache_unref(c);
	file_unref(f);
	return 0;
}

/* A hit asks no file; the oldest unpinned block goes first; the bound holds. */
static int bounded(void *arg)
{
	struct cache *c = cache_new(0); /* raised to 64 blocks */
	struct file *f = counted();
	struct cache_stats s;
	struct cache_block *pinned;
	const void *data;
	size_t left;

	for (unsigned n = 0; n < 64; n++)
		expect(c, f, n * CACHE_BLOCK, 1);
	assert_int_equal(reads(f), 64);
	for (unsigned n = 0; n < 64; n++)
		expect(c, f, n * CACHE_BLOCK + 5, 100);
	assert_int_equal(reads(f), 64);
	cache_get_stats(c, &s);
	assert_int_equal(s.limit, 64 * CACHE_BLOCK);
	assert_int_equal(s.bytes, s.limit);
	assert_int_equal(s.hits, 64);
	assert_int_equal(s.misses, 64);

	/* Block 0 is in use and stays; 1 was used last and stays; 2 goes for 64. */
	assert_int_equal(cache_get(c, f, 0, &pinned, &data, &left), 0);
	expect(c, f, CACHE_BLOCK, 1);
	expect(c, f, 64 * CACHE_BLOCK, 1);
	assert_int_equal(reads(f), 65);
	expect(c, f, 0, 1);
	expect(c, f, CACHE_BLOCK, 1);
	assert_int_equal(reads(f), 65);
	expect(c, f, 2 * CACHE_BLOCK, 1);
	assert_int_equal(reads(f), 66);
	for (unsigned n = 65; n < BLOCKS; n++)
		expect(c, f, n * CACHE_BLOCK, 1);
	assert_int_equal(*(const uint8_t *)data, byte_at(0));
	cache_get_stats(c, &s);
	assert_int_equal(s.bytes, s.limit);
	cache_put(pinned);
	cache_drop_file(c, f);
	cache_get_stats(c, &s);
	assert_int_equal(s.bytes, 0);
	cache_unref(c);
	file_unref(f);
	return 0;
}

static struct cache *shared;
static struct file *shared_file;

static int read_one(void *arg)
{
	uint8_t byte;
	int ret = cache_read(shared, shared_file, GPOINTER_TO_UINT(arg), &byte, 1);

	if (ret == 0)
		assert_int_equal(byte, byte_at(GPOINTER_TO_UINT(arg)));
	return ret;
}

/* Those who come while a block is read wait for it; an error is theirs too, and is not kept. */
static int together(void *arg)
{
	struct co_group group;

	shared = cache_new(1 << 20);
	shared_file = counted();
	file_fault_yield(shared_file, true);
	co_group_init(&group, 10);
	for (unsigned i = 0; i < 10; i++)
		co_group_spawn(&group, read_one, GUINT_TO_POINTER(i * 100));
	assert_int_equal(co_group_wait(&group), 0);
	assert_int_equal(reads(shared_file), 1);

	file_fault_set(shared_file, FAULT_READ, 1, EIO, false);
	co_group_init(&group, 1);
	co_group_spawn(&group, read_one, GUINT_TO_POINTER(CACHE_BLOCK));
	assert_int_equal(co_group_wait(&group), -EIO);
	file_fault_set(shared_file, FAULT_READ, 1, EIO, false);
	int failed = 0;
	struct co_group groups[4];
	for (unsigned i = 0; i < 4; i++) {
		co_group_init(&groups[i], 1);
		co_group_spawn(&groups[i], read_one, GUINT_TO_POINTER(CACHE_BLOCK + i));
	}
	for (unsigned i = 0; i < 4; i++)
		failed += co_group_wait(&groups[i]) == -EIO;
	assert_int_equal(failed, 4);
	expect(shared, shared_file, CACHE_BLOCK, CACHE_BLOCK);
	cache_drop_file(shared, shared_file);
	cache_unref(shared);
	file_unref(shared_file);
	return 0;
}

/* More readers than blocks, each with a block pinned: they wait for room, and all come through. */
static int pin_and_yield(void *arg)
{
	struct cache_block *b;
	const void *data;
	size_t left;
	uint64_t at = (uint64_t)GPOINTER_TO_UINT(arg) * CACHE_BLOCK;
	int ret = cache_get(shared, shared_file, at, &b, &data, &left);

	if (ret < 0)
		return ret;
	for (unsigned i = 0; i < 5; i++)
		co_relax();
	assert_int_equal(*(const uint8_t *)data, byte_at(at));
	cache_put(b);
	return 0;
}

static int crowded(void *arg)
{
	struct co_group group;
	struct cache_stats s;

	shared = cache_new(0);
	shared_file = counted();
	file_fault_yield(shared_file, true);
	co_group_init(&group, BLOCKS);
	for (unsigned i = 0; i < BLOCKS; i++)
		co_group_spawn(&group, pin_and_yield, GUINT_TO_POINTER(i));
	cache_get_stats(shared, &s);
	assert_int_equal(s.bytes, s.limit);
	assert_int_equal(co_group_wait(&group), 0);
	cache_get_stats(shared, &s);
	assert_int_equal(s.bytes, s.limit);
	cache_drop_file(shared, shared_file);
	cache_unref(shared);
	file_unref(shared_file);
	return 0;
}

/* Files are told apart; forgetting one leaves the other. */
static int two_files(void *arg)
{
	struct cache *c = cache_new(1 << 20);
	struct file *a = counted(), *b = file_new_memory("b", "other", 5);
	char buf[5];

	expect(c, a, 0, 100);
	assert_int_equal(cache_read(c, b, 0, buf, 5), 0);
	assert_memory_equal(buf, "other", 5);
	cache_drop_file(c, b);
	expect(c, a, 0, 100);
	assert_int_equal(reads(a), 1);
	assert_int_equal(file_write(b, 0, "again", 5), 0);
	assert_int_equal(cache_read(c, b, 0, buf, 5), 0);
	assert_memory_equal(buf, "again", 5);
	cache_drop_file(c, a);
	cache_drop_file(c, b);
	cache_unref(c);
	file_unref(a);
	file_unref(b);
	return 0;
}

TEST_IN_LOOP(contents, contents)
TEST_IN_LOOP(bounded, bounded)
TEST_IN_LOOP(together, together)
TEST_IN_LOOP(crowded, crowded)
TEST_IN_LOOP(two_files, two_files)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_contents),  cmocka_unit_test(test_bounded),
		cmocka_unit_test(test_together),  cmocka_unit_test(test_crowded),
		cmocka_unit_test(test_two_files),
	};

	fail_by_abort();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
