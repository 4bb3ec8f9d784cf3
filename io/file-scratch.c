/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A file whose front lies in memory and whose rest in a file without a name. Images grow from the
 * front to the back, so what is in memory is what came first, and no bytes ever have to move. Both
 * parts are sparse: what is punched out is free again, in memory too.
 */
#include <config.h>

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "io/file-internal.h"
#include "io/file-unnamed.h"
#include "io/iov.h"

struct scratch {
	struct file base;
	struct file *front, *back;
	uint64_t border; /* where the back begins */
	char *path;	 /* of the front */
};

static struct scratch *scratch_of(struct file *f)
{
	return (struct scratch *)f;
}

/* Bytes of [offset, offset+len) that lie in front. */
static uint64_t front_part(const struct scratch *s, uint64_t offset, uint64_t len)
{
	return offset < s->border ? MIN(len, s->border - offset) : 0;
}

typedef int move_fn(struct file *f, uint64_t offset, const struct iovec *iov, int niov);

static int move_parts(struct scratch *s, uint64_t offset, const struct iovec *iov, int niov,
		      size_t len, move_fn *move)
{
	size_t front = front_part(s, offset, len), got;
	struct iovec *part;
	struct iov_walk w;
	int n, ret;

	if (front == len)
		return move(s->front, offset, iov, niov);
	if (front == 0)
		return move(s->back, offset - s->border, iov, niov);
	part = g_new(struct iovec, niov);
	iov_walk_init(&w, iov, niov);
	n = iov_walk_peek(&w, part, niov, front, &got);
	ret = move(s->front, offset, part, n);
	if (ret == 0) {
		iov_walk_advance(&w, front);
		n = iov_walk_peek(&w, part, niov, len - front, &got);
		ret = move(s->back, 0, part, n);
	}
	g_free(part);
	return ret;
}

static int scratch_readv(struct file *f, uint64_t offset, const struct iovec *iov, int niov,
			 size_t len)
{
	return move_parts(scratch_of(f), offset, iov, niov, len, file_readv);
}

static int scratch_writev(struct file *f, uint64_t offset, const struct iovec *iov, int niov,
			  size_t len)
{
	return move_parts(scratch_of(f), offset, iov, niov, len, file_writev);
}

static size_t scratch_read_nowait(struct file *f, uint64_t offset, void *buf, size_t len)
{
	struct scratch *s = scratch_of(f);
	size_t front = front_part(s, offset, len);

	/* Fewer bytes than there are is what callers expect. */
	return front ? file_read_nowait(s->front, offset, buf, front)
		     : file_read_nowait(s->back, offset - s->border, buf, len);
}

/* Nothing of it is to last. */
static int scratch_flush(struct file *f)
{
	return 0;
}

static int scratch_truncate(struct file *f, uint64_t size)
{
	struct scratch *s = scratch_of(f);
	uint64_t back = size - front_part(s, 0, size);
	int ret = 0;

	if (file_size(s->back) != back)
		ret = file_truncate(s->back, back);
	return ret ? ret : file_truncate(s->front, size - back);
}

static int scratch_change(struct file *f, enum file_change what, uint64_t offset, uint64_t len)
{
	struct scratch *s = scratch_of(f);
	uint64_t front = front_part(s, offset, len);
	int ret = front ? file_change(s->front, what, offset, front) : 0;

	if (ret < 0 || front == len)
		return ret;
	return file_change(s->back, what, front ? 0 : offset - s->border, len - front);
}

static int scratch_extent(struct file *f, uint64_t offset, bool *is_data, uint64_t *end)
{
	struct scratch *s = scratch_of(f);
	uint64_t front = front_part(s, offset, f->size - offset), run;
	int ret = front ? file_extent(s->front, offset, front, is_data, &run)
			: file_extent(s->back, offset - s->border, f->size - offset, is_data, &run);

	if (ret == 0)
		*end = offset + run;
	return ret;
}

static void scratch_readahead(struct file *f, uint64_t offset, uint64_t len)
{
	struct scratch *s = scratch_of(f);
	uint64_t front = front_part(s, offset, len);

	if (front < len)
		file_readahead(s->back, front ? 0 : offset - s->border, len - front);
}

static int scratch_measure(struct file *f, uint64_t *size, int64_t *allocated)
{
	struct scratch *s = scratch_of(f);
	int64_t front = file_allocated(s->front), back = file_allocated(s->back);

	if (front < 0 || back < 0)
		return (int)MIN(front, back);
	*size = file_size(s->back) ? s->border + file_size(s->back) : file_size(s->front);
	*allocated = front + back;
	return 0;
}

static void scratch_close(struct file *f)
{
	struct scratch *s = scratch_of(f);

	file_unref(s->front);
	file_unref(s->back);
	file_fini(f);
	g_free(s->path);
	g_free(s);
}

static const struct file_ops scratch_ops = {
	.readv = scratch_readv,
	.read_nowait = scratch_read_nowait,
	.writev = scratch_writev,
	.flush = scratch_flush,
	.truncate = scratch_truncate,
	.change = scratch_change,
	.extent = scratch_extent,
	.readahead = scratch_readahead,
	.measure = scratch_measure,
	.close = scratch_close,
};

static struct file *open_by_fd(int fd, GError **error)
{
	struct file_options o = {.flags = FILE_RDWR, .cache = CACHE_UNSAFE};
	g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", fd);

	return file_open(path, &o, error);
}

static struct file *open_front(GError **error)
{
	int fd = memfd_create("imgfs-scratch", MFD_CLOEXEC);
	struct file *f;

	if (fd < 0) {
		g_set_error(error, G_FILE_ERROR, g_file_error_from_errno(errno),
			    "Could not create a file in memory: %s", g_strerror(errno));
		return NULL;
	}
	f = open_by_fd(fd, error);
	close(fd);
	return f;
}

static struct file *open_back(GError **error)
{
	const char *folder = g_getenv("TMPDIR");
	g_autofree char *name =
		g_build_filename(folder && *folder ? folder : "/var/tmp", "imgfs", NULL);
	struct unnamed u;
	struct file *f;

	if (!unnamed_open(&u, name, 0600, error)) {
		g_prefix_error(error, "No room for what will be written ($TMPDIR names the "
				      "folder): ");
		return NULL;
	}
	f = open_by_fd(u.fd, error);
	unnamed_close(&u);
	return f;
}

struct file *file_new_scratch(const char *name, uint64_t memory, GError **error)
{
	struct file *front = open_front(error), *back = front ? open_back(error) : NULL;
	struct scratch *s;

	if (!back) {
		file_unref(front);
		return NULL;
	}
	s = g_new0(struct scratch, 1);
	file_init(&s->base, &scratch_ops, name);
	file_inner_look(&s->base, front);
	s->front = front;
	s->back = back;
	s->border = memory;
	s->path = g_strdup_printf("/proc/self/fd/%d", file_fd(front));
	return &s->base;
}

const char *scratch_path(const struct file *f)
{
	return ((const struct scratch *)f)->path;
}

int scratch_look(struct file *f)
{
	struct scratch *s = scratch_of(f);
	int ret = file_refresh_size(s->front);

	if (ret < 0)
		return ret;
	s->border = MAX(s->border, file_size(s->front));
	return file_refresh_size(f);
}
