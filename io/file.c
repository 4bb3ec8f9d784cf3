/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The one door to files: checks what callers ask for, then lets the kind of file
 * do it. */
#include <config.h>

#include "io/file-internal.h"
#include "io/iov.h"

#include <errno.h>
#include <string.h>

bool cache_mode_parse(const char *word, enum cache_mode *mode)
{
	static const struct {
		const char *word;
		enum cache_mode mode;
	} words[] = {
		{"writeback", CACHE_WRITEBACK},
		{"writethrough", CACHE_WRITETHROUGH},
		{"none", CACHE_NONE},
		{"off", CACHE_NONE},
		{"directsync", CACHE_DIRECTSYNC},
		{"unsafe", CACHE_UNSAFE},
	};

	for (size_t i = 0; i < G_N_ELEMENTS(words); i++)
		if (strcmp(word, words[i].word) == 0) {
			*mode = words[i].mode;
			return true;
		}
	return false;
}

bool aio_engine_parse(const char *word, enum aio_engine *engine)
{
	if (strcmp(word, "threads") == 0)
		*engine = AIO_THREADS;
	else if (strcmp(word, "native") == 0)
		*engine = AIO_NATIVE;
	else if (strcmp(word, "io_uring") == 0)
		*engine = AIO_IO_URING;
	else
		return false;
	return true;
}

void file_init(struct file *f, const struct file_ops *ops, const char *name)
{
	f->ops = ops;
	f->refs = 1;
	f->name = g_strdup(name);
	f->fd = -1;
	f->alignment = 1;
	/* What others wrote before may not be durable yet: the first flush is a real one. */
	f->changes = 1;
}

void file_fini(struct file *f)
{
	g_free(f->name);
}

struct file *file_ref(struct file *f)
{
	f->refs++;
	return f;
}

void file_unref(struct file *f)
{
	if (f && --f->refs == 0)
		f->ops->close(f);
}

const char *file_name(const struct file *f)
{
	return f->name;
}

bool file_writable(const struct file *f)
{
	return f->writable;
}

const struct stat *file_stat(const struct file *f)
{
	return &f->st;
}

int file_fd(const struct file *f)
{
	return f->fd;
}

uint32_t file_alignment(const struct file *f)
{
	return f->alignment;
}

uint64_t file_size(const struct file *f)
{
	return f->size;
}

int file_refresh_size(struct file *f)
{
	uint64_t size;
	int64_t allocated;
	int ret = f->ops->measure(f, &size, &allocated);

	if (ret < 0)
		return ret;
	if (size != f->size)
		f->run.end = 0;
	f->size = size;
	return 0;
}

int64_t file_allocated(struct file *f)
{
	uint64_t size;
	int64_t allocated;
	int ret = f->ops->measure(f, &size, &allocated);

	return ret < 0 ? ret : allocated;
}

/* --- reading --- */

/* How many of len bytes lie where a file can have bytes at all. */
static size_t reachable(uint64_t offset, size_t len)
{
	if (offset >= INT64_MAX)
		return 0;
	return MIN(len, INT64_MAX - offset);
}

int file_read(struct file *f, uint64_t offset, void *buf, size_t len)
{
	struct iovec iov = {.iov_base = buf, .iov_len = len};

	if (G_UNLIKELY(reachable(offset, len) != len)) {
		iov.iov_len = reachable(offset, len);
		memset((char *)buf + iov.iov_len, 0, len - iov.iov_len);
	}
	if (iov.iov_len == 0)
		return 0;
	return f->ops->readv(f, offset, &iov, 1, iov.iov_len);
}

int file_readv(struct file *f, uint64_t offset, const struct iovec *iov, int niov)
{
	size_t len = iov_total(iov, niov);

	if (len == 0)
		return 0;
	if (len > SSIZE_MAX)
		return -EINVAL;
	if (G_LIKELY(reachable(offset, len) == len))
		return f->ops->readv(f, offset, iov, niov, len);

	/* So far beyond any end that it needs not be fast. */
	for (int i = 0; i < niov; i++) {
		int ret = file_read(f, offset, iov[i].iov_base, iov[i].iov_len);

		if (ret < 0)
			return ret;
		if (__builtin_add_overflow(offset, iov[i].iov_len, &offset))
			offset = UINT64_MAX;
	}
	return 0;
}

size_t file_read_nowait(struct file *f, uint64_t offset, void *buf, size_t len)
{
	if (len == 0 || reachable(offset, len) != len)
		return 0;
	return f->ops->read_nowait(f, offset, buf, len);
}

void file_readahead(struct file *f, uint64_t offset, uint64_t len)
{
	if (f->ops->readahead && offset < f->size && len > 0)
		f->ops->readahead(f, offset, MIN(len, f->size - offset));
}

int file_extent(struct file *f, uint64_t offset, uint64_t len, bool *is_data, uint64_t *run)
{
	if (len == 0)
		return -EINVAL;
	if (offset >= f->size) {
		*is_data = false;
		*run = len;
		return 0;
	}
	if (offset < f->run.start || offset >= f->run.end) {
		bool data = true;
		uint64_t end = f->size;
		int ret = f->ops->extent(f, offset, &data, &end);

		if (ret < 0)
			return ret;
		g_assert(end > offset);
		f->run.start = offset;
		f->run.end = end;
		f->run.is_data = data;
	}
	*is_data = f->run.is_data;
	/* A hole at the end goes on beyond it. */
	if (!*is_data && f->run.end >= f->size)
		*run = len;
	else
		*run = MIN(len, f->run.end - offset);
	return 0;
}

/* --- changing --- */

static int check_change(struct file *f, uint64_t offset, uint64_t len)
{
	if (!f->writable)
		return -EBADF;
	if (offset > INT64_MAX || len > INT64_MAX - offset)
		return -EFBIG;
	return 0;
}

static void note_change(struct file *f, uint64_t end)
{
	f->size = MAX(f->size, end);
	f->run.end = 0;
}

int file_write(struct file *f, uint64_t offset, const void *buf, size_t len)
{
	struct iovec iov = {.iov_base = (void *)buf, .iov_len = len};

	return file_writev(f, offset, &iov, 1);
}

int file_writev(struct file *f, uint64_t offset, const struct iovec *iov, int niov)
{
	size_t len = iov_total(iov, niov);
	int ret = check_change(f, offset, len);

	if (ret < 0 || len == 0)
		return ret;
	f->changes++;
	ret = f->ops->writev(f, offset, iov, niov, len);
	f->changes++;
	/* A failed write may have written its front. */
	if (ret < 0)
		f->run.end = 0;
	else
		note_change(f, offset + len);
	return ret;
}

int file_flush(struct file *f)
{
	if (!f->writable || f->ignore_flush)
		return 0;
	if (f->flush_error)
		return f->flush_error;
	if (f->flushed == f->changes)
		return 0;

	uint64_t changes = f->changes;
	int ret = f->ops->flush(f);
	/* The kernel reports a lost page once and then takes it for clean: the next
	 * fsync would succeed although the data are gone. */
	if (ret < 0 && !f->flush_error)
		f->flush_error = ret;
	if (ret == 0)
		f->flushed = MAX(f->flushed, changes);
	/* Another flush may have failed while this one waited. */
	return f->flush_error ? f->flush_error : ret;
}

bool file_sync_failed(const struct file *f)
{
	return f->flush_error != 0;
}

/* The cache modes that promise durable writes promise it of every change. */
static int sync_change(struct file *f)
{
	return f->sync_changes ? file_flush(f) : 0;
}

int file_truncate(struct file *f, uint64_t size)
{
	int ret = check_change(f, size, 0);

	if (ret < 0)
		return ret;
	f->changes++;
	ret = f->ops->truncate(f, size);
	f->changes++;
	f->run.end = 0;
	if (ret < 0)
		return ret;
	f->size = size;
	return sync_change(f);
}

int file_change(struct file *f, enum file_change what, uint64_t offset, uint64_t len)
{
	int ret = check_change(f, offset, len);

	if (ret < 0 || len == 0)
		return ret;
	if (!f->ops->change)
		return -EOPNOTSUPP;
	f->changes++;
	ret = f->ops->change(f, what, offset, len);
	f->changes++;
	f->run.end = 0;
	if (ret < 0)
		return ret;
	if (what != CHANGE_PUNCH)
		note_change(f, offset + len);
	return sync_change(f);
}

int file_allocate(struct file *f, uint64_t offset, uint64_t len)
{
	return file_change(f, CHANGE_ALLOCATE, offset, len);
}

int file_zero(struct file *f, uint64_t offset, uint64_t len)
{
	return file_change(f, CHANGE_ZERO, offset, len);
}

int file_punch(struct file *f, uint64_t offset, uint64_t len)
{
	return file_change(f, CHANGE_PUNCH, offset, len);
}

int64_t file_copy_range(struct file *from, uint64_t from_offset, struct file *to,
			uint64_t to_offset, uint64_t len)
{
	int ret = check_change(to, to_offset, len);

	if (ret < 0 || len == 0)
		return ret;
	if (from_offset > INT64_MAX || len > INT64_MAX - from_offset)
		return -EINVAL;
	if (from->ops != to->ops || !to->ops->copy_range)
		return -EOPNOTSUPP;

	to->changes++;
	int64_t copied = to->ops->copy_range(from, from_offset, to, to_offset, len);
	to->changes++;
	if (copied <= 0)
		return copied;
	note_change(to, to_offset + (uint64_t)copied);
	ret = sync_change(to);
	return ret < 0 ? ret : copied;
}

bool file_set_writable(struct file *f, bool writable, GError **error)
{
	int ret;

	if (f->writable == writable)
		return true;
	if (!f->ops->set_writable) {
		g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_ROFS,
			    "Could not open '%s' again: a file of this kind cannot change its mode",
			    f->name);
		return false;
	}
	if (!f->ops->set_writable(f, writable, error))
		return false;
	f->writable = writable;
	/* A failed write may have made it longer, and whoever finds space in it relies on its end.
	 */
	ret = file_refresh_size(f);
	if (ret == 0)
		return true;
	g_set_error(error, G_FILE_ERROR, (gint)g_file_error_from_errno(-ret),
		    "The size of '%s' cannot be told: %s", f->name, g_strerror(-ret));
	if (f->ops->set_writable(f, !writable, NULL))
		f->writable = !writable;
	return false;
}

/* --- kinds that pass on to another file --- */

int file_inner_extent(struct file *f, struct file *inner, uint64_t offset, bool *is_data,
		      uint64_t *end)
{
	uint64_t run;
	int ret = file_extent(inner, offset, f->size - offset, is_data, &run);

	if (ret == 0)
		*end = offset + run;
	return ret;
}

int file_inner_measure(struct file *inner, uint64_t *size, int64_t *allocated)
{
	int ret = file_refresh_size(inner);

	if (ret < 0)
		return ret;
	*size = file_size(inner);
	*allocated = file_allocated(inner);
	return *allocated < 0 ? (int)*allocated : 0;
}

void file_inner_look(struct file *f, struct file *inner)
{
	f->st = inner->st;
	f->writable = inner->writable;
	f->ignore_flush = inner->ignore_flush;
	f->sync_changes = inner->sync_changes;
	f->alignment = inner->alignment;
	f->size = inner->size;
}
