/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The write path with a fake driver: order of steps, failures, overlapping writers, copy-on-write.
 */
#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/fake-format.h"

static void expect_bytes(struct image *img, uint64_t offset, int byte, size_t len)
{
	g_autofree uint8_t *buf = g_malloc(len);

	assert_int_equal(image_read(img, offset, buf, len), 0);
	for (size_t i = 0; i < len; i++)
		if (buf[i] != byte)
			fail_msg("byte %zu is %d, not %d", (size_t)offset + i, buf[i], byte);
}

static int fill_write(struct image *img, uint64_t offset, int byte, size_t len)
{
	g_autofree uint8_t *buf = g_malloc(len);

	memset(buf, byte, len);
	return image_write(img, offset, buf, len);
}

static void body_allocates(void)
{
	struct image *img = fake_open(NULL, 0, IMAGE_RDWR);
	struct fake *f = fake_of(img);

	assert_int_equal(fill_write(img, 5000, 7, 8000), 0);
	assert_int_equal(f->reserves, 3);
	assert_int_equal(f->commits, 3);
	expect_bytes(img, 0, 0, 5000);
	expect_bytes(img, 5000, 7, 8000);
	expect_bytes(img, 13000, 0, 10000);
	/* What is allocated is overwritten in place. */
	assert_int_equal(fill_write(img, 6000, 9, 100), 0);
	assert_int_equal(f->reserves, 3);
	expect_bytes(img, 5000, 7, 1000);
	expect_bytes(img, 6000, 9, 100);
	image_unref(img);
}

static void body_failed_write(void)
{
	struct image *img = fake_open(NULL, 0, IMAGE_RDWR);
	struct fake *f = fake_of(img);

	f->bad_host = true;
	assert_true(fill_write(img, 0, 1, 100) < 0);
	assert_int_equal(f->abandons, 1);
	assert_int_equal(f->commits, 0);
	assert_int_equal(f->entry[0].kind, EXTENT_HOLE);
	assert_non_null(image_fault_text(img));
	image_fault_clear(img);
	assert_null(image_fault_text(img));
	f->fail_commit = -ENOSPC;
	assert_int_equal(fill_write(img, 0, 1, 100), -ENOSPC);
	assert_int_equal(f->entry[0].kind, EXTENT_HOLE);
	expect_bytes(img, 0, 0, 100);
	image_unref(img);
}

struct writer {
	struct image *img;
	uint64_t offset;
	int byte;
};

static int run_writer(void *arg)
{
	struct writer *w = arg;

	return fill_write(w->img, w->offset, w->byte, 1024);
}

/* Four writers of one cluster: the cluster is allocated once, and nobody's bytes are lost. */
static void body_overlapping(void)
{
	struct image *img = fake_open(NULL, 0, IMAGE_RDWR);
	struct writer w[4];
	struct co_group g;

	co_group_init(&g, 4);
	for (int i = 0; i < 4; i++) {
		w[i] = (struct writer){img, i * 1024, i + 1};
		co_group_spawn(&g, run_writer, &w[i]);
	}
	assert_int_equal(co_group_wait(&g), 0);
	assert_int_equal(fake_of(img)->reserves, 1);
	for (int i = 0; i < 4; i++)
		expect_bytes(img, i * 1024, i + 1, 1024);
	image_unref(img);
}

static void body_copy_on_write(void)
{
	struct image *img = fake_open(NULL, 0, IMAGE_RDWR);
	struct image *base = fake_open(NULL, 0, IMAGE_RDWR);

	assert_int_equal(fill_write(base, 0, 5, FAKE_SIZE), 0);
	img->backing = base; /* the reference goes with it */
	assert_int_equal(fill_write(img, 100, 6, 50), 0);
	expect_bytes(img, 0, 5, 100);
	expect_bytes(img, 100, 6, 50);
	expect_bytes(img, 150, 5, 10000);
	expect_bytes(base, 100, 5, 50);
	image_unref(img);
}

static void body_zeroes(void)
{
	struct image *img = fake_open(NULL, 0, IMAGE_RDWR);

	assert_int_equal(fill_write(img, 0, 5, FAKE_SIZE), 0);
	assert_int_equal(image_write_zeroes(img, 100, 3 * FAKE_CLUSTER, true), 0);
	expect_bytes(img, 0, 5, 100);
	expect_bytes(img, 100, 0, 3 * FAKE_CLUSTER);
	expect_bytes(img, 100 + 3 * FAKE_CLUSTER, 5, 1000);
	assert_int_equal(fake_of(img)->entry[1].kind, EXTENT_ZERO);
	assert_int_equal(image_discard(img, 5 * FAKE_CLUSTER + 1, 2 * FAKE_CLUSTER), 0);
	/* Only the whole cluster in the middle is given up. */
	expect_bytes(img, 5 * FAKE_CLUSTER, 5, FAKE_CLUSTER);
	expect_bytes(img, 6 * FAKE_CLUSTER, 0, FAKE_CLUSTER);
	expect_bytes(img, 7 * FAKE_CLUSTER, 5, FAKE_CLUSTER);
	image_unref(img);
}

static void body_read_only(void)
{
	struct image *img = fake_open(NULL, 0, 0);

	assert_int_equal(fill_write(img, 0, 1, 10), -EROFS);
	assert_int_equal(image_write_zeroes(img, 0, 10, false), -EROFS);
	assert_int_equal(image_discard(img, 0, 10), -EROFS);
	assert_int_equal(fake_of(img)->reserves, 0);
	image_unref(img);
}

#define TEST(name)                                                                                 \
	static void test_##name(void **state)                                                      \
	{                                                                                          \
		in_loop(body_##name);                                                              \
	}
TEST(allocates)
TEST(failed_write)
TEST(overlapping)
TEST(copy_on_write)
TEST(zeroes)
TEST(read_only)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_allocates),   cmocka_unit_test(test_failed_write),
		cmocka_unit_test(test_overlapping), cmocka_unit_test(test_copy_on_write),
		cmocka_unit_test(test_zeroes),	    cmocka_unit_test(test_read_only),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
