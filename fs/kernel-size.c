/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Telling the kernel of a disk's new size. In a mount with a write-back cache the kernel believes
 * no size of a regular file but the one that it has made itself, because it may know of writes
 * behind the end that have not come yet. So we have it make the size: by truncate(2) on our own
 * file, whose request is answered with success because the disk has that size already.
 */
#include "config.h"

#include "fs/kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "fs/kernel-internal.h"
#include "fs/log.h"
#include "io/pool.h"

static char *disk_path; /* of disk.raw; NULL: there is no mount */
static dev_t device;	/* of our mount, 0: not known */

void kernel_size_begin(const char *mounted_at, bool single_file)
{
	struct statx st;

	/* From the kernel's own memory: a plain stat would be a request to ourselves. */
	if (statx(AT_FDCWD, mounted_at, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, 0, &st) == 0)
		device = makedev(st.stx_dev_major, st.stx_dev_minor);
	disk_path =
		single_file ? g_strdup(mounted_at) : g_build_filename(mounted_at, "disk.raw", NULL);
}

void kernel_size_end(void)
{
	g_clear_pointer(&disk_path, g_free);
	device = 0;
}

/* Something else may be mounted there meanwhile, or we may have been moved: then -ENOENT. */
static int truncate_ours(void *arg)
{
	const uint64_t *size = arg;
	char path[32];
	struct stat st;
	int fd = open(disk_path, O_PATH | O_CLOEXEC | O_NOFOLLOW), ret = 0;

	if (fd < 0)
		return -errno;
	g_snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (fstat(fd, &st) < 0)
		ret = -errno;
	else if (st.st_dev != device)
		ret = -ENOENT;
	else if ((uint64_t)st.st_size != *size && truncate(path, (off_t)*size) < 0)
		ret = -errno;
	close(fd);
	return ret;
}

void kernel_size_changed(uint64_t size)
{
	int ret = disk_path ? pool_run_blocking(truncate_ours, &size) : 0;

	if (ret && ret != -ENOTCONN && ret != -ENODEV)
		log_message("%s: the kernel does not learn of the disk's new size: %s", disk_path,
			    g_strerror(-ret));
}
