/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Linked with the sources of imgtool, or of imgfs, into a program for tests: every file that it
 * opens takes part in a plan of faults, which the environment names:
 *
 *	IMGFS_FAULT=KINDS:N:ERRNO[:forever]	the Nth operation of these kinds fails; of KINDS
 *						r w f t c (read write flush truncate change)
 *	IMGFS_FAULT_COUNT=FILE			at the end "COUNT FAILED" is written there
 *	IMGFS_FAULT_PLAN=FILE			the plan is what this file holds, a struct
 *						fault_plan, so that it can be looked at and changed
 *						while the program runs
 *
 * The installed programs know nothing of it.
 */
#include "config.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "io/file-fault.h"

static struct fault_plan plan;

static void tell_count(void)
{
	const char *path = getenv("IMGFS_FAULT_COUNT");
	FILE *f = path ? fopen(path, "w") : NULL;

	if (!f)
		return;
	fprintf(f, "%llu %llu\n", (unsigned long long)plan.count, (unsigned long long)plan.failed);
	fclose(f);
}

static struct file *take_part(struct file *opened, void *arg)
{
	struct file *f = file_new_fault(opened);

	file_unref(opened);
	file_fault_follow(f, arg);
	return f;
}

static bool parse(const char *text)
{
	static const char kinds[] = "rwftc";
	const char *colon = strchr(text, ':');
	char *end;

	for (; text < colon; text++) {
		const char *kind = strchr(kinds, *text);

		if (!kind)
			return false;
		plan.kinds |= 1u << (kind - kinds);
	}
	if (!colon)
		return false;
	plan.nth = strtoull(colon + 1, &end, 10);
	if (*end != ':')
		return false;
	plan.error = (int)strtol(end + 1, &end, 10);
	plan.forever = strcmp(end, ":forever") == 0;
	return plan.error > 0;
}

static struct fault_plan *map_plan(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	void *map = MAP_FAILED;

	if (fd >= 0)
		map = mmap(NULL, sizeof(plan), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED) {
		perror(path);
		exit(99);
	}
	close(fd);
	return map;
}

/* Before main: the wrapper belongs to the thread that opens files, which is the first one. */
__attribute__((constructor)) static void set_up(void)
{
	const char *text = getenv("IMGFS_FAULT"), *shared = getenv("IMGFS_FAULT_PLAN");

	if (shared)
		file_set_wrapper(take_part, map_plan(shared));
	if (!text)
		return;
	if (!parse(text)) {
		fprintf(stderr, "IMGFS_FAULT=%s is not understood\n", text);
		exit(99);
	}
	atexit(tell_count);
	file_set_wrapper(take_part, &plan);
}
