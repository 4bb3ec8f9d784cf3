/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Regular files and block devices: opening them, and what concerns their names. */
#include <config.h>

#include "io/file-posix.h"
#include "io/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/vfs.h>
#include <unistd.h>

/* --- opening --- */

/* Why this kind of thing is not opened, or NULL. */
static const char *refusal(mode_t mode, unsigned flags)
{
	if (S_ISREG(mode))
		return NULL;
	if (flags & FILE_REGULAR_ONLY)
		return "not a regular file";
	if (S_ISBLK(mode))
		return NULL;
	return S_ISDIR(mode) ? "it is a directory" : "neither a regular file nor a block device";
}

static int open_flags(const struct file_options *o)
{
	int flags = O_CLOEXEC | O_NONBLOCK | O_NOCTTY;

	flags |= o->flags & FILE_RDWR ? O_RDWR : O_RDONLY;
	if (o->cache == CACHE_WRITETHROUGH || o->cache == CACHE_DIRECTSYNC)
		flags |= O_DSYNC;
	if (o->flags & FILE_CREATE)
		flags |= O_CREAT | (o->flags & FILE_EXCL ? O_EXCL : 0);
	return flags;
}

static int open_retrying(const char *path, int flags)
{
	int fd;

	do
		fd = open(path, flags, 0644);
	while (fd < 0 && errno == EINTR);
	return fd;
}

/* fd, or -errno. */
static int open_path(const char *path, const struct file_options *o)
{
	int flags = open_flags(o), fd = -1;

	/* Granted to the owner only, and unknown to some file systems. */
	if (!(o->flags & FILE_RDWR))
		fd = open_retrying(path, flags | O_NOATIME);
	if (fd < 0)
		fd = open_retrying(path, flags);
	return fd < 0 ? -errno : fd;
}

static bool fail(const char *path, const char *why, int err, GError **error)
{
	g_set_error(error, G_FILE_ERROR, g_file_error_from_errno(err), "Could not open '%s': %s",
		    path, why);
	return false;
}

/* An engine that was named is used, or the file is not opened. */
static bool choose_engine(struct posix_file *p, const char *path, enum aio_engine engine,
			  GError **error)
{
	static const struct aio_ops *const engines[] = {
		[AIO_AUTO] = NULL,
		[AIO_THREADS] = &aio_threads,
		[AIO_NATIVE] = &aio_native,
		[AIO_IO_URING] = &aio_uring,
	};
	g_autofree char *why = NULL;
	int ret = 0;

	p->engine = engines[engine];
	if (engine == AIO_NATIVE && !p->direct)
		return fail(path,
			    "aio=native was specified, but it requires cache.direct=on, which was "
			    "not specified.",
			    EINVAL, error);
	if (p->engine && loop_self())
		ret = p->engine->prepare(loop_self());
	if (ret == 0)
		return true;
	why = g_strdup_printf("aio=%s cannot be used here: %s", p->engine->name, g_strerror(-ret));
	return fail(path, why, -ret, error);
}

/* There an engine could only add a detour to a copy. */
static bool is_in_memory(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) == 0 && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
}

static bool go_direct(struct posix_file *p, const char *path, enum cache_mode cache, GError **error)
{
	if (cache != CACHE_NONE && cache != CACHE_DIRECTSYNC)
		return true;

	int ret = direct_set_up(p);
	if (ret == -EINVAL)
		return fail(path, "the file system does not support O_DIRECT", EINVAL, error);
	return ret == 0 ? true : fail(path, g_strerror(-ret), -ret, error);
}

/* Only an empty file can change so, and only btrfs knows it: a failure is not worth a word. */
static void turn_off_cow(int fd)
{
	int flags;

	if (ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0) {
		flags |= FS_NOCOW_FL;
		(void)ioctl(fd, FS_IOC_SETFLAGS, &flags);
	}
}

void file_hint_extents(struct file *f, uint32_t bytes)
{
	int fd = file_fd(f);
	struct fsxattr attr;

	if (fd < 0 || ioctl(fd, FS_IOC_FSGETXATTR, &attr) != 0)
		return;
	attr.fsx_xflags |= FS_XFLAG_EXTSIZE;
	attr.fsx_extsize = bytes;
	(void)ioctl(fd, FS_IOC_FSSETXATTR, &attr); /* a hint, so a failure is not worth a word */
}

/* All that comes between open(2) and the first use; the caller closes on failure. */
static bool set_up(struct posix_file *p, const char *path, const struct file_options *o,
		   GError **error)
{
	struct file *f = &p->base;
	const char *why;
	int ret;

	if (fstat(f->fd, &f->st) != 0)
		return fail(path, g_strerror(errno), errno, error);
	why = refusal(f->st.st_mode, o->flags);
	if (why)
		return fail(path, why, EINVAL, error);
	/* It was for the opening only; io_uring would give up instead of waiting. */
	if (fcntl(f->fd, F_SETFL, fcntl(f->fd, F_GETFL) & ~O_NONBLOCK) != 0)
		return fail(path, g_strerror(errno), errno, error);
	if (!lock_take(f->fd, path, o->perms, o->unshared, error)) {
		g_prefix_error(error, "Could not open '%s': ", path);
		return false;
	}
	if ((o->flags & FILE_TRUNC) && S_ISREG(f->st.st_mode) && ftruncate(f->fd, 0) != 0)
		return fail(path, g_strerror(errno), errno, error);
	if ((o->flags & FILE_NOCOW) && S_ISREG(f->st.st_mode))
		turn_off_cow(f->fd);
	/* Again: the holder of the locks may have changed it until now. */
	if (fstat(f->fd, &f->st) != 0)
		return fail(path, g_strerror(errno), errno, error);
	ret = posix_size(f->fd, &f->st, &f->size);
	if (ret < 0)
		return fail(path, g_strerror(-ret), -ret, error);
	p->in_memory = S_ISREG(f->st.st_mode) && is_in_memory(f->fd);
	return go_direct(p, path, o->cache, error) && choose_engine(p, path, o->aio, error);
}

/* ---- another access ---- */

#define WRITER_PERMS (PERM_WRITE | PERM_RESIZE)

/* The same file once more, whatever its name means by now: fd or -errno. */
static int open_again(const struct posix_file *p, const struct file_options *o)
{
	char path[32];
	struct stat st;
	int fd;

	g_snprintf(path, sizeof(path), "/proc/self/fd/%d", p->base.fd);
	fd = open_path(path, o);
	if (fd < 0 && fd != -EACCES && fd != -EROFS && fd != -EPERM)
		fd = open_path(p->base.name, o); /* where there is no /proc */
	if (fd < 0)
		return fd;
	if (fstat(fd, &st) == 0 && stat_same_file(&st, &p->base.st) &&
	    fcntl(fd, F_SETFL, fcntl(p->base.fd, F_GETFL)) == 0)
		return fd;
	close(fd);
	return -ESTALE;
}

/*
 * The locks of the new descriptor contradict those of the old one, which is the same owner's: the
 * old one gives back what the new one asks for. Who comes in between is met as a conflict, and
 * what it still shares is taken again.
 */
static bool hand_over_locks(struct posix_file *p, int fd, const struct file_options *o,
			    GError **error)
{
	unsigned perms = p->opened.perms & WRITER_PERMS;
	unsigned unshared = o->perms & WRITER_PERMS ? p->opened.unshared : 0;

	lock_give_back(p->base.fd, perms, unshared);
	if (lock_take(fd, p->base.name, o->perms, o->unshared, error))
		return true;
	g_prefix_error(error, "Could not open '%s' again: ", p->base.name);
	(void)lock_take(p->base.fd, p->base.name, perms, unshared, NULL);
	return false;
}

bool posix_set_writable(struct file *f, bool writable, GError **error)
{
	struct posix_file *p = (struct posix_file *)f;
	struct file_options o = p->opened;
	int fd;

	o.flags = writable ? o.flags | FILE_RDWR : o.flags & ~(unsigned)FILE_RDWR;
	o.perms = writable ? o.perms | WRITER_PERMS : o.perms & ~(unsigned)WRITER_PERMS;
	fd = open_again(p, &o);
	if (fd < 0)
		return fail(f->name, g_strerror(-fd), -fd, error);
	if (!hand_over_locks(p, fd, &o, error)) {
		close(fd);
		return false;
	}
	/* Under the old number, which callers may have. */
	if (dup3(fd, f->fd, O_CLOEXEC) < 0) {
		int err = errno;

		close(fd);
		return fail(f->name, g_strerror(err), err, error);
	}
	close(fd);
	p->opened = o;
	return true;
}

static __thread struct {
	file_wrap_fn *wrap;
	void *arg;
} wrapper;

void file_set_wrapper(file_wrap_fn *wrap, void *arg)
{
	wrapper.wrap = wrap;
	wrapper.arg = arg;
}

struct file *file_open(const char *path, const struct file_options *options, GError **error)
{
	struct stat st;
	int fd;

	/* Before opening, since to open some devices is to use them. */
	if (stat(path, &st) == 0) {
		const char *why = refusal(st.st_mode, options->flags);

		if (why) {
			fail(path, why, EINVAL, error);
			return NULL;
		}
	}
	fd = open_path(path, options);
	if (fd < 0) {
		fail(path, g_strerror(-fd), -fd, error);
		return NULL;
	}

	struct posix_file *p = g_new0(struct posix_file, 1);
	file_init(&p->base, &posix_ops, path);
	p->base.fd = fd;
	p->base.writable = (options->flags & FILE_RDWR) != 0;
	p->base.ignore_flush = options->cache == CACHE_UNSAFE;
	p->nowait = true;
	p->opened = *options;
	p->opened.flags &= ~(unsigned)(FILE_CREATE | FILE_EXCL | FILE_TRUNC | FILE_NOCOW);
	p->base.sync_changes =
		options->cache == CACHE_WRITETHROUGH || options->cache == CACHE_DIRECTSYNC;
	if (!set_up(p, path, options, error)) {
		posix_close(&p->base);
		return NULL;
	}
	return wrapper.wrap ? wrapper.wrap(&p->base, wrapper.arg) : &p->base;
}

void file_allow_many(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
}

/* --- names --- */

int file_sync_directory(const char *path)
{
	g_autofree char *directory = g_path_get_dirname(path);
	int fd = open_retrying(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int ret = 0;

	if (fd < 0)
		return -errno;
	/* EINVAL: the file system has nothing to sync. */
	if (fsync(fd) != 0 && errno != EINVAL)
		ret = -errno;
	close(fd);
	return ret;
}

int file_lookup(const char *path, struct stat *st)
{
	if (stat(path, st) != 0)
		return -errno;
	if (S_ISDIR(st->st_mode))
		return -EISDIR;
	if (!S_ISREG(st->st_mode) && !S_ISBLK(st->st_mode))
		return -ENOTSUP;
	return access(path, R_OK) == 0 ? 0 : -errno;
}
