/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Compression codecs, and the process-wide bounded cache of decoded units
 * (clusters, grains, chunks) that all loops share.
 */
#ifndef IMGFS_IMAGE_CODEC_H
#define IMGFS_IMAGE_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct codec {
	const char *name; /* "zlib", "zstd" as users write them */
	/*
	 * Decodes exactly out_len bytes; padding after the end of the stream is
	 * ignored. 0, or -EIO when the stream is damaged, ends too early, or would
	 * give more than out_len (for deflate: a longer stream is cut, as QEMU does).
	 * Pure and thread-safe; memory is bounded by out_len plus a constant.
	 */
	int (*decode)(const void *in, size_t in_len, void *out, size_t out_len);
	/* Encodes into at most out_max bytes; bytes used, or -ENOSPC when it does not
	 * fit. level 0 is the default. Thread-safe; -ENOTSUP where the library is missing. */
	int64_t (*encode)(const void *in, size_t in_len, void *out, size_t out_max, int level);
};

extern const struct codec codec_deflate; /* raw deflate, RFC 1951: a window of up to 32
					   KiB is read, one of 4 KiB is written */
extern const struct codec codec_zstd;

/* Bytes of the decoded-unit cache, all loops together (default 8 MiB). */
void codec_cache_set_limit(size_t bytes);
/*
 * On: units are decoded by the loop that wants them, and never ahead. For a program that
 * has a loop for every processor, where a hand-over to a worker only costs. Before
 * anything is read.
 */
void codec_set_in_place(bool on);
/* Drops everything (tests, end of process). */
void codec_cache_clear(void);

struct extent;
/*
 * Reads [offset, offset+len) of the disk out of a CODED extent's unit into buf:
 * from the cache, or decoded on the worker pool. `next` may name the units
 * that a sequential reader will want (see read.c). 0 or -errno; may yield.
 */
int codec_read(const struct extent *e, uint64_t offset, void *buf, size_t len);
/* Starts to decode the unit in the background, unless it is there or under way. Never yields. */
void codec_prefetch(const struct extent *e);

#endif
