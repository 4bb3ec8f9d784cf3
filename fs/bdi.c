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

static const struct {
	const char *file, *value;
	bool writable_only;
} limits[] = {
	/* 128 KiB; with more the buffers of requests leave the processors' caches. */
	{"read_ahead_kb", "512", false},
	/*
	 * A FUSE mount may keep 1 % of what may be dirty at all, and a writer is put to sleep again
	 * and again. Not more than a part of it, because our own writes to the host's file are
	 * dirty pages as well, and must not wait for those that they clean.
	 */
	{"max_ratio", "30", true},
};

static void put(unsigned major, unsigned minor, const char *file, const char *value)
{
	char path[80];
	int fd;

	g_snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/%s", major, minor, file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (write(fd, value, strlen(value)) < 0)
		log_message("%s: %s", path, g_strerror(errno));
	close(fd);
}

void bdi_tune(const char *mountpoint, bool writable)
{
	struct statx st;

	/* The device number comes from the kernel's own memory (DONT_SYNC): a plain stat would be
	 * a request to ourselves. */
	if (statx(AT_FDCWD, mountpoint, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, 0, &st) < 0)
		return;
	for (unsigned i = 0; i < G_N_ELEMENTS(limits); i++)
		if (writable || !limits[i].writable_only)
			put(st.stx_dev_major, st.stx_dev_minor, limits[i].file, limits[i].value);
}
