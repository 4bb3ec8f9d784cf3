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

/* Writes one line into a control file: 0, or what write or close says. */
static int control(const char *file, const char *format, ...)
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

bool snapshot_create(void)
{
	struct snapshot *s = &snapshots[snapshot_count];
	char path[512];

	if (snapshot_count == MAX_SNAPSHOTS || !allowed("snapshot"))
		return false;
	new_name(s->name);
	path_of(path, "snapshots", s->name);
	note("create snapshot %s", s->name);
	if (rnd(2)) {
		int err = control("snapshot", "create %s\n", s->name);

		if (err)
			wrong("create %s: %s", s->name, strerror(err));
	} else if (mkdir(path, 0700)) {
		wrong("mkdir %s: %s", path, strerror(errno));
	}
	s->bytes = malloc(max_size);
	if (!s->bytes)
		wrong("memory");
	memcpy(s->bytes, bytes, max_size);
	s->size = size;
	snapshot_count++;
	return true;
}

bool snapshot_delete(void)
{
	struct snapshot *s = any_snapshot();
	char path[512];
	int err = 0;

	if (!s || rnd(2))
		return false;
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

bool snapshot_apply(void)
{
	const struct snapshot *s = any_snapshot();
	int err;

	if (!s || !allowed("apply"))
		return false;
	if (rnd(3) == 0) {
		err = control("snapshot", "apply %s\n", s->name);
		if (err != EBUSY)
			wrong("apply with open files: %s", strerror(err));
	}
	windows_close();
	err = control("snapshot", "apply %s\n", s->name);
	if (err)
		wrong("apply %s: %s", s->name, strerror(err));
	memcpy(bytes, s->bytes, max_size);
	size = s->size;
	memset(bytes + size, 0, max_size - size);
	windows_open();
	return true;
}

bool snapshot_read(void)
{
	const struct snapshot *s = any_snapshot();
	char path[512], file[64];
	uint8_t *buf;
	uint64_t at;
	size_t len;
	struct stat st;
	int fd;

	if (!s)
		return false;
	snprintf(file, sizeof(file), "%s/disk.raw", s->name);
	path_of(path, "snapshots", file);
	at = rnd(s->size);
	len = 1 + rnd(rnd(2) ? 8192 : 1 << 20);
	if (len > s->size - at)
		len = s->size - at;
	note("read of snapshot %s %" PRIu64 " %zu", s->name, at, len);
	buf = malloc(len);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) || !buf)
		wrong("open %s: %s", path, strerror(errno));
	if ((uint64_t)st.st_size != s->size)
		wrong("%s has %" PRIu64 " bytes, not %" PRIu64, path, (uint64_t)st.st_size,
		      s->size);
	if (pread(fd, buf, len, (off_t)at) != (ssize_t)len)
		wrong("read %s: %s", path, strerror(errno));
	same(path, buf, s->bytes + at, at, len);
	free(buf);
	close(fd);
	return true;
}

bool control_size(void)
{
	uint64_t to = min_size + rnd((max_size - min_size) / SECTOR + 1) * SECTOR;
	int err;

	if (!allowed("truncate") || !allowed("resize"))
		return false;
	/* Less than before only while nobody may write behind the end. */
	if (to < size) {
		if (rnd(2) && control("resize", "--shrink %" PRIu64 "\n", to) != EBUSY)
			wrong("shrinking with open files");
		windows_close();
	}
	err = control("resize", "%s%" PRIu64 "\n", to < size ? "--shrink " : "", to);
	if (err)
		wrong("resize to %" PRIu64 ": %s", to, strerror(err));
	if (to < size) {
		set_size(to);
		windows_open();
	}
	set_size(to);
	return true;
}

bool control_commit(void)
{
	return false;
}
