/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "fs/bdi.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/log.h"

/* 128 KiB; with more the buffers of requests leave the processors' caches. */
#define READ_AHEAD "512"
/*
 * A FUSE mount may keep 1 % of what may be dirty at all, and a writer is put to sleep again
 * and again. Not more than a part of it, because our own writes to the host's file are
 * dirty pages as well, and must not wait for those that they clean.
 */
#define DIRTY_PERCENT "30"
/*
 * And not more than this, however much memory there is. The kernel begins to send pages at a half
 * of the limit: with hundreds of MiB a writer would fill most of that first, and then wait for all
 * of it in fsync, where both could have gone on side by side. With much less it sleeps again.
 */
#define DIRTY_BYTES 134217728

static char *limit_path(const struct statx *st, const char *file)
{
	return g_strdup_printf("/sys/class/bdi/%u:%u/%s", st->stx_dev_major, st->stx_dev_minor,
			       file);
}

static void put(const struct statx *st, const char *file, const char *value)
{
	g_autofree char *path = limit_path(st, file);
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	if (write(fd, value, strlen(value)) < 0)
		log_message("%s: %s", path, g_strerror(errno));
	close(fd);
}

/* 0: not there; max_bytes came with Linux 6.2. */
static uint64_t get(const struct statx *st, const char *file)
{
	g_autofree char *path = limit_path(st, file);
	g_autofree char *text = NULL;

	return g_file_get_contents(path, &text, NULL, NULL) ? g_ascii_strtoull(text, NULL, 10) : 0;
}

void bdi_tune(const char *mountpoint, bool writable)
{
	struct statx st;

	/* The device number comes from the kernel's own memory (DONT_SYNC): a plain stat would be
	 * a request to ourselves. */
	if (statx(AT_FDCWD, mountpoint, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, 0, &st) < 0)
		return;
	put(&st, "read_ahead_kb", READ_AHEAD);
	if (!writable)
		return;
	put(&st, "max_ratio", DIRTY_PERCENT);
	/* What the percentage comes to now. */
	if (get(&st, "max_bytes") > DIRTY_BYTES)
		put(&st, "max_bytes", G_STRINGIFY(DIRTY_BYTES));
}
