/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * control/commit beside everything else. What the disk held when a commit was asked for, and nobody
 * wrote to since, the base holds when it has ended; what was written meanwhile may have come or
 * not. That the disk reads the same, whichever way a commit ends, the model checks anyway.
 */
#include "config.h"

#include "tests/mount/model.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define WAIT_MS 120000

static unsigned depth;	 /* of the base of a commit that may be under way; 0: there is none */
static bool cancelled;	 /* or asked to be, which may have come too late */
static uint8_t *touched; /* for each sector: it was written since the commit was asked for */

void touch(uint64_t at, uint64_t len)
{
	if (!touched || !len)
		return;
	for (uint64_t i = at / SECTOR; i <= (at + len - 1) / SECTOR; i++)
		__atomic_store_n(&touched[i], 1, __ATOMIC_RELAXED);
}

bool commit_may_run(void)
{
	return depth;
}

/* ---- what the base has ------------------------------------------------------------------------
 */

static void layer_path(char path[512], unsigned number)
{
	char prefix[16];
	struct dirent *e;
	DIR *dir;

	snprintf(path, 512, "%s/layers", mount_dir);
	snprintf(prefix, sizeof(prefix), "%u-", number);
	dir = opendir(path);
	if (!dir)
		wrong("open %s: %s", path, strerror(errno));
	while ((e = readdir(dir)) && strncmp(e->d_name, prefix, strlen(prefix)) != 0)
		;
	if (!e)
		wrong("%s: no layer %u", path, number);
	snprintf(path, 512, "%s/layers/%.255s", mount_dir, e->d_name);
	closedir(dir);
}

static void judge_base(void)
{
	uint8_t *got = malloc(size);
	char path[512];
	struct stat st;
	uint64_t n = 0;
	int fd;

	layer_path(path, depth);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) || !got)
		wrong("open %s: %s", path, strerror(errno));
	if ((uint64_t)st.st_size < size)
		wrong("committed, but %s has %" PRIu64 " bytes, not %" PRIu64, path,
		      (uint64_t)st.st_size, size);
	while (n < size) {
		ssize_t ret = pread(fd, got + n, size - n, (off_t)n);

		if (ret <= 0)
			wrong("read %s at %" PRIu64 ": %s", path, n,
			      ret ? strerror(errno) : "nothing there");
		n += (uint64_t)ret;
	}
	for (uint64_t at = 0; at < size; at += SECTOR) {
		if (!touched[at / SECTOR])
			same(path, got + at, bytes + at, at, SECTOR);
	}
	free(got);
	close(fd);
}

/* ---- how it stands ----------------------------------------------------------------------------
 */

/* Reads the control file from its start; the word behind "state: ". */
static void read_state(int fd, char state[32], char text[1024])
{
	ssize_t n = pread(fd, text, 1023, 0);

	if (n <= 0)
		wrong("read control/commit: %s", strerror(errno));
	text[n] = '\0';
	if (sscanf(text, "state: %31s", state) != 1)
		wrong("control/commit says '%s'", text);
}

static int open_file(void)
{
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "%s/control/commit", mount_dir);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		wrong("open %s: %s", path, strerror(errno));
	return fd;
}

/* false: it goes on. */
static bool look(int fd)
{
	char state[32], text[1024];

	read_state(fd, state, text);
	if (strcmp(state, "running") == 0)
		return false;
	note("commit into layer %u: %s", depth, state);
	if (strcmp(state, "done") == 0) {
		judge_base();
		counts.committed++;
	} else if (cancelled && strcmp(state, "cancelled") == 0) {
		counts.cancelled++;
	} else {
		wrong("commit ended: %s", text);
	}
	depth = 0;
	return true;
}

void commit_look(void)
{
	int fd;

	if (!depth)
		return;
	fd = open_file();
	look(fd);
	close(fd);
}

void commit_wait(void)
{
	struct pollfd p = {.events = POLLIN};

	if (!depth)
		return;
	note("wait for the commit");
	p.fd = open_file();
	while (!look(p.fd))
		if (poll(&p, 1, WAIT_MS) != 1)
			wrong("nothing new of the commit in %d ms", WAIT_MS);
	close(p.fd);
}

void commit_forget(void)
{
	depth = 0;
}

/* ---- commands ---------------------------------------------------------------------------------
 */

void commit_begin(void)
{
	unsigned to = 1 + (unsigned)rnd(rnd(2) ? base_count : 1);
	char line[256] = "";
	int err;

	if (!touched)
		touched = malloc((max_size + MAX_LEN) / SECTOR);
	if (!touched)
		wrong("memory");
	memset(touched, 0, (max_size + MAX_LEN) / SECTOR);
	/* Slow enough that much is done beside it. */
	if (rnd(4))
		snprintf(line, sizeof(line), "rate=%u%s", 16u << (20 + rnd(4)), to > 1 ? " " : "");
	if (to > 1 || rnd(2))
		snprintf(line + strlen(line), sizeof(line) - strlen(line), "%sbase=%s",
			 *line && to == 1 ? " " : "", base_names[to - 1]);
	cancelled = false;
	err = control("commit", "%s\n", line);
	if (err)
		wrong("commit '%s': %s", line, strerror(err));
	depth = to;
}

/* When this returns it has ended. */
void commit_cancel(void)
{
	int err = control("commit", "cancel\n");

	if (err && err != ESRCH)
		wrong("cancel: %s", strerror(err));
	cancelled = true;
}

static void expect(const char *line, int err, const char *why)
{
	int got = control("commit", "%s\n", line);

	if (got != err)
		wrong("commit %s: %s", why, got ? strerror(got) : "was taken");
}

static void beside(void)
{
	if (rnd(3) == 0) {
		commit_cancel();
		commit_look();
		if (depth)
			wrong("cancelled, but it runs still");
	} else if (rnd(2)) {
		commit_wait();
	}
}

bool control_commit(void)
{
	if (!allowed("commit"))
		return false;
	if (!base_count) {
		expect("", EOPNOTSUPP, "of a disk that cannot be");
		return true;
	}
	if (depth) {
		beside();
		return true;
	}
	if (rnd(8) == 0)
		expect("cancel", ESRCH, "to be cancelled, where none runs");
	if (snapshot_count && rnd(2))
		expect("", EOPNOTSUPP, "of an image with snapshots");
	while (snapshot_count)
		snapshot_remove(&snapshots[0]);
	commit_begin();
	if (rnd(2))
		beside();
	return true;
}
