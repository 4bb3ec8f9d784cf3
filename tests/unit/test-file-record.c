/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The files that tell what a power cut leaves. */
#include <config.h>

#include "tests/unit/in-loop.h"

#include "io/co.h"
#include "io/file-record.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define SECTOR 512

static void put(struct file *f, uint64_t offset, int byte, size_t len)
{
	g_autofree void *buf = g_malloc(len);

	memset(buf, byte, len);
	assert_int_equal(file_write(f, offset, buf, len), 0);
}

/* The bytes of a cut's file, after which it is gone; its size in *size. */
static uint8_t *cut(struct record_log *log, unsigned file, size_t position, uint64_t seed,
		    size_t *size)
{
	struct file *f = record_log_cut(log, file, position, seed);
	uint8_t *bytes;

	*size = file_size(f);
	bytes = g_malloc0(*size + 1);
	assert_int_equal(file_read(f, 0, bytes, *size), 0);
	file_unref(f);
	return bytes;
}

static bool all_are(const uint8_t *bytes, size_t from, size_t to, int byte)
{
	for (size_t i = from; i < to; i++)
		if (bytes[i] != byte)
			return false;
	return true;
}

/* Durable bytes survive every cut; the rest by the seed. */
static int flushes(void *arg)
{
	struct record_log *log = record_log_new();
	struct file *inner = file_new_memory("disk", "old", 3), *f = record_file(log, inner);
	size_t before, flushed, size;

	put(f, 0, 'a', 2 * SECTOR);
	before = record_log_length(log);
	assert_int_equal(record_log_pending(log, before), 1);
	assert_int_equal(file_flush(f), 0);
	flushed = record_log_length(log);
	assert_true(record_log_flushed(log, flushed));
	assert_false(record_log_flushed(log, before));
	put(f, SECTOR, 'b', 2 * SECTOR);
	assert_int_equal(file_truncate(f, SECTOR), 0);

	for (uint64_t seed = 0; seed < 100; seed++) {
		g_autofree uint8_t *a = cut(log, 0, flushed, seed, &size);

		assert_int_equal(size, 2 * SECTOR);
		assert_true(all_are(a, 0, size, 'a'));
	}
	g_autofree uint8_t *lost = cut(log, 0, before, RECORD_LOSE_ALL, &size);
	assert_int_equal(size, 3);
	assert_memory_equal(lost, "old", 3);
	g_autofree uint8_t *kept = cut(log, 0, before, RECORD_KEEP_ALL, &size);
	assert_non_null(kept);
	assert_int_equal(size, 2 * SECTOR);
	g_autofree uint8_t *grown = cut(log, 0, flushed + 1, RECORD_KEEP_ALL, &size);
	assert_int_equal(size, 3 * SECTOR);
	assert_true(all_are(grown, 0, SECTOR, 'a') && all_are(grown, SECTOR, size, 'b'));
	g_autofree uint8_t *shrunk = cut(log, 0, flushed + 2, RECORD_KEEP_ALL, &size);
	assert_non_null(shrunk);
	assert_int_equal(size, SECTOR);
	g_autofree uint8_t *not_shrunk = cut(log, 0, flushed + 2, RECORD_LOSE_ALL, &size);
	assert_non_null(not_shrunk);
	assert_int_equal(size, 2 * SECTOR);
	/* And what was passed on is there. */
	assert_int_equal(file_size(inner), SECTOR);
	file_unref(f);
	file_unref(inner);
	record_log_free(log);
	return 0;
}

/* Every mixture of two writes is met, parts of one as well, and nothing else. */
static int mixtures(void *arg)
{
	struct record_log *log = record_log_new();
	struct file *inner = file_new_memory("disk", NULL, 8 * SECTOR);
	struct file *f = record_file(log, inner);
	bool first = false, second = false, both = false, none = false, torn = false;

	put(f, 0, 1, SECTOR);
	put(f, 100 + SECTOR, 2, 4 * SECTOR);
	for (uint64_t seed = 0; seed < 400; seed++) {
		size_t size;
		g_autofree uint8_t *b = cut(log, 0, 2, seed, &size);
		bool one = b[0] == 1, two = b[100 + SECTOR] == 2;

		assert_int_equal(size, 8 * SECTOR);
		assert_true(all_are(b, 0, SECTOR, one));
		assert_true(all_are(b, SECTOR, SECTOR + 100, 0));
		assert_true(all_are(b, 5 * SECTOR + 100, size, 0));
		if (!all_are(b, SECTOR + 100, 5 * SECTOR + 100, two ? 2 : 0)) {
			/* Only whole sectors go their own ways. */
			for (int s = 2; s < 5; s++)
				assert_true(all_are(b, s * SECTOR, (s + 1) * SECTOR, 2) ||
					    all_are(b, s * SECTOR, (s + 1) * SECTOR, 0));
			torn = true;
		} else {
			first |= one && !two;
			second |= two && !one;
			both |= one && two;
			none |= !one && !two;
		}
	}
	assert_true(first && second && both && none && torn);
	for (uint64_t mask = 0; mask < 4; mask++) {
		size_t size;
		g_autofree uint8_t *b = cut(log, 0, 2, RECORD_SUBSET(mask), &size);

		assert_int_equal(b[0], mask & 1 ? 1 : 0);
		assert_true(all_are(b, SECTOR + 100, 5 * SECTOR + 100, mask & 2 ? 2 : 0));
	}
	file_unref(f);
	file_unref(inner);
	record_log_free(log);
	return 0;
}

/* A flush speaks for its own file only; seeds mean the same for both. */
static int two_files(void *arg)
{
	struct record_log *log = record_log_new();
	struct file *a = file_new_memory("a", NULL, 0), *b = file_new_memory("b", NULL, 0);
	struct file *ra = record_file(log, a), *rb = record_file(log, b), *again;
	size_t size;

	put(ra, 0, 'a', SECTOR);
	put(rb, 0, 'b', SECTOR);
	assert_int_equal(file_flush(rb), 0);
	assert_int_equal(record_log_files(log), 2);
	assert_string_equal(record_log_name(log, 1), "b");
	assert_int_equal(record_log_pending(log, record_log_length(log)), 1);
	g_autofree uint8_t *a_cut = cut(log, 0, record_log_length(log), RECORD_LOSE_ALL, &size);
	assert_non_null(a_cut);
	assert_int_equal(size, 0);
	g_autofree uint8_t *b_cut = cut(log, 1, record_log_length(log), RECORD_LOSE_ALL, &size);
	assert_non_null(b_cut);
	assert_int_equal(size, SECTOR);

	/* Opened again, the same file goes on. */
	file_unref(ra);
	again = record_file(log, a);
	assert_int_equal(record_log_files(log), 2);
	assert_int_equal(file_flush(again), 0);
	assert_int_equal(record_log_pending(log, record_log_length(log)), 0);
	g_autofree char *text = record_log_describe(log, 0, record_log_length(log), 0);
	assert_non_null(strstr(text, "0 a write 0x0+0x200\n"));
	file_unref(again);
	file_unref(rb);
	file_unref(a);
	file_unref(b);
	record_log_free(log);
	return 0;
}

static int zeroes_and_holes(void *arg)
{
	struct record_log *log = record_log_new();
	struct file *inner = file_new_memory("disk", NULL, 0), *f = record_file(log, inner);
	size_t size;

	put(f, 0, 7, 8 * SECTOR);
	assert_int_equal(file_flush(f), 0);
	assert_int_equal(file_zero(f, SECTOR, SECTOR), 0);
	assert_int_equal(file_punch(f, 4 * SECTOR, 2 * SECTOR), 0);
	assert_int_equal(file_allocate(f, 8 * SECTOR, SECTOR), 0);
	g_autofree uint8_t *kept = cut(log, 0, record_log_length(log), RECORD_KEEP_ALL, &size);
	assert_non_null(kept);
	assert_int_equal(size, 9 * SECTOR);
	assert_true(all_are(kept, 0, SECTOR, 7) && all_are(kept, SECTOR, 2 * SECTOR, 0) &&
		    all_are(kept, 2 * SECTOR, 4 * SECTOR, 7) &&
		    all_are(kept, 4 * SECTOR, 6 * SECTOR, 0) &&
		    all_are(kept, 6 * SECTOR, 8 * SECTOR, 7));
	g_autofree uint8_t *lost = cut(log, 0, record_log_length(log), RECORD_LOSE_ALL, &size);
	assert_int_equal(size, 8 * SECTOR);
	assert_true(all_are(lost, 0, size, 7));
	file_unref(f);
	file_unref(inner);
	record_log_free(log);
	return 0;
}

static struct file *concurrent;

static int put_late(void *arg)
{
	put(concurrent, 0, GPOINTER_TO_INT(arg), SECTOR);
	return 0;
}

/* Of two writes under way at one time either may win; a flush does not cover what it met. */
static int under_way(void *arg)
{
	struct record_log *log = record_log_new();
	struct file *inner = file_new_memory("disk", NULL, SECTOR);
	bool won[3] = {false};
	struct co_group group;
	size_t size;

	concurrent = record_file(log, inner);
	record_log_yield(log, true);
	co_group_init(&group, 2);
	co_group_spawn(&group, put_late, GINT_TO_POINTER(1));
	co_group_spawn(&group, put_late, GINT_TO_POINTER(2));
	assert_int_equal(file_flush(concurrent), 0);
	assert_int_equal(co_group_wait(&group), 0);
	assert_int_equal(record_log_pending(log, record_log_length(log)), 2);
	for (uint64_t seed = 2; seed < 200; seed++) {
		g_autofree uint8_t *b = cut(log, 0, record_log_length(log), seed, &size);

		won[b[0]] = true;
	}
	assert_true(won[0] && won[1] && won[2]);
	/* Both survive, and yet the first is seen: it came last. */
	won[1] = won[2] = false;
	for (uint64_t seed = 2; seed < 200; seed++) {
		g_autofree char *text = record_log_describe(log, 0, 2, seed);
		g_autofree uint8_t *b = cut(log, 0, 2, seed, &size);

		if (!strstr(text, "LOST") && !strstr(text, "TORN"))
			won[b[0]] = true;
	}
	assert_true(won[1] && won[2]);
	file_unref(concurrent);
	file_unref(inner);
	record_log_free(log);
	return 0;
}

/* Under file_open, and cut to nothing by it. */
static int by_name(void *arg)
{
	struct record_log *log = record_log_new();
	struct file_options o = {.flags = FILE_RDWR | FILE_CREATE};
	struct file *f;
	size_t size;

	file_set_wrapper(record_opened, log);
	f = file_open("recorded", &o, NULL);
	assert_non_null(f);
	put(f, 0, 'x', 3 * SECTOR);
	assert_int_equal(file_flush(f), 0);
	file_unref(f);
	o.flags |= FILE_TRUNC;
	f = file_open("recorded", &o, NULL);
	assert_non_null(f);
	assert_int_equal(file_size(f), 0);
	file_unref(f);
	file_set_wrapper(NULL, NULL);
	g_autofree uint8_t *lost = cut(log, 0, record_log_length(log), RECORD_LOSE_ALL, &size);
	assert_int_equal(size, 3 * SECTOR);
	assert_true(all_are(lost, 0, size, 'x'));
	g_autofree uint8_t *kept = cut(log, 0, record_log_length(log), RECORD_KEEP_ALL, &size);
	assert_non_null(kept);
	assert_int_equal(size, 0);
	unlink("recorded");
	record_log_free(log);
	return 0;
}

/* In the cache modes that promise it, what returned is durable; in the one that does not care,
 * nothing is. */
static int cache_modes(void *arg)
{
	static const enum cache_mode modes[] = {CACHE_WRITETHROUGH, CACHE_WRITEBACK, CACHE_UNSAFE};
	static const unsigned pending[] = {0, 2, 3};

	for (unsigned i = 0; i < G_N_ELEMENTS(modes); i++) {
		struct record_log *log = record_log_new();
		struct file_options o = {.flags = FILE_RDWR | FILE_CREATE, .cache = modes[i]};
		struct file *f;

		file_set_wrapper(record_opened, log);
		f = file_open("recorded", &o, NULL);
		assert_non_null(f);
		put(f, 0, 'x', SECTOR);
		assert_int_equal(file_flush(f), 0);
		put(f, 0, 'y', SECTOR);
		assert_int_equal(file_truncate(f, 100), 0);
		assert_int_equal(record_log_pending(log, record_log_length(log)), pending[i]);
		file_unref(f);
		file_set_wrapper(NULL, NULL);
		unlink("recorded");
		record_log_free(log);
	}
	return 0;
}

TEST_IN_LOOP(flushes, flushes)
TEST_IN_LOOP(mixtures, mixtures)
TEST_IN_LOOP(two_files, two_files)
TEST_IN_LOOP(zeroes_and_holes, zeroes_and_holes)
TEST_IN_LOOP(under_way, under_way)
TEST_IN_LOOP(by_name, by_name)
TEST_IN_LOOP(cache_modes, cache_modes)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_flushes),	    cmocka_unit_test(test_mixtures),
		cmocka_unit_test(test_two_files),   cmocka_unit_test(test_zeroes_and_holes),
		cmocka_unit_test(test_under_way),   cmocka_unit_test(test_by_name),
		cmocka_unit_test(test_cache_modes),
	};

	fail_by_abort();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
