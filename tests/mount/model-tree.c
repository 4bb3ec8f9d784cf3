/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The model's snapshots and control files. */
#include "config.h"

#include "tests/mount/model.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static unsigned next_name;

static void path_of(char out[512], const char *folder, const char *name)
{
	snprintf(out, 512, "%s/%s/%s", mount_dir, folder, name);
}

int control(const char *file, const char *format, ...)
{
	char path[512], line[256];
	va_list args;
	int fd, err = 0;
	ssize_t len;

	va_start(args, format);
	len = vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	note("control/%s: %.*s", file, (int)len - 1, line);
	path_of(path, "control", file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return errno;
	if (write(fd, line, (size_t)len) != len)
		err = errno ? errno : EIO;
	if (close(fd) && !err)
		err = errno;
	return err;
}

static struct snapshot *any_snapshot(void)
{
	return snapshot_count ? &snapshots[rnd(snapshot_count)] : NULL;
}

static void new_name(char name[32])
{
	struct stat st;
	char path[512];

	do {
		snprintf(name, 32, "s%u-%u", (unsigned)getpid(), ++next_name);
		path_of(path, "snapshots", name);
	} while (stat(path, &st) == 0);
}

/* A command that is refused because a commit runs, or would be if that had not ended just now. */
static bool is_refused(int err)
{
	if (!commit_may_run())
		return false;
	if (err == EBUSY)
		return true;
	commit_forget();
	return false;
}

bool snapshot_make(char name[32])
{
	char path[512];
	int err = 0;

	new_name(name);
	path_of(path, "snapshots", name);
	note("create snapshot %s", name);
	if (rnd(2))
		err = control("snapshot", "create %s\n", name);
	else if (mkdir(path, 0700))
		err = errno;
	if (is_refused(err))
		return false;
	if (err)
		wrong("create %s: %s", name, strerror(err));
	counts.snapshots++;
	return true;
}

bool snapshot_create(void)
{
	struct snapshot *s = &snapshots[snapshot_count];

	if (snapshot_count == MAX_SNAPSHOTS || !allowed("snapshot") || !snapshot_make(s->name))
		return false;
	s->bytes = malloc(max_size);
	if (!s->bytes)
		wrong("memory");
	memcpy(s->bytes, bytes, max_size);
	s->size = size;
	snapshot_count++;
	return true;
}

void snapshot_remove(struct snapshot *s)
{
	char path[512];
	int err = 0;

	note("delete snapshot %s", s->name);
	path_of(path, "snapshots", s->name);
	if (rnd(2))
		err = control("snapshot", "delete %s\n", s->name);
	else if (rmdir(path))
		err = errno;
	if (err)
		wrong("delete %s: %s", s->name, strerror(err));
	if (access(path, F_OK) == 0)
		wrong("%s is still there", path);
	free(s->bytes);
	*s = snapshots[--snapshot_count];
}

bool snapshot_delete(void)
{
	struct snapshot *s = any_snapshot();

	if (!s || rnd(2))
		return false;
	snapshot_remove(s);
	return true;
}

bool snapshot_rename(void)
{
	struct snapshot *s = any_snapshot();
	char from[512], to[512], name[32];
	int err = 0;

	if (!s)
		return false;
	new_name(name);
	note("rename snapshot %s to %s", s->name, name);
	path_of(from, "snapshots", s->name);
	path_of(to, "snapshots", name);
	if (rnd(2))
		err = control("snapshot", "rename %s %s\n", s->name, name);
	else if (rename(from, to))
		err = errno;
	if (err)
		wrong("rename %s: %s", s->name, strerror(err));
	snprintf(s->name, sizeof(s->name), "%s", name);
	return true;
}

/* ---- what changes a disk that nobody may write to: readers may have it open ---- */

struct reader {
	struct window *w;
	int fd; /* -1: none this time */
};

static void read_as_model(const struct reader *r, const char *when)
{
	uint64_t end = r->w->size ? r->w->size : size, at = rnd(end);
	uint64_t len = end - at < MAX_LEN ? end - at : MAX_LEN;
	uint8_t *buf = malloc(len);
	struct stat st;

	if (!buf || fstat(r->fd, &st))
		wrong("fstat %s: %s", r->w->path, strerror(errno));
	if ((uint64_t)st.st_size != end)
		wrong("%s: %s has %" PRIu64 " bytes for who has it open, not %" PRIu64, when,
		      r->w->path, (uint64_t)st.st_size, end);
	if (pread(r->fd, buf, len, (off_t)at) != (ssize_t)len)
		wrong("%s: read %s %" PRIu64 " %" PRIu64 ": %s", when, r->w->path, at, len,
		      strerror(errno));
	same(when, buf, bytes + r->w->start + at, r->w->start + at, len);
	free(buf);
}

/* Writers are gone after this; a reader may stay, with some of the disk in the kernel's cache. */
static struct reader only_a_reader(void)
{
	struct reader r = {&windows[rnd(window_count)], -1};

	windows_close();
	if (rnd(2))
		return r;
	r.fd = open(r.w->path, O_RDONLY | O_CLOEXEC);
	if (r.fd < 0)
		wrong("open %s: %s", r.w->path, strerror(errno));
	read_as_model(&r, "before a change");
	return r;
}

static void reader_end(struct reader r)
{
	if (r.fd < 0)
		return;
	for (unsigned i = 0; i < 4; i++)
		read_as_model(&r, "after a change");
	close(r.fd);
}

bool snapshot_apply(void)
{
	const struct snapshot *s = any_snapshot();
	struct reader r;
	int err;

	if (!s || !allowed("apply"))
		return false;
	if (rnd(3) == 0) {
		err = control("snapshot", "apply %s\n", s->name);
		if (err != EBUSY)
			wrong("apply with open files: %s", strerror(err));
	}
	r = only_a_reader();
	err = control("snapshot", "apply %s\n", s->name);
	if (err)
		wrong("apply %s: %s", s->name, strerror(err));
	counts.applied++;
	memcpy(bytes, s->bytes, max_size);
	size = s->size;
	memset(bytes + size, 0, max_size - size);
	reader_end(r);
	windows_open();
	return true;
}

/* Into buf: len bytes of the snapshot's disk, which has the size that it should have. */
static void read_snapshot(const struct snapshot *s, uint64_t at, uint8_t *buf, size_t len)
{
	char path[512], file[64];
	struct stat st;
	size_t n = 0;
	int fd;

	snprintf(file, sizeof(file), "%s/disk.raw", s->name);
	path_of(path, "snapshots", file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st))
		wrong("open %s: %s", path, strerror(errno));
	if ((uint64_t)st.st_size != s->size)
		wrong("%s has %" PRIu64 " bytes, not %" PRIu64, path, (uint64_t)st.st_size,
		      s->size);
	while (n < len) {
		ssize_t ret = pread(fd, buf + n, len - n, (off_t)(at + n));

		if (ret <= 0)
			wrong("read %s: %s", path, ret ? strerror(errno) : "nothing there");
		n += (size_t)ret;
	}
	close(fd);
}

void snapshot_take(struct snapshot *s)
{
	s->bytes = calloc(1, max_size);
	if (!s->bytes)
		wrong("memory");
	read_snapshot(s, 0, s->bytes, s->size);
}

bool snapshot_read(void)
{
	const struct snapshot *s = any_snapshot();
	uint8_t *buf;
	uint64_t at;
	size_t len;

	if (!s)
		return false;
	at = rnd(s->size);
	len = 1 + rnd(rnd(2) ? 8192 : 1 << 20);
	if (len > s->size - at)
		len = s->size - at;
	note("read of snapshot %s %" PRIu64 " %zu", s->name, at, len);
	buf = malloc(len);
	if (!buf)
		wrong("memory");
	read_snapshot(s, at, buf, len);
	same(s->name, buf, s->bytes + at, at, len);
	free(buf);
	return true;
}

/* Less than before only while nobody may write behind the end. */
static void shrink(uint64_t to)
{
	struct reader r;
	int err;

	if (rnd(2) && control("resize", "--shrink %" PRIu64 "\n", to) != EBUSY)
		wrong("shrinking with open files");
	r = only_a_reader();
	err = control("resize", "--shrink %" PRIu64 "\n", to);
	if (!is_refused(err)) {
		if (err)
			wrong("resize to %" PRIu64 ": %s", to, strerror(err));
		set_size(to);
	}
	reader_end(r);
	windows_open();
}

bool control_size(void)
{
	uint64_t to = min_size + rnd((max_size - min_size) / SECTOR + 1) * SECTOR;
	int err;

	if (!allowed("truncate") || !allowed("resize"))
		return false;
	if (to == size)
		return false;
	if (to < size) {
		shrink(to);
		return true;
	}
	err = control("resize", "%" PRIu64 "\n", to);
	if (is_refused(err))
		return false;
	if (err)
		wrong("resize to %" PRIu64 ": %s", to, strerror(err));
	set_size(to);
	return true;
}

void truncate_to(uint64_t to)
{
	int err = 0;

	/* Which goes well while a commit runs, too. */
	if (to == size)
		return;
	note("truncate %" PRIu64 " to %" PRIu64, size, to);
	if (ftruncate(windows[0].fd, (off_t)to))
		err = errno;
	if (is_refused(err))
		return;
	if (err)
		wrong("truncate to %" PRIu64 ": %s", to, strerror(err));
	set_size(to);
}

/* In a file that is open for writing. */
void refusals(void)
{
	const struct snapshot *s = any_snapshot();

	if (s && control("snapshot", "apply %s\n", s->name) != EBUSY)
		wrong("apply with open files");
	if (allowed("truncate") && allowed("resize") &&
	    control("resize", "--shrink %" PRIu64 "\n", size - SECTOR) != EBUSY)
		wrong("shrinking with open files");
}
