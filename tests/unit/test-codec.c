/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Codecs: exact, padded, damaged, short and endless streams; and one unit that many loops want. */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#ifdef HAVE_ZSTD
#include <zstd.h>
#endif

#include <cmocka.h>

#include "image/image.h"
#include "io/loop.h"
#include "io/pool.h"

#define UNIT 65536u

static void fill(uint8_t *buf, size_t len)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = i / 700 * 31 + i % 3;
}

static size_t deflate_raw(const void *in, size_t len, void *out, size_t max)
{
	z_stream z = {0};

	assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY), Z_OK);
	z.next_in = (Bytef *)in;
	z.avail_in = len;
	z.next_out = out;
	z.avail_out = max;
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	deflateEnd(&z);
	return z.total_out;
}

/* What holds of every codec: `stream` is UNIT bytes of fill(). */
static void check_codec(const struct codec *codec, const uint8_t *stream, size_t len)
{
	g_autofree uint8_t *plain = g_malloc(UNIT), *out = g_malloc(UNIT + 1);
	g_autofree uint8_t *bad = g_malloc(len + 4096);
	unsigned differs = 0;

	fill(plain, UNIT);
	assert_int_equal(codec->decode(stream, len, out, UNIT), 0);
	assert_memory_equal(out, plain, UNIT);
	/* Padding after it, of zeroes and of anything. */
	memcpy(bad, stream, len);
	memset(bad + len, 0, 4096);
	assert_int_equal(codec->decode(bad, len + 511, out, UNIT), 0);
	memset(bad + len, 0xff, 4096);
	memset(out, 0, UNIT);
	assert_int_equal(codec->decode(bad, len + 4096, out, UNIT), 0);
	assert_memory_equal(out, plain, UNIT);
	/* It ends too early, or has too little. */
	for (size_t cut = 0; cut < len; cut += 1 + len / 50)
		assert_int_equal(codec->decode(stream, cut, out, UNIT), -EIO);
	assert_int_equal(codec->decode(stream, len, out, UNIT + 1), -EIO);
	/* Damage ends in an error or in other bytes, never past the buffer. */
	for (size_t i = 0; i < len; i += 1 + len / 200) {
		memcpy(bad, stream, len);
		bad[i] ^= 0x55;
		out[UNIT] = 0x77;
		if (codec->decode(bad, len, out, UNIT) < 0 || memcmp(out, plain, UNIT) != 0)
			differs++;
		assert_int_equal(out[UNIT], 0x77);
	}
	assert_true(differs > 50);
	memset(bad, 0xab, 1000);
	assert_int_equal(codec->decode(bad, 1000, out, UNIT), -EIO);
}

static void test_deflate(void **state)
{
	g_autofree uint8_t *plain = g_malloc(UNIT), *stream = g_malloc(UNIT);

	fill(plain, UNIT);
	check_codec(&codec_deflate, stream, deflate_raw(plain, UNIT, stream, UNIT));
}

/* A stream of 64 MiB for a unit of 64 KiB is cut there, and costs no more than that. */
static void test_deflate_bomb(void **state)
{
	size_t big = 64u << 20;
	g_autofree uint8_t *zeroes = g_malloc0(big), *stream = g_malloc(1 << 20);
	g_autofree uint8_t *out = g_malloc(UNIT + 1);
	size_t len = deflate_raw(zeroes, big, stream, 1 << 20);

	memset(out, 0x11, UNIT + 1);
	assert_int_equal(codec_deflate.decode(stream, len, out, UNIT), 0);
	assert_true(buffer_is_zero(out, UNIT));
	assert_int_equal(out[UNIT], 0x11);
}

#ifdef HAVE_ZSTD
static void test_zstd(void **state)
{
	g_autofree uint8_t *plain = g_malloc(UNIT), *stream = g_malloc(UNIT);

	fill(plain, UNIT);
	check_codec(&codec_zstd, stream, ZSTD_compress(stream, UNIT, plain, UNIT, 3));
}

static void test_zstd_frames(void **state)
{
	size_t big = 64u << 20, half = UNIT / 2, len;
	g_autofree uint8_t *plain = g_malloc0(big), *stream = g_malloc(1 << 20);
	g_autofree uint8_t *out = g_malloc(UNIT + 1);
	ZSTD_CCtx *c = ZSTD_createCCtx();

	/* Two frames make one unit. */
	fill(plain, UNIT);
	len = ZSTD_compress(stream, half, plain, half, 3);
	len += ZSTD_compress(stream + len, half, plain + half, half, 3);
	assert_int_equal(codec_zstd.decode(stream, len, out, UNIT), 0);
	assert_memory_equal(out, plain, UNIT);
	/* A bomb. */
	memset(plain, 0, UNIT);
	len = ZSTD_compress(stream, 1 << 20, plain, big, 3);
	out[UNIT] = 0x11;
	assert_int_equal(codec_zstd.decode(stream, len, out, UNIT), 0);
	assert_int_equal(out[UNIT], 0x11);
	/* A window of 256 MiB is not paid for. */
	ZSTD_CCtx_setParameter(c, ZSTD_c_windowLog, 28);
	ZSTD_CCtx_setParameter(c, ZSTD_c_contentSizeFlag, 0);
	ZSTD_inBuffer in = {plain, big, 0};
	ZSTD_outBuffer to = {stream, 1 << 20, 0};
	ZSTD_compressStream2(c, &to, &in, ZSTD_e_continue);
	assert_int_equal(ZSTD_compressStream2(c, &to, &in, ZSTD_e_end), 0);
	assert_int_equal(codec_zstd.decode(stream, to.pos, out, UNIT), -EIO);
	ZSTD_freeCCtx(c);
}
#endif

/* ---- the cache of decoded units -------------------------------------------------------------- */

static atomic_uint decodes, must_fail;

/* Slow, so that others come while it works. */
static int slow_decode(const void *in, size_t in_len, void *out, size_t out_len)
{
	atomic_fetch_add(&decodes, 1);
	usleep(30000);
	memset(out, *(const uint8_t *)in, out_len);
	return atomic_load(&must_fail) ? -EIO : 0;
}

static const struct codec codec_slow = {.name = "slow", .decode = slow_decode};

struct reader {
	pthread_t thread;
	uint64_t offset;
	uint8_t byte;
	int ret;
};

static struct file *open_units(void)
{
	struct file_options o = {0};
	struct file *f = file_open("units", &o, NULL);

	assert_non_null(f);
	return f;
}

static struct extent unit_of(struct file *f, unsigned n)
{
	return (struct extent){
		.start = n * UNIT,
		.len = UNIT,
		.kind = EXTENT_CODED,
		.file = f,
		.host = n * 512,
		.coded_len = 512,
		.unit_start = n * UNIT,
		.unit_len = UNIT,
		.codec = &codec_slow,
	};
}

static int read_part(void *arg)
{
	struct reader *r = arg;
	struct file *f = open_units();
	struct extent e = unit_of(f, 0);

	r->ret = codec_read(&e, r->offset, &r->byte, 1);
	file_unref(f);
	return 0;
}

static void *reader_thread(void *arg)
{
	struct loop *loop = loop_new(NULL);

	loop_run(loop, read_part, arg);
	loop_free(loop);
	return NULL;
}

static void read_by_many(struct reader *readers, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		readers[i].offset = i * 100;
		pthread_create(&readers[i].thread, NULL, reader_thread, &readers[i]);
	}
	for (unsigned i = 0; i < n; i++)
		pthread_join(readers[i].thread, NULL);
}

static void write_units(void)
{
	g_autofree uint8_t *bytes = g_malloc(64 * 512);

	for (unsigned n = 0; n < 64; n++)
		memset(bytes + n * 512, n + 1, 512);
	assert_true(g_file_set_contents("units", (char *)bytes, 64 * 512, NULL));
}

/* Several loops wait for one unit: it is decoded once, and an error is everybody's but not kept. */
static void test_two_loops(void **state)
{
	struct reader readers[4];

	write_units();
	decodes = 0;
	read_by_many(readers, 4);
	assert_int_equal(decodes, 1);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(readers[i].ret, 0);
		assert_int_equal(readers[i].byte, 1);
	}
	codec_cache_clear();
	must_fail = 1;
	read_by_many(readers, 4);
	assert_int_equal(decodes, 2);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(readers[i].ret, -EIO);
	must_fail = 0;
	read_by_many(readers, 1);
	assert_int_equal(decodes, 3);
	assert_int_equal(readers[0].ret, 0);
	codec_cache_clear();
	pool_shutdown();
}

/* The bound holds, the oldest goes, and 0 keeps nothing. */
static int bounded(void *arg)
{
	struct file *f = open_units();
	uint8_t byte;

	codec_cache_set_limit(4 * UNIT);
	decodes = 0;
	for (unsigned n = 0; n < 5; n++) {
		struct extent e = unit_of(f, n);

		assert_int_equal(codec_read(&e, n * UNIT + 7, &byte, 1), 0);
		assert_int_equal(byte, n + 1);
	}
	assert_int_equal(decodes, 5);
	for (unsigned n = 4; n >= 1; n--) {
		struct extent e = unit_of(f, n);

		assert_int_equal(codec_read(&e, n * UNIT, &byte, 1), 0);
	}
	assert_int_equal(decodes, 5);
	struct extent first = unit_of(f, 0);
	assert_int_equal(codec_read(&first, 0, &byte, 1), 0);
	assert_int_equal(decodes, 6);
	codec_cache_set_limit(0);
	assert_int_equal(codec_read(&first, 0, &byte, 1), 0);
	assert_int_equal(codec_read(&first, 1, &byte, 1), 0);
	assert_int_equal(decodes, 8);
	codec_cache_set_limit(8u << 20);
	file_unref(f);
	return 0;
}

static void test_bounded(void **state)
{
	struct loop *loop = loop_new(NULL);

	write_units();
	loop_run(loop, bounded, NULL);
	loop_free(loop);
	codec_cache_clear();
	pool_shutdown();
	unlink("units");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_deflate),	  cmocka_unit_test(test_deflate_bomb),
#ifdef HAVE_ZSTD
		cmocka_unit_test(test_zstd),	  cmocka_unit_test(test_zstd_frames),
#endif
		cmocka_unit_test(test_two_loops), cmocka_unit_test(test_bounded),
	};

	setenv("CMOCKA_TEST_ABORT", "1", 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
