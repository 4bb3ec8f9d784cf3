/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The codecs: deflate by libdeflate, ISA-L or zlib, zstd. Pure functions of their buffers. */
#include "config.h"

#include <errno.h>
#include <glib.h>
#include <string.h>
#include <zlib.h>
#ifdef HAVE_ISAL
#include <isa-l/igzip_lib.h>
#endif
#ifdef HAVE_LIBDEFLATE
#include <libdeflate.h>
#endif
#ifdef HAVE_ZSTD
#include <zstd.h>
#include <zstd_errors.h>
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
static void free_decompressor(void *d)
{
	libdeflate_free_decompressor(d);
}

static GPrivate decompressor_of_thread = G_PRIVATE_INIT(free_decompressor);

/* One a thread: making one costs more than a small cluster. NULL: out of memory. */
static struct libdeflate_decompressor *decompressor(void)
{
	struct libdeflate_decompressor *d = g_private_get(&decompressor_of_thread);

	if (!d) {
		d = libdeflate_alloc_decompressor();
		g_private_set(&decompressor_of_thread, d);
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

/*
 * Encoding. The window is 4 KiB: that is all that QEMU's reader promises to look back, and it is
 * not noticed at once when a stream goes further, so libdeflate, whose window is fixed, cannot be
 * used.
 */
#define DEFLATE_WINDOW_BITS 12

static int64_t zlib_encode(z_stream *z, const void *in, size_t in_len, void *out, size_t out_max)
{
	int ret;

	if (in_len > UINT_MAX || out_max > UINT_MAX)
		return -EINVAL;
	z->next_in = (Bytef *)in;
	z->avail_in = in_len;
	z->next_out = out;
	z->avail_out = out_max;
	ret = deflate(z, Z_FINISH);
	if (ret == Z_STREAM_END)
		return out_max - z->avail_out;
	return ret == Z_OK || ret == Z_BUF_ERROR ? -ENOSPC : -EINVAL;
}

static int64_t zlib_encode_at(const void *in, size_t in_len, void *out, size_t out_max, int level)
{
	z_stream z = {0};
	int64_t ret;

	if (deflateInit2(&z, level, Z_DEFLATED, -DEFLATE_WINDOW_BITS, 9, Z_DEFAULT_STRATEGY))
		return -ENOMEM;
	ret = zlib_encode(&z, in, in_len, out, out_max);
	deflateEnd(&z);
	return ret;
}

#ifdef HAVE_ISAL
#define ISAL_LEVEL	3 /* ten times as fast as zlib's default, and 5 % larger; lower levels: 6 % */
#define ISAL_BUFFER	ISAL_DEF_LVL3_DEFAULT
#define ISAL_MAX_LEVELS 3

struct deflater { /* one a thread: half a megabyte */
	struct isal_zstream stream;
	uint8_t buffer[ISAL_BUFFER];
};

static GPrivate deflater_of_thread = G_PRIVATE_INIT(free);

static struct deflater *deflater(void)
{
	struct deflater *d = g_private_get(&deflater_of_thread);

	if (!d) {
		d = malloc(sizeof(*d));
		g_private_set(&deflater_of_thread, d);
	}
	return d;
}

/* Levels as of zlib: those that ask for a small result are left to it. */
static int64_t deflate_encode(const void *in, size_t in_len, void *out, size_t out_max, int level)
{
	struct deflater *d;
	int ret;

	if (level > ISAL_MAX_LEVELS)
		return zlib_encode_at(in, in_len, out, out_max, level);
	if (in_len > UINT32_MAX || out_max > UINT32_MAX)
		return -EINVAL;
	d = deflater();
	if (!d)
		return -ENOMEM;
	isal_deflate_stateless_init(&d->stream);
	d->stream.level = level > 0 ? level : ISAL_LEVEL;
	d->stream.level_buf = d->buffer;
	d->stream.level_buf_size = sizeof(d->buffer);
	d->stream.hist_bits = DEFLATE_WINDOW_BITS;
	d->stream.end_of_stream = 1;
	d->stream.flush = NO_FLUSH;
	d->stream.next_in = (uint8_t *)in;
	d->stream.avail_in = in_len;
	d->stream.next_out = out;
	d->stream.avail_out = out_max;
	ret = isal_deflate_stateless(&d->stream);
	if (ret == COMP_OK && d->stream.avail_in == 0)
		return d->stream.total_out;
	return ret == COMP_OK || ret == STATELESS_OVERFLOW ? -ENOSPC : -EINVAL;
}
#else
static void free_encoder(void *p)
{
	deflateEnd(p);
	free(p);
}

static GPrivate deflater_of_thread = G_PRIVATE_INIT(free_encoder);

/* One a thread, used again and again: making one costs as much as a small cluster. */
static z_stream *deflater(void)
{
	z_stream *z = g_private_get(&deflater_of_thread);

	if (z)
		return deflateReset(z) == Z_OK ? z : NULL;
	z = calloc(1, sizeof(*z));
	if (z && deflateInit2(z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -DEFLATE_WINDOW_BITS, 9,
			      Z_DEFAULT_STRATEGY) != Z_OK) {
		free(z);
		return NULL;
	}
	g_private_set(&deflater_of_thread, z);
	return z;
}

static int64_t deflate_encode(const void *in, size_t in_len, void *out, size_t out_max, int level)
{
	z_stream *z;

	if (level)
		return zlib_encode_at(in, in_len, out, out_max, level);
	z = deflater();
	return z ? zlib_encode(z, in, in_len, out, out_max) : -ENOMEM;
}
#endif

const struct codec codec_deflate = {
	.name = "zlib",
	.decode = deflate_decode,
	.encode = deflate_encode,
};

/* ---- zstd ------------------------------------------------------------------------------------ */

#ifdef HAVE_ZSTD
/*
 * A frame may ask for a window of gigabytes. RFC 8878 (3.1.1.1.2) has every decoder take 8 MiB;
 * no writer of units needs more.
 */
#define ZSTD_WINDOW_LOG_MAX 23

static void free_zstd(void *d)
{
	ZSTD_freeDCtx(d);
}

static GPrivate zstd_of_thread = G_PRIVATE_INIT(free_zstd);

static ZSTD_DCtx *zstd_context(void)
{
	ZSTD_DCtx *d = g_private_get(&zstd_of_thread);

	if (d) {
		ZSTD_DCtx_reset(d, ZSTD_reset_session_only);
		return d;
	}
	d = ZSTD_createDCtx();
	if (d && ZSTD_isError(ZSTD_DCtx_setParameter(d, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG_MAX)))
		g_error("zstd does not know its window limit");
	g_private_set(&zstd_of_thread, d);
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

/* The library's own default, as QEMU uses it: level 1 takes half the time and makes 3 % more. */
#define ZSTD_LEVEL 3

static void free_zstd_encoder(void *c)
{
	ZSTD_freeCCtx(c);
}

static GPrivate zstd_encoder_of_thread = G_PRIVATE_INIT(free_zstd_encoder);

static int64_t zstd_encode(const void *in, size_t in_len, void *out, size_t out_max, int level)
{
	ZSTD_CCtx *c = g_private_get(&zstd_encoder_of_thread);
	size_t ret;

	if (!c) {
		c = ZSTD_createCCtx();
		if (!c)
			return -ENOMEM;
		g_private_set(&zstd_encoder_of_thread, c);
	}
	ret = ZSTD_compressCCtx(c, out, out_max, in, in_len, level ? level : ZSTD_LEVEL);
	if (!ZSTD_isError(ret))
		return ret;
	return ZSTD_getErrorCode(ret) == ZSTD_error_dstSize_tooSmall ? -ENOSPC : -ENOMEM;
}
#else
static int64_t zstd_encode(const void *in, size_t in_len, void *out, size_t out_max, int level)
{
	return -ENOTSUP;
}

static int zstd_decode(const void *in, size_t in_len, void *out, size_t out_len)
{
	return -ENOTSUP;
}
#endif

const struct codec codec_zstd = {
	.name = "zstd",
	.decode = zstd_decode,
	.encode = zstd_encode,
};
