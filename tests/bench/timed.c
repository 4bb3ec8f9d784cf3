/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * timed [-n RUNS] [-r FILE] [-o OUT] -- COMMAND [ARG...]
 *
 * Runs a command and prints what it cost as one line of JSON: seconds of wall
 * clock, user and system time, peak resident memory in KiB, exit status.
 *
 * Not done by the Python of the harness, because the kernel counts the memory
 * of the process that calls execve into the peak of the new program: a child
 * of a 20 MB interpreter never shows less than 20 MB. This program has 1 MB.
 *
 *   -n  runs it so often; times are of all runs, memory is the largest
 *   -r  after the command has ended, waits for one byte of FILE, inside the
 *       time measured: a mount is there when its first byte is
 *   -o  the command's standard output (default: /dev/null)
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double seconds(struct timeval t)
{
	return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

static int run_once(char **argv, const char *out, struct rusage *usage)
{
	posix_spawn_file_actions_t actions;
	pid_t pid;
	int err, status;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, 1, out, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	err = posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	if (err) {
		fprintf(stderr, "timed: %s: %s\n", argv[0], strerror(err));
		return 127;
	}
	while (wait4(pid, &status, 0, usage) < 0) {
		if (errno != EINTR)
			return 126;
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int read_first_byte(const char *path)
{
	char byte;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || read(fd, &byte, 1) != 1) {
		fprintf(stderr, "timed: %s: %s\n", path, strerror(errno));
		return 125;
	}
	close(fd);
	return 0;
}

int main(int argc, char **argv)
{
	const char *out = "/dev/null", *first_byte_of = NULL;
	double start, wall, user = 0, sys = 0;
	int opt, runs = 1, status = 0;
	long rss = 0;

	while ((opt = getopt(argc, argv, "+n:r:o:")) != -1) {
		switch (opt) {
		case 'n':
			runs = atoi(optarg);
			break;
		case 'r':
			first_byte_of = optarg;
			break;
		case 'o':
			out = optarg;
			break;
		default:
			return 2;
		}
	}
	if (optind == argc || runs < 1) {
		fprintf(stderr, "usage: timed [-n RUNS] [-r FILE] [-o OUT] -- COMMAND [ARG...]\n");
		return 2;
	}
	start = now();
	for (int i = 0; i < runs; i++) {
		struct rusage usage = {0};
		int result = run_once(argv + optind, out, &usage);

		if (result)
			status = result;
		user += seconds(usage.ru_utime);
		sys += seconds(usage.ru_stime);
		if (usage.ru_maxrss > rss)
			rss = usage.ru_maxrss;
	}
	if (!status && first_byte_of)
		status = read_first_byte(first_byte_of);
	wall = now() - start;
	printf("{\"wall\": %.6f, \"user\": %.6f, \"sys\": %.6f, \"rss\": %ld, \"status\": %d}\n",
	       wall / runs, user / runs, sys / runs, rss, status);
	return 0;
}
