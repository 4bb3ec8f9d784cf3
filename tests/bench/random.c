/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * random [-d] [-w] [-t THREADS] [-b BYTES] [-s SEED] [-c REFERENCE] -n BLOCKS FILE
 *
 * Random reads, or writes, of FILE by some threads, each with a descriptor of its own; no
 * block is met twice in a run, so the page cache never answers. Writes end with an fsync,
 * which is a part of the time. Prints the seconds as JSON.
 *
 *   -d  O_DIRECT
 *   -w  writes: the same bytes for the same seed
 *   -n  blocks of each thread
 *   -c  compares every block read with the same block of REFERENCE (not for timing)
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char *path, *reference;
static uint64_t blocks, count, seed, block_size = 4096;
static unsigned bits;
static bool writing;
static int threads = 1, open_flags = O_CLOEXEC;

/*
 * A bijection of the numbers below 2^bits that looks random: each step can be
 * undone, so no two indexes meet.
 */
static uint64_t scatter(uint64_t x)
{
	uint64_t mask = (UINT64_C(1) << bits) - 1;

	x = (x + seed) & mask;
	for (int i = 0; i < 3; i++) {
		x = (x * UINT64_C(0x9e3779b97f4a7c15)) & mask;
		x ^= x >> (bits / 2 + 1);
	}
	return x;
}

static void fail(const char *what, const char *name, int err)
{
	fprintf(stderr, "random: %s %s: %s\n", what, name, strerror(err));
	exit(1);
}

static void read_block(int fd, const char *name, void *buf, uint64_t offset)
{
	ssize_t n = pread(fd, buf, block_size, (off_t)offset);

	if (n != (ssize_t)block_size)
		fail("read", name, n < 0 ? errno : EIO);
}

static void write_block(int fd, void *buf, uint64_t block)
{
	uint64_t stamp = block * UINT64_C(0x9e3779b97f4a7c15) + seed;
	ssize_t n;

	memcpy(buf, &stamp, sizeof(stamp));
	n = pwrite(fd, buf, block_size, (off_t)(block * block_size));
	if (n != (ssize_t)block_size)
		fail("write", path, n < 0 ? errno : EIO);
}

static void check_block(int ref, const void *buf, void *expect, uint64_t block)
{
	read_block(ref, reference, expect, block * block_size);
	if (memcmp(buf, expect, block_size) == 0)
		return;
	fprintf(stderr, "random: block %llu differs\n", (unsigned long long)block);
	exit(1);
}

static int open_file(const char *name, int flags)
{
	int fd = open(name, flags);

	if (fd < 0)
		fail("open", name, errno);
	/* As fio does for a random load: no read-ahead for either side. */
	posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
	return fd;
}

static void *worker(void *arg)
{
	uint64_t index = (uint64_t)(uintptr_t)arg;
	int fd = open_file(path, open_flags | (writing ? O_WRONLY : O_RDONLY));
	int ref = reference ? open_file(reference, O_RDONLY | O_CLOEXEC) : -1;
	void *buf, *expect;

	if (posix_memalign(&buf, 4096, block_size) || posix_memalign(&expect, 4096, block_size))
		fail("memory for", path, ENOMEM);
	memset(buf, 0xa5, block_size);
	for (uint64_t done = 0; done < count; index += (uint64_t)threads) {
		uint64_t block = scatter(index);

		if (block >= blocks)
			continue;
		done++;
		if (writing)
			write_block(fd, buf, block);
		else
			read_block(fd, path, buf, block * block_size);
		if (ref >= 0)
			check_block(ref, buf, expect, block);
	}
	if (writing && fsync(fd))
		fail("fsync of", path, errno);
	free(buf);
	free(expect);
	close(fd);
	if (ref >= 0)
		close(ref);
	return NULL;
}

static void measure(void)
{
	pthread_t *ids = calloc((size_t)threads, sizeof(*ids));
	struct timespec start, end;

	if (!ids)
		fail("memory for", path, ENOMEM);
	clock_gettime(CLOCK_MONOTONIC, &start);
	for (int i = 0; i < threads; i++) {
		int err = pthread_create(&ids[i], NULL, worker, (void *)(uintptr_t)i);

		if (err)
			fail("thread for", path, err);
	}
	for (int i = 0; i < threads; i++)
		pthread_join(ids[i], NULL);
	clock_gettime(CLOCK_MONOTONIC, &end);
	printf("{\"wall\": %.6f}\n",
	       (double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec) / 1e9);
	free(ids);
}

int main(int argc, char **argv)
{
	struct stat st;
	int opt;

	while ((opt = getopt(argc, argv, "dwt:b:s:c:n:")) != -1) {
		switch (opt) {
		case 'd':
			open_flags |= O_DIRECT;
			break;
		case 'w':
			writing = true;
			break;
		case 't':
			threads = atoi(optarg);
			break;
		case 'b':
			block_size = strtoull(optarg, NULL, 0);
			break;
		case 's':
			seed = strtoull(optarg, NULL, 0);
			break;
		case 'c':
			reference = optarg;
			break;
		case 'n':
			count = strtoull(optarg, NULL, 0);
			break;
		default:
			return 2;
		}
	}
	if (optind != argc - 1 || threads < 1 || block_size < 512 || !count ||
	    (writing && reference)) {
		fprintf(stderr, "usage: random [-d] [-w] [-t THREADS] [-b BYTES] [-s SEED] "
				"[-c REFERENCE] -n BLOCKS FILE\n");
		return 2;
	}
	path = argv[optind];
	if (stat(path, &st))
		fail("stat", path, errno);
	blocks = (uint64_t)st.st_size / block_size;
	if (blocks / (uint64_t)threads < count) {
		fprintf(stderr, "random: %s has only %llu blocks\n", path,
			(unsigned long long)blocks);
		return 2;
	}
	while ((UINT64_C(1) << bits) < blocks)
		bits++;
	measure();
	return 0;
}
