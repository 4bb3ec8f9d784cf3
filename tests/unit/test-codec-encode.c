/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is encoded is decoded to the same, fits where it says so, and never looks back further than
 * the 4 KiB that QEMU's reader has. */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include <cmocka.h>

#include "image/image.h"

enum kind { ZEROES, TEXT, RANDOM, FAR_REPEATS, MIXED, KINDS };

static uint8_t *make(enum kind kind, size_t len, uint32_t seed)
{
	uint8_t *p = g_malloc(len);
	GRand *r = g_rand_new_with_seed(seed);

	for (size_t i = 0; i < len; i++) {
		switch (kind) {
		case ZEROES:
			p[i] = 0;
			break;
		case TEXT:
			p[i] = "etaoin shrdlu"[g_rand_int_range(r, 0, 13)];
			break;
		case FAR_REPEATS: /* a compressor with a long window would use them */
			p[i] = i < 5000 ? g_rand_int(r) : p[i - 5000];
			break;
		case MIXED:
			p[i] = i / 3000 % 2 ? g_rand_int(r) : i / 9;
			break;
		default:
			p[i] = g_rand_int(r);
		}
	}
	g_rand_free(r);
	return p;
}

/* In pieces of 1 KiB, because inflate in one piece does not check the window. */
static void expect_small_window(const uint8_t *coded, size_t coded_len, const uint8_t *plain,
				size_t len)
{
	z_stream z = {.next_in = (Bytef *)coded, .avail_in = coded_len};
	uint8_t piece[1024];
	size_t done = 0;
	int ret = Z_OK;

	assert_int_equal(inflateInit2(&z, -12), Z_OK);
	while (ret == Z_OK) {
		z.next_out = piece;
		z.avail_out = sizeof(piece);
		ret = inflate(&z, Z_NO_FLUSH);
		size_t n = sizeof(piece) - z.avail_out;

		assert_true(ret == Z_OK || ret == Z_STREAM_END);
		assert_true(n <= len - done);
		assert_memory_equal(piece, plain + done, n);
		done += n;
	}
	assert_int_equal(done, len);
	inflateEnd(&z);
}

static void check(const struct codec *codec, enum kind kind, size_t len, int level)
{
	size_t max = len + len / 8 + 256;
	g_autofree uint8_t *plain = make(kind, len, len + kind);
	g_autofree uint8_t *coded = g_malloc(max), *again = g_malloc(max), *out = g_malloc(len);
	int64_t n = codec->encode(plain, len, coded, max, level);

	if (n <= 0 || n > (int64_t)max)
		fail_msg("%s, level %d, kind %d, %zu bytes: %d", codec->name, level, kind, len,
			 (int)n);
	assert_int_equal(codec->decode(coded, n, out, len), 0);
	assert_memory_equal(out, plain, len);
	if (codec == &codec_deflate)
		expect_small_window(coded, n, plain, len);
	if (kind != RANDOM && kind != FAR_REPEATS && len >= 4096)
		assert_true(n < (int64_t)len);
	/* Room for one byte less than nothing gained: random data does not get smaller. */
	memset(again, 0x5a, max);
	n = codec->encode(plain, len, again, len - 1, level);
	if (kind == RANDOM)
		assert_int_equal(n, -ENOSPC);
	for (size_t i = len - 1; i < max; i++)
		assert_int_equal(again[i], 0x5a);
	if (n > 0) {
		assert_int_equal(codec->decode(again, n, out, len), 0);
		assert_memory_equal(out, plain, len);
	}
}

static void check_all(const struct codec *codec)
{
	static const size_t sizes[] = {512, 4096, 65536, 2u << 20};
	static const int levels[] = {0, 1, 3, 6};

	for (size_t s = 0; s < G_N_ELEMENTS(sizes); s++)
		for (enum kind k = 0; k < KINDS; k++)
			for (size_t l = 0; l < G_N_ELEMENTS(levels); l++)
				check(codec, k, sizes[s], levels[l]);
}

static void test_deflate(void **state)
{
	check_all(&codec_deflate);
}

static void test_zstd(void **state)
{
#ifdef HAVE_ZSTD
	check_all(&codec_zstd);
#else
	uint8_t buf[16] = {0};

	assert_int_equal(codec_zstd.encode(buf, 16, buf, 16, 0), -ENOTSUP);
#endif
}

static void *thread(void *arg)
{
	for (unsigned i = 0; i < 20; i++) {
		check(&codec_deflate, TEXT, 65536, 0);
#ifdef HAVE_ZSTD
		check(&codec_zstd, MIXED, 65536, 0);
#endif
	}
	return NULL;
}

static void test_threads(void **state)
{
	pthread_t t[4];

	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&t[i], NULL, thread, NULL), 0);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(pthread_join(t[i], NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_deflate),
		cmocka_unit_test(test_zstd),
		cmocka_unit_test(test_threads),
	};

	setenv("CMOCKA_TEST_ABORT", "1", 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
