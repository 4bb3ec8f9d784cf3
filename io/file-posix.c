/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Regular files and block devices: opening, and I/O through the page cache. */
#include <config.h>

#include "io/aio.h"
#include "io/co.h"
#include "io/file-internal.h"
#include "io/iov.h"
#include "io/lock.h"
#include "io/pool.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

struct posix_file {
	struct file base;
	bool nowait; /* the file system knows RWF_NOWAIT */
	const struct aio_ops *engine;
};

/* --- reading --- */

static ssize_t transfer(struct posix_file *p, const struct aio_transfer *t)
{
	if (!co_self())
		return aio_transfer_here(t);
	return p->engine->transfer(loop_self(), t);
}

/* What the page cache has: bytes, 0 at the end of the file, or -EAGAIN. */
static ssize_t read_cached(struct posix_file *p, uint64_t offset, const struct iovec *iov, int niov)
{
	ssize_t n;

	if (!p->nowait)
		return -EAGAIN;
	do
		n = preadv2(p->base.fd, iov, niov, (off_t)offset, RWF_NOWAIT);
	while (n < 0 && errno == EINTR);
	if (n >= 0)
		return n;
	if (errno == EOPNOTSUPP || errno == ENOSYS)
		p->nowait = false;
	/* Real errors come again, and are told, when it is read in earnest. */
	return -EAGAIN;
}

static int read_on(struct posix_file *p, uint64_t offset, struct iov_walk *w, size_t left)
{
	bool cached = true;

	while (left > 0) {
		struct iovec part[AIO_PARTS];
		size_t len;
		int n = iov_walk_peek(w, part, AIO_PARTS, AIO_MAX_BYTES, &len);
		struct aio_transfer t = {
			.fd = p->base.fd, .iov = part, .niov = n, .offset = offset};
		ssize_t got = -EAGAIN;

		if (cached)
			got = read_cached(p, offset, part, n);
		if (got == -EAGAIN) {
			cached = false;
			got = transfer(p, &t);
		}
		if (got < 0)
			return (int)got;
		if (got == 0) {
			iov_walk_zero(w, left); /* the end of the file */
			return 0;
		}
		iov_walk_advance(w, (size_t)got);
		offset += (uint64_t)got;
		left -= (size_t)got;
	}
	return 0;
}

static int posix_readv(struct file *f, uint64_t offset, const struct iovec *iov, int niov,
		       size_t len)
{
	struct posix_file *p = (struct posix_file *)f;
	struct iov_walk w;

	if (G_LIKELY(niov <= AIO_PARTS)) {
		ssize_t got = read_cached(p, offset, iov, niov);

		if (G_LIKELY(got == (ssize_t)len))
			return 0;
	}
	iov_walk_init(&w, iov, niov);
	return read_on(p, offset, &w, len);
}

static size_t posix_read_nowait(struct file *f, uint64_t offset, void *buf, size_t len)
{
	struct posix_file *p = (struct posix_file *)f;
	size_t done = 0;

	while (done < len) {
		struct iovec iov = {.iov_base = (char *)buf + done, .iov_len = len - done};
		ssize_t n = read_cached(p, offset + done, &iov, 1);

		if (n < 0)
			break;
		if (n == 0) {
			memset(iov.iov_base, 0, iov.iov_len);
			return len;
		}
		done += (size_t)n;
	}
	return done;
}

static void posix_readahead(struct file *f, uint64_t offset, uint64_t len)
{
	(void)posix_fadvise(f->fd, (off_t)offset, (off_t)len, POSIX_FADV_WILLNEED);
}

static int posix_extent(struct file *f, uint64_t offset, bool *is_data, uint64_t *end)
{
	off_t data = lseek(f->fd, (off_t)offset, SEEK_DATA);

	*is_data = true;
	*end = f->size;
	if (data < 0 && errno == ENXIO) {
		*is_data = false; /* nothing but a hole up to the end */
		return 0;
	}
	if (data < 0 || (uint64_t)data < offset)
		return 0; /* cannot tell */
	if ((uint64_t)data > offset) {
		*is_data = false;
		*end = (uint64_t)data;
		return 0;
	}

	off_t hole = lseek(f->fd, data, SEEK_HOLE);
	if (hole > data)
		*end = (uint64_t)hole;
	return 0;
}

/* --- changing --- */

static int posix_writev(struct file *f, uint64_t offset, const struct iovec *iov, int niov,
			size_t len)
{
	struct posix_file *p = (struct posix_file *)f;
	struct iov_walk w;

	iov_walk_init(&w, iov, niov);
	while (len > 0) {
		struct iovec part[AIO_PARTS];
		size_t size;
		int n = iov_walk_peek(&w, part, AIO_PARTS, AIO_MAX_BYTES, &size);
		struct aio_transfer t = {
			.fd = f->fd, .write = true, .iov = part, .niov = n, .offset = offset};
		ssize_t put = transfer(p, &t);

		if (put < 0)
			return (int)put;
		if (put == 0)
			return -EIO; /* neither progress nor a reason */
		iov_walk_advance(&w, (size_t)put);
		offset += (uint64_t)put;
		len -= (size_t)put;
	}
	return 0;
}

/* The other system calls, as jobs for the blocking pool. */
struct call {
	int fd, mode;
	off_t offset, len;
	int from_fd;
	off_t from_offset;
	int64_t copied;
};

static int call_fdatasync(void *arg)
{
	struct call *c = arg;

	/* Not restarted after EINTR: an error may have been taken note of already. */
	return fdatasync(c->fd) == 0 ? 0 : -errno;
}

static int posix_flush(struct file *f)
{
	struct call c = {.fd = f->fd};

	return pool_run_blocking(call_fdatasync, &c);
}

static int call_ftruncate(void *arg)
{
	struct call *c = arg;
	int ret;

	do
		ret = ftruncate(c->fd, c->len);
	while (ret < 0 && errno == EINTR);
	return ret == 0 ? 0 : -errno;
}

static int posix_truncate(struct file *f, uint64_t size)
{
	struct call c = {.fd = f->fd, .len = (off_t)size};

	/* A block device has the size that it has. */
	if (S_ISBLK(f->st.st_mode))
		return size <= f->size ? 0 : -ENOTSUP;
	return pool_run_blocking(call_ftruncate, &c);
}

static int call_fallocate(void *arg)
{
	struct call *c = arg;
	int ret;

	do
		ret = fallocate(c->fd, c->mode, c->offset, c->len);
	while (ret < 0 && errno == EINTR);
	if (ret == 0)
		return 0;
	return errno == ENOSYS || errno == ENODEV ? -EOPNOTSUPP : -errno;
}

static int posix_change(struct file *f, enum file_change what, uint64_t offset, uint64_t len)
{
	static const int modes[] = {
		[CHANGE_ALLOCATE] = 0,
		[CHANGE_ZERO] = FALLOC_FL_ZERO_RANGE,
		[CHANGE_PUNCH] = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
	};
	struct call c = {
		.fd = f->fd, .mode = modes[what], .offset = (off_t)offset, .len = (off_t)len};
	int ret = pool_run_blocking(call_fallocate, &c);

	/* A device that wants whole sectors: the caller writes zeroes. */
	if (ret == -EINVAL && S_ISBLK(f->st.st_mode))
		ret = -EOPNOTSUPP;
	return ret;
}

static int call_copy_file_range(void *arg)
{
	struct call *c = arg;
	ssize_t n;

	do
		n = copy_file_range(c->from_fd, &c->from_offset, c->fd, &c->offset, (size_t)c->len,
				    0);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	c->copied = n;
	return 0;
}

static int64_t posix_copy_range(struct file *from, uint64_t from_offset, struct file *to,
				uint64_t to_offset, uint64_t len)
{
	/* No longer than a moment: nothing can stop such a call. */
	const uint64_t at_once = 64 << 20;
	struct call c = {
		.fd = to->fd,
		.offset = (off_t)to_offset,
		.len = (off_t)MIN(len, at_once),
		.from_fd = from->fd,
		.from_offset = (off_t)from_offset,
	};
	int ret = pool_run_blocking(call_copy_file_range, &c);

	/* EINVAL: overlapping, or not a pair of regular files. */
	if (ret == -ENOSYS || ret == -EINVAL || ret == -EBADF)
		return -EOPNOTSUPP;
	return ret < 0 ? ret : c.copied;
}

/* --- facts --- */

static int device_size(int fd, const struct stat *st, uint64_t *size)
{
	if (!S_ISBLK(st->st_mode)) {
		*size = (uint64_t)st->st_size;
		return 0;
	}

	off_t end = lseek(fd, 0, SEEK_END);
	if (end < 0)
		return -errno;
	*size = (uint64_t)end;
	return 0;
}

static int posix_measure(struct file *f, uint64_t *size, int64_t *allocated)
{
	struct stat st;

	if (fstat(f->fd, &st) != 0)
		return -errno;
	*allocated = (int64_t)st.st_blocks * 512;
	return device_size(f->fd, &st, size);
}

static void posix_close(struct file *f)
{
	close(f->fd);
	file_fini(f);
	g_free(f);
}

static const struct file_ops posix_ops = {
	.readv = posix_readv,
	.read_nowait = posix_read_nowait,
	.writev = posix_writev,
	.flush = posix_flush,
	.truncate = posix_truncate,
	.change = posix_change,
	.copy_range = posix_copy_range,
	.extent = posix_extent,
	.readahead = posix_readahead,
	.measure = posix_measure,
	.close = posix_close,
};

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
	/* Again: the holder of the locks may have changed it until now. */
	if (fstat(f->fd, &f->st) != 0)
		return fail(path, g_strerror(errno), errno, error);
	ret = device_size(f->fd, &f->st, &f->size);
	if (ret < 0)
		return fail(path, g_strerror(-ret), -ret, error);
	return true;
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
	p->engine = &aio_threads;
	if (!set_up(p, path, options, error)) {
		posix_close(&p->base);
		return NULL;
	}
	return &p->base;
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
