/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * micro FILE
 *
 * The choices that the design rests on, each against what else could have been
 * taken, on the bytes of FILE (a disk of real files): rounds in turns, best
 * of each. Prints what one operation costs.
 *
 *   inflate     our codec (libdeflate where there is one) / zlib
 *   zero        buffer_is_zero / a loop over 64-bit words / memcmp with itself
 *   switch      a yield and a wake / swapcontext there and back
 *   cached read file_read in place / the same on a worker thread / pread alone
 */
#include "config.h"

#include <fcntl.h>
#include <glib.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <ucontext.h>
#include <unistd.h>
#include <zlib.h>

#include "image/codec.h"
#include "image/image.h"
#include "io/co.h"
#include "io/file.h"
#include "io/loop.h"
#include "io/pool.h"

#define CLUSTER	 65536
#define CLUSTERS 256
#define ROUNDS	 7

/* One way to do a thing: `count` operations. */
struct way {
	const char *job, *name;
	void (*run)(unsigned count);
	unsigned count;
	double best; /* seconds of one operation */
};

static int fd;
static uint64_t fd_size;
static struct file *file;
static uint8_t plain[CLUSTER], *packed[CLUSTERS];
static size_t packed_len[CLUSTERS];
static uint8_t zeroes[CLUSTER] __attribute__((aligned(64)));
static volatile uint64_t sink;

/* As qcow2 has them: raw deflate, window of 4 KiB, one stream a cluster. */
static void pack_clusters(void)
{
	for (unsigned i = 0; i < CLUSTERS; i++) {
		uint64_t offset = fd_size / CLUSTERS * i / CLUSTER * CLUSTER;
		z_stream z = {0};

		if (pread(fd, plain, CLUSTER, (off_t)offset) != CLUSTER)
			g_error("read of %u clusters failed", CLUSTERS);
		packed[i] = g_malloc(2 * CLUSTER);
		deflateInit2(&z, 6, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY);
		z.next_in = plain;
		z.avail_in = CLUSTER;
		z.next_out = packed[i];
		z.avail_out = 2 * CLUSTER;
		if (deflate(&z, Z_FINISH) != Z_STREAM_END)
			g_error("deflate failed");
		packed_len[i] = z.total_out;
		deflateEnd(&z);
	}
}

static void inflate_codec(unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (codec_deflate.decode(packed[i % CLUSTERS], packed_len[i % CLUSTERS], plain,
					 CLUSTER))
			g_error("decode failed");
}

static void inflate_zlib(unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		z_stream z = {0};

		inflateInit2(&z, -12);
		z.next_in = packed[i % CLUSTERS];
		z.avail_in = (uInt)packed_len[i % CLUSTERS];
		z.next_out = plain;
		z.avail_out = CLUSTER;
		inflate(&z, Z_FINISH);
		if (z.total_out != CLUSTER)
			g_error("inflate failed");
		inflateEnd(&z);
	}
}

static void zero_ours(unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		sink += buffer_is_zero(zeroes, CLUSTER);
}

static void zero_words(unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		const volatile uint8_t *start = zeroes;
		const uint64_t *word = (const uint64_t *)(const void *)zeroes;
		bool zero = true;

		for (unsigned n = 0; n < CLUSTER / 8 && zero; n++)
			zero = !word[n];
		sink += zero + *start;
	}
}

static void zero_memcmp(unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		const uint8_t *volatile start = zeroes;

		sink += !memcmp(start, start + 1, CLUSTER - 1);
	}
}

static void relax(unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		co_relax();
}

static ucontext_t here, there;

static void bounce(void)
{
	for (;;)
		swapcontext(&there, &here);
}

static void switch_ucontext(unsigned count)
{
	static uint8_t stack[65536];

	getcontext(&there);
	there.uc_stack.ss_sp = stack;
	there.uc_stack.ss_size = sizeof(stack);
	makecontext(&there, bounce, 0);
	for (unsigned i = 0; i < count; i++)
		swapcontext(&here, &there);
}

static uint64_t nth_block(unsigned i)
{
	return (i * UINT64_C(7919)) % (fd_size / 4096) * 4096;
}

static void read_in_place(unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (file_read(file, nth_block(i), plain, 4096))
			g_error("read failed");
}

static int read_on_worker(void *arg)
{
	const uint64_t *offset = arg;

	return pread(fd, plain, 4096, (off_t)*offset) == 4096 ? 0 : -1;
}

static void read_by_hand_off(unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		uint64_t offset = nth_block(i);

		if (pool_run_blocking(read_on_worker, &offset))
			g_error("read failed");
	}
}

static void read_plain(unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		uint64_t offset = nth_block(i);

		if (read_on_worker(&offset))
			g_error("read failed");
	}
}

static struct way ways[] = {
	{"inflate 64 KiB", "codec", inflate_codec, CLUSTERS, 0},
	{"inflate 64 KiB", "zlib", inflate_zlib, CLUSTERS, 0},
	{"zero 64 KiB", "buffer_is_zero", zero_ours, 20000, 0},
	{"zero 64 KiB", "words", zero_words, 20000, 0},
	{"zero 64 KiB", "memcmp", zero_memcmp, 20000, 0},
	{"switch", "co_relax", relax, 200000, 0},
	{"switch", "swapcontext", switch_ucontext, 50000, 0},
	{"cached read 4 KiB", "file_read", read_in_place, 50000, 0},
	{"cached read 4 KiB", "worker", read_by_hand_off, 5000, 0},
	{"cached read 4 KiB", "pread", read_plain, 50000, 0},
};

static int measure(void *arg)
{
	for (unsigned round = 0; round < ROUNDS; round++) {
		for (size_t i = 0; i < G_N_ELEMENTS(ways); i++) {
			struct way *w = &ways[i];
			uint64_t start = loop_now();
			double cost;

			w->run(w->count);
			cost = (double)(loop_now() - start) / 1e9 / w->count;
			if (!round || cost < w->best)
				w->best = cost;
		}
	}
	return 0;
}

static void print(void)
{
	const struct way *first = ways;

	printf("%-18s %-15s %12s %8s\n", "job", "way", "ns each", "x first");
	for (size_t i = 0; i < G_N_ELEMENTS(ways); i++) {
		const struct way *w = &ways[i];

		if (strcmp(w->job, first->job))
			first = w;
		printf("%-18s %-15s %12.1f %8.2f\n", w->job, w->name, w->best * 1e9,
		       w->best / first->best);
	}
}

int main(int argc, char **argv)
{
	struct file_options options = {0};
	GError *error = NULL;
	struct loop *loop;
	struct stat st;

	if (argc != 2 || (fd = open(argv[1], O_RDONLY | O_CLOEXEC)) < 0 || fstat(fd, &st) ||
	    st.st_size < (off_t)CLUSTER * CLUSTERS) {
		fprintf(stderr, "usage: micro FILE (of at least 16 MiB)\n");
		return 2;
	}
	fd_size = (uint64_t)st.st_size;
	loop = loop_new(&error);
	if (loop)
		file = file_open(argv[1], &options, &error);
	if (!file) {
		fprintf(stderr, "micro: %s\n", error->message);
		return 1;
	}
	pack_clusters();
	loop_run(loop, measure, NULL);
	print();
	file_unref(file);
	pool_shutdown();
	loop_free(loop);
	return 0;
}
