/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "fs/resized.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "fs/log.h"
#include "io/pool.h"

static char *disk_path; /* NULL: not mounted, or not to be changed */
static unsigned dev_major, dev_minor;

/* From the kernel's memory: a plain stat would be a request to ourselves. */
static int stat_known(int dir, const char *name, struct statx *st)
{
	int flags = AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH;

	return statx(dir, name, flags, STATX_SIZE | STATX_INO, st) < 0 ? -errno : 0;
}

void resized_begin(const char *mountpoint, bool single_file)
{
	struct statx st;

	if (stat_known(AT_FDCWD, mountpoint, &st))
		return;
	dev_major = st.stx_dev_major;
	dev_minor = st.stx_dev_minor;
	disk_path =
		single_file ? g_strdup(mountpoint) : g_build_filename(mountpoint, "disk.raw", NULL);
}

void resized_end(void)
{
	g_clear_pointer(&disk_path, g_free);
}

/* Something else may have been mounted over us since: its files are not ours to cut. */
static bool is_ours(const struct statx *st)
{
	return st->stx_dev_major == dev_major && st->stx_dev_minor == dev_minor;
}

static int set_size(int fd, uint64_t size)
{
	struct statx st;
	char path[40];
	int ret = stat_known(fd, "", &st);

	if (ret)
		return ret;
	if (!is_ours(&st))
		return -ENODEV;
	if (st.stx_size == size)
		return 0;
	/* Not opened for writing: that may be barred. */
	g_snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return truncate(path, (off_t)size) < 0 ? -errno : 0;
}

/* On a thread that may block, while the loop answers. */
static int tell(void *arg)
{
	int ret, fd = open(disk_path, O_PATH | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	ret = set_size(fd, *(const uint64_t *)arg);
	close(fd);
	return ret;
}

void resized_tell(struct tree *t)
{
	uint64_t size = tree_image(t)->size;
	int ret = disk_path ? pool_run_blocking(tell, &size) : 0;

	if (ret)
		log_message("%s: the kernel cannot be told its new size: %s", disk_path,
			    g_strerror(-ret));
}
