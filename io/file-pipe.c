/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Pipes: what comes from one is spooled into a file, what goes to one is written in order. */
#include <config.h>

#include "io/co.h"
#include "io/file-internal.h"
#include "io/iov.h"
#include "io/pool.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- to a pipe ----------------------------------------------------------------------------- */

struct pipe_file {
	struct file base;
	int fd;		   /* not closed with it */
	uint64_t position; /* what has been written */
	int error;	   /* the first one; nothing is written after it */
	struct co_queue waiters;
};

struct pipe_write {
	int fd;
	const struct iovec *iov;
	int niov;
};

static int write_all(int fd, const char *buf, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, buf, len);

		if (n < 0 && errno == EAGAIN) {
			struct pollfd p = {.fd = fd, .events = POLLOUT};

			poll(&p, 1, -1);
		} else if (n < 0 && errno != EINTR) {
			return -errno;
		} else if (n > 0) {
			buf += n;
			len -= (size_t)n;
		}
	}
	return 0;
}

static int call_write(void *arg)
{
	const struct pipe_write *w = arg;
	int ret = 0;

	for (int i = 0; ret == 0 && i < w->niov; i++)
		ret = write_all(w->fd, w->iov[i].iov_base, w->iov[i].iov_len);
	return ret;
}

static int pipe_writev(struct file *f, uint64_t offset, const struct iovec *iov, int niov,
		       size_t len)
{
	struct pipe_file *p = (struct pipe_file *)f;
	struct pipe_write w = {p->fd, iov, niov};

	while (!p->error && offset > p->position)
		co_queue_wait(&p->waiters);
	if (!p->error && offset < p->position)
		p->error = -ESPIPE;
	if (!p->error)
		p->error = pool_run_blocking(call_write, &w);
	if (!p->error)
		p->position += len;
	co_queue_wake_all(&p->waiters);
	return p->error;
}

static int pipe_readv(struct file *f, uint64_t offset, const struct iovec *iov, int niov,
		      size_t len)
{
	return -ESPIPE;
}

static size_t pipe_read_nowait(struct file *f, uint64_t offset, void *buf, size_t len)
{
	return 0;
}

static int pipe_flush(struct file *f)
{
	return ((struct pipe_file *)f)->error;
}

static int pipe_truncate(struct file *f, uint64_t size)
{
	return -ESPIPE;
}

static int pipe_extent(struct file *f, uint64_t offset, bool *is_data, uint64_t *end)
{
	*is_data = true;
	*end = f->size;
	return 0;
}

static int pipe_measure(struct file *f, uint64_t *size, int64_t *allocated)
{
	*size = f->size;
	*allocated = 0;
	return 0;
}

static void pipe_close(struct file *f)
{
	file_fini(f);
	g_free(f);
}

static const struct file_ops pipe_ops = {
	.readv = pipe_readv,
	.read_nowait = pipe_read_nowait,
	.writev = pipe_writev,
	.flush = pipe_flush,
	.truncate = pipe_truncate,
	.extent = pipe_extent,
	.measure = pipe_measure,
	.close = pipe_close,
};

struct file *file_new_pipe(const char *name, int fd, uint64_t size)
{
	struct pipe_file *p = g_new0(struct pipe_file, 1);

	file_init(&p->base, &pipe_ops, name);
	p->fd = fd;
	p->base.writable = true;
	p->base.st.st_mode = S_IFIFO;
	p->base.size = size;
	return &p->base;
}

/* ---- from a pipe ------------------------------------------------------------------------------
 */

char *file_temporary(GError **error)
{
	const char *folder = g_getenv("TMPDIR");
	char *path =
		g_build_filename(folder && *folder ? folder : "/var/tmp", "imgtool-XXXXXX", NULL);
	int fd = mkstemp(path);

	if (fd >= 0) {
		close(fd);
		return path;
	}
	g_set_error(error, G_FILE_ERROR, g_file_error_from_errno(errno),
		    "Could not create a temporary file '%s' (TMPDIR names the folder): %s", path,
		    g_strerror(errno));
	g_free(path);
	return NULL;
}

struct pipe_read {
	int fd;
	char *buf;
	size_t len; /* wanted, and then got */
};

static int call_read(void *arg)
{
	struct pipe_read *r = arg;
	size_t got = 0;

	while (got < r->len) {
		ssize_t n = read(r->fd, r->buf + got, r->len - got);

		if (n < 0 && errno == EAGAIN) {
			struct pollfd p = {.fd = r->fd, .events = POLLIN};

			poll(&p, 1, -1);
		} else if (n < 0 && errno != EINTR) {
			return -errno;
		} else if (n == 0) {
			break;
		} else if (n > 0) {
			got += (size_t)n;
		}
	}
	r->len = got;
	return 0;
}

static bool is_zero(const char *buf, size_t len)
{
	return buf[0] == 0 && memcmp(buf, buf + 1, len - 1) == 0;
}

/* Zeroes become holes. */
static int spool(int fd, struct file *to)
{
	enum { STEP = 64 << 10 };
	g_autofree char *buf = g_malloc(STEP);
	uint64_t offset = 0;
	int ret = 0;

	while (ret == 0) {
		struct pipe_read r = {fd, buf, STEP};

		ret = pool_run_blocking(call_read, &r);
		if (ret == 0 && r.len == 0)
			return file_truncate(to, offset);
		if (ret == 0 && !is_zero(buf, r.len))
			ret = file_write(to, offset, buf, r.len);
		offset += r.len;
	}
	return ret;
}

/* What a descriptor of a regular file or device has is there already. */
static struct file *open_again(int fd, GError **error)
{
	g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", fd);
	struct file_options o = {.perms = PERM_CONSISTENT_READ,
				 .unshared = PERM_WRITE | PERM_RESIZE};

	return file_open(path, &o, error);
}

static struct file *open_spooled(int fd, GError **error)
{
	struct file_options o = {.flags = FILE_RDWR, .cache = CACHE_UNSAFE};
	g_autofree char *path = file_temporary(error);
	struct file *f = path ? file_open(path, &o, error) : NULL;
	int ret;

	if (path)
		unlink(path);
	ret = f ? spool(fd, f) : 0;
	if (ret == 0)
		return f;
	g_set_error(error, G_FILE_ERROR, g_file_error_from_errno(-ret),
		    "Could not copy the pipe to '%s' (TMPDIR names the folder): %s", path,
		    g_strerror(-ret));
	file_unref(f);
	return NULL;
}

struct file *file_from_pipe(const char *name, int fd, GError **error)
{
	struct stat st;
	bool there = fstat(fd, &st) == 0 && (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode));
	struct file *f = there ? open_again(fd, error) : open_spooled(fd, error);

	if (f) {
		g_free(f->name);
		f->name = g_strdup(name);
	}
	return f;
}
