/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What io/ itself costs: a coroutine switch, a cached read, and random O_DIRECT
 * reads at queue depth 32 on each engine.
 *
 * usage: tests/bench/io [FOLDER]   (makes and removes a file of 256 MiB there)
 */
#include <config.h>

#include "io/co.h"
#include "io/file.h"
#include "io/loop.h"
#include "io/pool.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define BLOCK  4096
#define BLOCKS 65536

static char *path;
static uint64_t seed = 88172645463325252u;

static uint64_t random_block(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed % BLOCKS;
}

static void report(const char *what, uint64_t start, unsigned n)
{
	printf("%-40s %8.0f ns\n", what, (double)(loop_now() - start) / n);
}

static struct file *open_file(enum cache_mode cache, enum aio_engine aio, unsigned flags)
{
	struct file_options o = {.cache = cache, .aio = aio, .flags = flags};
	GError *error = NULL;
	struct file *f = file_open(path, &o, &error);

	if (!f)
		printf("skipped: %s\n", error->message);
	g_clear_error(&error);
	return f;
}

static void relaxes(void *arg)
{
	for (int i = 0; i < 1000000; i++)
		co_relax();
}

static void spawned(void *arg)
{
}

static void coroutines(void)
{
	uint64_t start = loop_now();

	for (int i = 0; i < 1000000; i++)
		co_spawn(spawned, NULL);
	report("co_spawn and end (two switches)", start, 1000000);
	start = loop_now();
	co_spawn(relaxes, NULL);
	for (int i = 0; i < 1000000; i++)
		co_relax();
	report("co_relax (two switches and the loop)", start, 2000000);
}

static void cached_reads(void)
{
	struct file *f = open_file(CACHE_WRITEBACK, AIO_AUTO, 0);
	char buf[BLOCK];
	const unsigned n = 500000;

	if (!f)
		exit(1);
	for (int i = 0; i < BLOCKS; i++)
		if (file_read(f, (uint64_t)i * BLOCK, buf, BLOCK) != 0)
			exit(1);
	for (int round = 0; round < 2; round++) {
		uint64_t start = loop_now();

		for (unsigned i = 0; i < n; i++)
			if (pread(file_fd(f), buf, BLOCK, (off_t)(random_block() * BLOCK)) != BLOCK)
				exit(1);
		report("cached 4 KiB, bare pread", start, n);
		start = loop_now();
		for (unsigned i = 0; i < n; i++)
			if (file_read(f, random_block() * BLOCK, buf, BLOCK) != 0)
				exit(1);
		report("cached 4 KiB, file_read", start, n);
	}
	file_unref(f);
}

static int one_read(void *arg)
{
	struct file *f = arg;
	void *buf;

	if (posix_memalign(&buf, BLOCK, BLOCK) != 0)
		return -1;
	int ret = 0;
	for (int i = 0; i < 1000 && ret == 0; i++)
		ret = file_read(f, random_block() * BLOCK, buf, BLOCK);
	free(buf);
	return ret;
}

static void direct_reads(const char *name, enum aio_engine aio)
{
	struct file *f = open_file(CACHE_NONE, aio, 0);
	struct co_group g;
	uint64_t start = loop_now();

	if (!f)
		return;
	co_group_init(&g, 32);
	for (int i = 0; i < 32; i++)
		co_group_spawn(&g, one_read, f);
	if (co_group_wait(&g) != 0)
		exit(1);
	report(name, start, 32000);
	file_unref(f);
}

static int run(void *arg)
{
	struct file *f = open_file(CACHE_WRITEBACK, AIO_AUTO, FILE_RDWR | FILE_CREATE | FILE_EXCL);
	char *buf = g_malloc(1 << 20);

	if (!f)
		return 1;
	for (size_t i = 0; i < 1 << 20; i++)
		buf[i] = (char)random_block();
	for (uint64_t i = 0; i < BLOCKS / 256; i++)
		if (file_write(f, i << 20, buf, 1 << 20) != 0)
			exit(1);
	file_flush(f);
	file_unref(f);
	g_free(buf);
	coroutines();
	cached_reads();
	direct_reads("O_DIRECT 4 KiB, 32 deep, threads", AIO_THREADS);
	direct_reads("O_DIRECT 4 KiB, 32 deep, native", AIO_NATIVE);
	direct_reads("O_DIRECT 4 KiB, 32 deep, io_uring", AIO_IO_URING);
	return 0;
}

int main(int argc, char **argv)
{
	struct loop *loop = loop_new(NULL);

	if (!loop)
		return 1;
	path = g_strdup_printf("%s/io-bench.%d", argc > 1 ? argv[1] : ".", (int)getpid());
	int ret = loop_run(loop, run, NULL);
	unlink(path);
	g_free(path);
	loop_free(loop);
	pool_shutdown();
	return ret;
}
