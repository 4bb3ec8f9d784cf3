/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The codecs: deflate by libdeflate or zlib, zstd. Pure functions of their buffers. */
#include "config.h"

#include <errno.h>
#include <glib.h>
#include <pthread.h>
#include <string.h>
#include <zlib.h>
#ifdef HAVE_LIBDEFLATE
#include <libdeflate.h>
#endif
#ifdef HAVE_ZSTD
#include <zstd.h>
#endif

#include "image/codec.h"

/* ---- deflate ------------------------------------------------------------------------------ */

/*
 * zlib decodes as a stream, so it can stop at out_len. It is what is left when libdeflate is
 * missing, and for streams that are longer than their unit.
 */
static int inflate_streaming(const void *in, size_t in_len, void *out, size_t out_len)
{
	z_stream z = {
		.next_in = (Bytef *)in, .avail_in = in_len, .next_out = out, .avail_out = out_len};
	int ret;

	if (in_len > UINT_MAX || out_len > UINT_MAX)
		return -EIO;
	/* Negative: raw deflate without a header; 15 bits so that any writer's window does. */
	if (inflateInit2(&z, -15) != Z_OK)
		return -ENOMEM;
	ret = inflate(&z, Z_FINISH);
	inflateEnd(&z);
	return z.avail_out == 0 && (ret == Z_STREAM_END || ret == Z_BUF_ERROR || ret == Z_OK)
		       ? 0
		       : -EIO;
}

#ifdef HAVE_LIBDEFLATE
static pthread_key_t decompressor_key;
static pthread_once_t decompressor_once = PTHREAD_ONCE_INIT;

static void free_decompressor(void *d)
{
	libdeflate_free_decompressor(d);
}

static void make_decompressor_key(void)
{
	if (pthread_key_create(&decompressor_key, free_decompressor))
		g_error("no thread key for the decompressor");
}

/* One a thread: making one costs more than a small cluster. NULL: out of memory. */
static struct libdeflate_decompressor *decompressor(void)
{
	struct libdeflate_decompressor *d;

	pthread_once(&decompressor_once, make_decompressor_key);
	d = pthread_getspecific(decompressor_key);
	if (!d) {
		d = libdeflate_alloc_decompressor();
		pthread_setspecific(decompressor_key, d);
	}
	return d;
}

static int deflate_decode(const void *in, size_t in_len, void *out, size_t out_len)
{
	struct libdeflate_decompressor *d = decompressor();
	size_t used, made;

	if (!d)
		return -ENOMEM;
	switch (libdeflate_deflate_decompress_ex(d, in, in_len, out, out_len, &used, &made)) {
	case LIBDEFLATE_SUCCESS:
		return made == out_len ? 0 : -EIO;
	case LIBDEFLATE_BAD_DATA:
		/* It also says so of a stream whose end marker is missing though all bytes are
		 * there. */
	case LIBDEFLATE_INSUFFICIENT_SPACE:
		return inflate_streaming(in, in_len, out, out_len);
	default:
		return -EIO;
	}
}
#else
static int deflate_decode(const void *in, size_t in_len, void *out, size_t out_len)
{
	return inflate_streaming(in, in_len, out, out_len);
}
#endif

const struct codec codec_deflate = {
	.name = "zlib",
	.decode = deflate_decode,
};

/* ---- zstd ------------------------------------------------------------------------------------ */

#ifdef HAVE_ZSTD
/*
 * A frame may ask for a window of gigabytes. RFC 8878 (3.1.1.1.2) has every decoder take 8 MiB;
 * no writer of units needs more.
 */
#define ZSTD_WINDOW_LOG_MAX 23

static pthread_key_t zstd_key;
static pthread_once_t zstd_once = PTHREAD_ONCE_INIT;

static void free_zstd(void *d)
{
	ZSTD_freeDCtx(d);
}

static void make_zstd_key(void)
{
	if (pthread_key_create(&zstd_key, free_zstd))
		g_error("no thread key for the decompressor");
}

static ZSTD_DCtx *zstd_context(void)
{
	ZSTD_DCtx *d;

	pthread_once(&zstd_once, make_zstd_key);
	d = pthread_getspecific(zstd_key);
	if (d) {
		ZSTD_DCtx_reset(d, ZSTD_reset_session_only);
		return d;
	}
	d = ZSTD_createDCtx();
	if (d && ZSTD_isError(ZSTD_DCtx_setParameter(d, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG_MAX)))
		g_error("zstd does not know its window limit");
	pthread_setspecific(zstd_key, d);
	return d;
}

/*
 * Streaming, because the exact length of the input is not known (padding follows the
 * frame) and because a frame that would give more than out_len must not be believed.
 */
static int zstd_decode(const void *in, size_t in_len, void *out, size_t out_len)
{
	ZSTD_DCtx *d = zstd_context();
	ZSTD_inBuffer src = {in, in_len, 0};
	ZSTD_outBuffer dst = {out, out_len, 0};

	if (!d)
		return -ENOMEM;
	while (dst.pos < dst.size) {
		size_t before_in = src.pos, before_out = dst.pos;
		size_t ret = ZSTD_decompressStream(d, &dst, &src);

		if (ZSTD_isError(ret))
			return -EIO;
		if (src.pos == before_in && dst.pos == before_out)
			return -EIO; /* the input ended too early */
	}
	return 0;
}
#else
static int zstd_decode(const void *in, size_t in_len, void *out, size_t out_len)
{
	return -ENOTSUP;
}
#endif

const struct codec codec_zstd = {
	.name = "zstd",
	.decode = zstd_decode,
};
