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

static char *mounted_at; /* NULL: not mounted, or not to be changed */
static bool is_one_file;
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
	mounted_at = g_strdup(mountpoint);
	is_one_file = single_file;
}

void resized_end(void)
{
	g_clear_pointer(&mounted_at, g_free);
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

struct new_size {
	char *path;
	uint64_t size;
};

/* On a thread that may block, while the loop answers. */
static int tell(void *arg)
{
	const struct new_size *n = arg;
	int ret, fd = open(n->path, O_PATH | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	ret = set_size(fd, n->size);
	close(fd);
	return ret;
}

static char *path_of(uint64_t node)
{
	if (is_one_file)
		return g_strdup(mounted_at);
	if (node_is_partition(node))
		return g_strdup_printf("%s/partitions/%u.raw", mounted_at,
				       node_leaf(node) - LEAF_PARTITION_0);
	return g_build_filename(mounted_at, "disk.raw", NULL);
}

void resized_tell_file(uint64_t node, uint64_t size)
{
	struct new_size n = {.size = size};
	int ret;

	if (!mounted_at)
		return;
	n.path = path_of(node);
	ret = pool_run_blocking(tell, &n);
	/* ENOENT, ENODEV: unmounted, or hidden by another mount. */
	if (ret && ret != -ENOENT && ret != -ENODEV)
		log_message("%s: the kernel cannot be told its new size: %s", n.path,
			    g_strerror(-ret));
	g_free(n.path);
}

void resized_tell(struct tree *t)
{
	resized_tell_file(node_make(DISK_TOP, LEAF_DISK), tree_image(t)->size);
}
