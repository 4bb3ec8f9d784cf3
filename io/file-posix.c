/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Regular files and block devices: I/O through the page cache, and the system
 * calls that O_DIRECT files share with it. */
#include <config.h>

#include "io/file-posix.h"
#include "io/iov.h"
#include "io/pool.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* --- reading --- */

/* A write to tmpfs gets and clears pages beside the copy: from this many bytes on another processor
 * does it better, while this one reads on. */
#define WRITE_BY_WORKER (128u << 10)

struct worker_transfer {
	const struct aio_transfer *t;
	ssize_t result;
};

static int run_transfer(void *arg)
{
	struct worker_transfer *w = arg;

	w->result = aio_transfer_here(w->t);
	return 0;
}

static ssize_t transfer_in_memory(struct posix_file *p, const struct aio_transfer *t)
{
	struct worker_transfer w = {.t = t};

	if (!t->write || iov_total(t->iov, t->niov) < WRITE_BY_WORKER)
		return aio_transfer_here(t);
	pool_run_in_turn(&p->writes, run_transfer, &w);
	return w.result;
}

ssize_t posix_transfer(struct posix_file *p, const struct aio_transfer *t)
{
	if (!co_self())
		return aio_transfer_here(t);
	if (p->in_memory && !p->direct)
		return transfer_in_memory(p, t);
	if (G_UNLIKELY(!p->engine_ready)) {
		if (!p->engine)
			p->engine = aio_best(loop_self());
		else if (p->engine->prepare(loop_self()) < 0)
			p->engine = &aio_threads; /* there was no loop to try it on at opening */
		p->engine_ready = true;
	}
	return p->engine->transfer(loop_self(), t);
}

bool posix_was_cut(const struct posix_file *p, uint64_t end)
{
	return end < p->base.size;
}

/* What the page cache has: bytes, 0 at the end of the file, or -EAGAIN. */
static ssize_t read_cached(struct posix_file *p, uint64_t offset, const struct iovec *iov, int niov)
{
	ssize_t n;

	if (!p->nowait)
		return -EAGAIN;
	do
		n = preadv2(p->base.fd, iov, niov, (off_t)offset, p->in_memory ? 0 : RWF_NOWAIT);
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
			got = posix_transfer(p, &t);
		}
		if (got < 0)
			return (int)got;
		if (got == 0) {
			if (posix_was_cut(p, offset))
				return -EIO;
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

	if (p->direct)
		return direct_readv(p, offset, iov, niov, len);
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

	/* O_DIRECT always waits for the device. */
	while (done < len && !p->direct) {
		struct iovec iov = {.iov_base = (char *)buf + done, .iov_len = len - done};
		ssize_t n = read_cached(p, offset + done, &iov, 1);

		if (n < 0)
			break;
		if (n == 0 && posix_was_cut(p, offset + done))
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
	/* What is read past the page cache makes no use of it. */
	if (!((struct posix_file *)f)->direct)
		(void)posix_fadvise(f->fd, (off_t)offset, (off_t)len, POSIX_FADV_WILLNEED);
}

static int posix_extent(struct file *f, uint64_t offset, bool *is_data, uint64_t *end)
{
	off_t data = lseek(f->fd, (off_t)offset, SEEK_DATA);

	*is_data = true;
	*end = f->size;
	if (data < 0 && errno == ENXIO) {
		struct stat st;

		/* Nothing but a hole up to the end, which may have come nearer. */
		if (fstat(f->fd, &st) != 0 || posix_was_cut((struct posix_file *)f, st.st_size))
			return -EIO;
		*is_data = false;
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

	if (p->direct)
		return direct_writev(p, offset, iov, niov, len);
	iov_walk_init(&w, iov, niov);
	while (len > 0) {
		struct iovec part[AIO_PARTS];
		size_t size;
		int n = iov_walk_peek(&w, part, AIO_PARTS, AIO_MAX_BYTES, &size);
		struct aio_transfer t = {
			.fd = f->fd, .write = true, .iov = part, .niov = n, .offset = offset};
		ssize_t put = posix_transfer(p, &t);

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

int posix_set_size(struct posix_file *p, uint64_t size)
{
	struct call c = {.fd = p->base.fd, .len = (off_t)size};

	return pool_run_blocking(call_ftruncate, &c);
}

static int posix_truncate(struct file *f, uint64_t size)
{
	struct posix_file *p = (struct posix_file *)f;
	struct direct_range range;

	/* A block device has the size that it has. */
	if (S_ISBLK(f->st.st_mode))
		return size == f->size ? 0 : -ENOTSUP;
	direct_enter(p, &range, 0, UINT64_MAX);
	int ret = posix_set_size(p, size);
	direct_leave(p, &range);
	return ret;
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
	struct posix_file *p = (struct posix_file *)f;
	struct direct_range range;

	direct_enter(p, &range, offset, offset + len);
	int ret = pool_run_blocking(call_fallocate, &c);
	direct_leave(p, &range);

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
	struct posix_file *p = (struct posix_file *)to;
	struct direct_range range;

	direct_enter(p, &range, to_offset, to_offset + (uint64_t)c.len);
	int ret = pool_run_blocking(call_copy_file_range, &c);
	direct_leave(p, &range);

	/* EINVAL: overlapping, or not a pair of regular files. */
	if (ret == -ENOSYS || ret == -EINVAL || ret == -EBADF)
		return -EOPNOTSUPP;
	return ret < 0 ? ret : c.copied;
}

/* --- facts --- */

int posix_size(int fd, const struct stat *st, uint64_t *size)
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
	return posix_size(f->fd, &st, size);
}

void posix_close(struct file *f)
{
	close(f->fd);
	file_fini(f);
	g_free(f);
}

const struct file_ops posix_ops = {
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
	.set_writable = posix_set_writable,
	.close = posix_close,
};
