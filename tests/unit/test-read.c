/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Map and read with a fake driver: chains, holes, coded units, damage. */
#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <zlib.h>

#include <cmocka.h>

#include "tests/unit/fake-format.h"

/* One cluster of this byte as raw deflate. */
static uint32_t deflate_cluster(int byte, uint8_t *out, size_t max)
{
	uint8_t plain[FAKE_CLUSTER];
	z_stream z = {0};

	memset(plain, byte, sizeof(plain));
	assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, -12, 8, Z_DEFAULT_STRATEGY), Z_OK);
	z.next_in = plain;
	z.avail_in = sizeof(plain);
	z.next_out = out;
	z.avail_out = max;
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	deflateEnd(&z);
	return z.total_out;
}

/* An image whose clusters in turn are data (byte n), coded (byte n), zero, hole. */
static struct image *mixed(void)
{
	g_autofree uint8_t *bytes = g_malloc0(FAKE_SIZE + FAKE_CLUSTER);
	struct image *img;
	uint32_t coded[FAKE_CLUSTERS];

	for (unsigned n = 0; n < FAKE_CLUSTERS; n++) {
		uint8_t *at = bytes + (n + 1) * FAKE_CLUSTER;

		memset(at, n, FAKE_CLUSTER);
		if (n % 4 == 1)
			coded[n] = deflate_cluster(n, at, FAKE_CLUSTER);
	}
	img = fake_open(bytes, FAKE_SIZE + FAKE_CLUSTER, 0);
	for (unsigned n = 0; n < FAKE_CLUSTERS; n++) {
		static const enum extent_kind kinds[] = {EXTENT_DATA, EXTENT_CODED, EXTENT_ZERO,
							 EXTENT_HOLE};

		fake_of(img)->entry[n].kind = kinds[n % 4];
		fake_of(img)->entry[n].host = (n + 1) * FAKE_CLUSTER;
		fake_of(img)->entry[n].coded_len = n % 4 == 1 ? coded[n] : 0;
	}
	return img;
}

static int mixed_byte(uint64_t offset)
{
	unsigned n = offset / FAKE_CLUSTER;

	return n % 4 < 2 ? n : 0;
}

static void check_read(struct image *img, uint64_t offset, size_t len)
{
	g_autofree uint8_t *buf = g_malloc(len);

	memset(buf, 0xee, len);
	assert_int_equal(image_read(img, offset, buf, len), 0);
	for (size_t i = 0; i < len; i++)
		if (buf[i] != mixed_byte(offset + i))
			fail_msg("byte %zu is %d", (size_t)offset + i, buf[i]);
}

static void body_kinds(void)
{
	struct image *img = mixed();
	uint8_t byte;

	for (int again = 0; again < 2; again++) {
		check_read(img, 0, FAKE_SIZE);
		for (uint64_t at = 0; at + 5000 < FAKE_SIZE; at += 1777)
			check_read(img, at, 5000);
		for (uint64_t at = 0; at + 1000 < FAKE_SIZE; at += 1000)
			check_read(img, at, 1000);
		codec_cache_clear();
	}
	assert_int_equal(image_read(img, FAKE_SIZE, &byte, 1), -EINVAL);
	assert_int_equal(image_read(img, UINT64_MAX, &byte, 1), -EINVAL);
	assert_int_equal(image_read(img, FAKE_SIZE, &byte, 0), 0);
	image_unref(img);
}

static void body_scattered(void)
{
	struct image *img = mixed();
	uint8_t buf[3 * FAKE_CLUSTER];
	struct iovec iov[60];

	for (int i = 0; i < 60; i++)
		iov[i] = (struct iovec){buf + i * 200, 200};
	assert_int_equal(image_readv(img, 100, iov, 60), 0);
	for (int i = 0; i < 60 * 200; i++)
		assert_int_equal(buf[i], mixed_byte(100 + i));
	image_unref(img);
}

static void body_bounded_cache(void)
{
	struct image *img = mixed();

	codec_cache_set_limit(2 * FAKE_CLUSTER);
	for (uint64_t at = 0; at + 100 < FAKE_SIZE; at += 2000)
		check_read(img, at, 100);
	codec_cache_set_limit(64u << 20);
	image_unref(img);
}

/* A readable image above, short of nothing, and what map says of the layers. */
static void body_chain(void)
{
	struct image *top = fake_open(NULL, 0, IMAGE_RDWR), *base = mixed();
	uint8_t buf[100], ones[100];
	struct extent e;

	top->backing = base;
	base->size = 40 * FAKE_CLUSTER; /* short: past it, zeros that nobody describes */
	memset(ones, 1, sizeof(ones));
	assert_int_equal(image_write(top, 8 * FAKE_CLUSTER, ones, sizeof(ones)), 0);

	assert_int_equal(image_map(top, 0, FAKE_SIZE, NULL, &e), 0);
	assert_int_equal(e.kind, EXTENT_DATA);
	assert_int_equal(e.depth, 1);
	assert_ptr_equal(e.layer, base);
	assert_int_equal(image_map(top, 0, FAKE_SIZE, base, &e), 0);
	assert_int_equal(e.kind, EXTENT_HOLE);
	assert_int_equal(e.depth, 0);
	assert_int_equal(image_map(top, 3 * FAKE_CLUSTER, 10, NULL, &e), 0);
	assert_int_equal(e.kind, EXTENT_HOLE);
	assert_int_equal(e.depth, 1);
	assert_null(e.layer);
	assert_int_equal(image_map_run(top, 40 * FAKE_CLUSTER, 24 * FAKE_CLUSTER, NULL, &e), 0);
	assert_int_equal(e.kind, EXTENT_HOLE);
	assert_int_equal(e.depth, 0);
	assert_int_equal(e.len, 24 * FAKE_CLUSTER);
	assert_int_equal(image_map(top, 8 * FAKE_CLUSTER, 1, NULL, &e), 0);
	assert_ptr_equal(e.layer, top);

	assert_int_equal(image_read(top, 40 * FAKE_CLUSTER, buf, 100), 0);
	assert_true(buffer_is_zero(buf, 100));
	assert_int_equal(image_read(top, 8 * FAKE_CLUSTER + 50, buf, 100), 0);
	assert_int_equal(buf[49], 1);
	assert_int_equal(buf[50], 8);
	image_unref(top);
}

static void body_damage(void)
{
	struct image *img = mixed();
	struct fake *f = fake_of(img);
	uint8_t buf[FAKE_CLUSTER];

	f->entry[0].host = 1ull << 50;
	assert_int_equal(image_read(img, 0, buf, 10), -EIO);
	assert_non_null(strstr(image_fault_text(img), "past the end"));
	image_fault_clear(img);
	f->entry[1].coded_len = 3; /* the stream ends too early */
	codec_cache_clear();
	assert_int_equal(image_read(img, FAKE_CLUSTER, buf, sizeof(buf)), -EIO);
	assert_int_equal(image_read(img, FAKE_CLUSTER, buf, 10), -EIO);
	assert_non_null(image_fault_text(img));
	f->fail_map = -EIO;
	assert_int_equal(image_read(img, 4 * FAKE_CLUSTER, buf, 10), -EIO);
	/* The last cluster, cut short by the end of the file: the rest is zero. */
	f->entry[4].host = FAKE_SIZE + FAKE_CLUSTER - 4096;
	assert_int_equal(image_read(img, 4 * FAKE_CLUSTER, buf, 10), 0);
	image_unref(img);
}

static void body_zero_detection(void)
{
	uint8_t buf[300] = {0};

	for (size_t len = 0; len < 300; len++)
		assert_true(buffer_is_zero(buf, len));
	for (size_t at = 0; at < 300; at++) {
		buf[at] = 1;
		assert_false(buffer_is_zero(buf, 300));
		assert_true(buffer_is_zero(buf, at));
		buf[at] = 0;
	}
}

#define TEST(name)                                                                                 \
	static void test_##name(void **state)                                                      \
	{                                                                                          \
		in_loop(body_##name);                                                              \
	}
TEST(kinds)
TEST(scattered)
TEST(bounded_cache)
TEST(chain)
TEST(damage)
TEST(zero_detection)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kinds),	      cmocka_unit_test(test_scattered),
		cmocka_unit_test(test_bounded_cache), cmocka_unit_test(test_chain),
		cmocka_unit_test(test_damage),	      cmocka_unit_test(test_zero_detection),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
