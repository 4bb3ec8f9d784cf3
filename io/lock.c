/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * QEMU's protocol: say what one holds and what one does not share by a read lock
 * on a byte each, and only then look whether somebody else's bytes contradict. Two
 * that come at the same moment may both give up, but never both go on. The locks
 * belong to the open file description, so that other descriptors of this process
 * that come and go do not free them.
 */
#include <config.h>

#include "io/file.h"
#include "io/lock.h"

#include <errno.h>
#include <fcntl.h>

#define HELD_BASE     100
#define UNSHARED_BASE 200

static const char *const perm_names[] = {"consistent read", "write", "write unchanged", "resize"};
#define PERMS G_N_ELEMENTS(perm_names)

static int set_byte(int fd, off_t byte, short type)
{
	struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
	int ret;

	do
		ret = fcntl(fd, F_OFD_SETLK, &lock);
	while (ret < 0 && errno == EINTR);
	return ret < 0 ? -errno : 0;
}

/* Would a write lock on this byte be refused, so that somebody else has it? */
static bool is_held_elsewhere(int fd, off_t byte)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};

	return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

void lock_give_back(int fd, unsigned perms, unsigned unshared)
{
	for (unsigned i = 0; i < PERMS; i++) {
		if (perms & (1u << i))
			set_byte(fd, HELD_BASE + (off_t)i, F_UNLCK);
		if (unshared & (1u << i))
			set_byte(fd, UNSHARED_BASE + (off_t)i, F_UNLCK);
	}
}

static int take(int fd, unsigned perms, unsigned unshared)
{
	for (unsigned i = 0; i < PERMS; i++) {
		int ret = 0;

		if (perms & (1u << i))
			ret = set_byte(fd, HELD_BASE + (off_t)i, F_RDLCK);
		if (ret == 0 && (unshared & (1u << i)))
			ret = set_byte(fd, UNSHARED_BASE + (off_t)i, F_RDLCK);
		if (ret < 0)
			return ret;
	}
	return 0;
}

static bool conflict(const char *path, const char *shared, unsigned perm, GError **error)
{
	g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_AGAIN,
		    "Failed to get %s\"%s\" lock\nIs another process using the image [%s]?", shared,
		    perm_names[perm], path);
	return false;
}

static bool check(int fd, const char *path, unsigned perms, unsigned unshared, GError **error)
{
	for (unsigned i = 0; i < PERMS; i++)
		if ((perms & (1u << i)) && is_held_elsewhere(fd, UNSHARED_BASE + (off_t)i))
			return conflict(path, "", i, error);
	for (unsigned i = 0; i < PERMS; i++)
		if ((unshared & (1u << i)) && is_held_elsewhere(fd, HELD_BASE + (off_t)i))
			return conflict(path, "shared ", i, error);
	return true;
}

bool lock_take(int fd, const char *path, unsigned perms, unsigned unshared, GError **error)
{
	int ret = take(fd, perms, unshared);

	if (ret == -EAGAIN || ret == -EACCES) {
		/* Somebody has an exclusive lock on our bytes: not QEMU's way, but a lock. */
		lock_give_back(fd, perms, unshared);
		g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_AGAIN,
			    "Failed to lock byte range\nIs another process using the image [%s]?",
			    path);
		return false;
	}
	if (ret < 0) {
		/* EINVAL, ENOLCK, ENOSYS, EOPNOTSUPP: there are no locks here. */
		lock_give_back(fd, perms, unshared);
		return true;
	}
	if (check(fd, path, perms, unshared, error))
		return true;
	lock_give_back(fd, perms, unshared);
	return false;
}
