/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <config.h>

#include "io/file-unnamed.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/file.h"

/* As open(2) does for who makes a file. */
static void set_mode(int fd, mode_t mode)
{
	mode_t mask = umask(0);

	umask(mask);
	(void)fchmod(fd, mode & ~mask);
}

/* Where O_TMPFILE is not known: a name that nobody guesses, for as long as it takes. */
static int open_named(struct unnamed *u, const char *beside)
{
	u->name = g_strconcat(beside, ".XXXXXX", NULL);
	u->fd = mkostemp(u->name, O_CLOEXEC);
	if (u->fd >= 0)
		return 0;
	g_clear_pointer(&u->name, g_free);
	return -errno;
}

bool unnamed_open(struct unnamed *u, const char *beside, mode_t mode, GError **error)
{
	g_autofree char *folder = g_path_get_dirname(beside);
	int ret = 0;

	*u = (struct unnamed){.fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600)};
	/* EISDIR: a kernel that does not know the flag. */
	if (u->fd < 0)
		ret = errno == EOPNOTSUPP || errno == EISDIR ? open_named(u, beside) : -errno;
	if (ret == 0) {
		set_mode(u->fd, mode);
		u->path = g_strdup_printf("/proc/self/fd/%d", u->fd);
		return true;
	}
	g_set_error(error, G_FILE_ERROR, g_file_error_from_errno(-ret),
		    "Could not create a file in '%s': %s", folder, g_strerror(-ret));
	return false;
}

/* Some file systems have no links, others do not know how to rename without replacing. */
static int rename_new(struct unnamed *u, const char *path)
{
	if (renameat2(AT_FDCWD, u->name, AT_FDCWD, path, RENAME_NOREPLACE) == 0) {
		g_clear_pointer(&u->name, g_free);
		return 0;
	}
	return errno == EINVAL || errno == ENOSYS ? link(u->name, path) : -1;
}

int unnamed_publish(struct unnamed *u, const char *path)
{
	int ret = u->name ? rename_new(u, path)
			  : linkat(AT_FDCWD, u->path, AT_FDCWD, path, AT_SYMLINK_FOLLOW);

	if (ret < 0)
		return -errno;
	/* A file system that cannot say so is no reason to give up. */
	(void)file_sync_directory(path);
	return 0;
}

void unnamed_close(struct unnamed *u)
{
	if (u->name)
		unlink(u->name);
	close(u->fd);
	g_free(u->name);
	g_free(u->path);
}
