/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A file: bytes at offsets. Regular files and block devices here; memory files
 * for tests; remote storage later. All offsets and lengths are in bytes and
 * need no alignment: with O_DIRECT this layer aligns. A struct file belongs to
 * the loop (thread) that opened it.
 */
#ifndef IMGFS_IO_FILE_H
#define IMGFS_IO_FILE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/uio.h>

struct file;

enum file_flags {
	FILE_RDWR = 1 << 0,   /* else read-only */
	FILE_CREATE = 1 << 1, /* create if missing; the mode is 0644 & ~umask */
	FILE_EXCL = 1 << 2,   /* with FILE_CREATE: must not exist */
	FILE_TRUNC = 1 << 3,  /* cut to 0 after the locks are had, never before */
	FILE_REGULAR_ONLY =
		1 << 4,	     /* refuse anything but a regular file (never blocks on a FIFO) */
	FILE_NOCOW = 1 << 5, /* ask btrfs to write in place; elsewhere nothing */
};

/* qemu's five cache modes. */
enum cache_mode {
	CACHE_WRITEBACK,    /* default: page cache, flush on request */
	CACHE_WRITETHROUGH, /* page cache, each write flushed */
	CACHE_NONE,	    /* O_DIRECT, flush on request */
	CACHE_DIRECTSYNC,   /* O_DIRECT, each write flushed */
	CACHE_UNSAFE,	    /* page cache, flush ignored */
};
/* "none" or "off", "writeback", ... false if the word is none of them. */
bool cache_mode_parse(const char *word, enum cache_mode *mode);

enum aio_engine {
	AIO_AUTO, /* io_uring where the kernel allows it, else threads; libaio is never chosen
		     silently */
	AIO_THREADS,
	AIO_NATIVE, /* libaio: needs CACHE_NONE or CACHE_DIRECTSYNC */
	AIO_IO_URING,
};
bool aio_engine_parse(const char *word, enum aio_engine *engine); /* threads native io_uring */

/*
 * QEMU's permissions, as locked by it: bit i is byte 100+i (held) and byte
 * 200+i (not shared with others) of the file, one-byte OFD read locks.
 */
enum file_perm {
	PERM_CONSISTENT_READ = 1 << 0,
	PERM_WRITE = 1 << 1,
	PERM_WRITE_UNCHANGED = 1 << 2,
	PERM_RESIZE = 1 << 3,
};

struct file_options {
	unsigned flags; /* enum file_flags */
	enum cache_mode cache;
	enum aio_engine aio;
	unsigned perms;	   /* what we hold: enum file_perm bits */
	unsigned unshared; /* what others may not hold; 0 with -U */
};

/*
 * Opens with O_CLOEXEC, O_NONBLOCK (a FIFO never blocks) and, when the caller
 * owns a file that it only reads, O_NOATIME. Directories, sockets, FIFOs and
 * character devices are refused. Locks are taken before anything is changed;
 * a conflict gives a message that names the permission in conflict and asks
 * whether another process uses the image. A file system without OFD locks:
 * goes on without. The message begins with "Could not open 'PATH': ".
 * Does not yield.
 */
struct file *file_open(const char *path, const struct file_options *options, GError **error);
/* Asks XFS to allocate `bytes` at a time; an empty file only, elsewhere nothing. */
void file_hint_extents(struct file *f, uint32_t bytes);
/*
 * For tests: from now on every file that this thread opens is passed to wrap, whose answer
 * file_open returns (it takes over the reference to `opened` and never fails). So a test can
 * put a file that fails or records under whatever opens files by name. NULL: no more.
 */
typedef struct file *file_wrap_fn(struct file *opened, void *arg);
void file_set_wrapper(file_wrap_fn *wrap, void *arg);

/* A file in memory for tests and fuzzers; takes its own copy of data (may be
 * NULL when size is 0). Writable. */
struct file *file_new_memory(const char *name, const void *data, uint64_t size);

/*
 * file-pipe.c. A file of `size` bytes that goes to a pipe, with fd at its other end (which stays
 * the caller's): each write waits until all bytes before it have been written. It cannot be read.
 */
struct file *file_new_pipe(const char *name, int fd, uint64_t size);
/*
 * What comes out of fd, up to its end, as a read-only file called name: spooled into a temporary
 * file, or the file itself where fd is one. NULL and *error. Yields.
 */
struct file *file_from_pipe(const char *name, int fd, GError **error);
/* A new, empty file in $TMPDIR or /var/tmp: its path, to be freed. NULL and *error. */
char *file_temporary(GError **error);

/*
 * The same file for writing as well, or only for reading again, with the locks that go with it;
 * nothing may be under way on it. Its size is looked up. false and *error: it is as it was. Does
 * not yield.
 */
bool file_set_writable(struct file *f, bool writable, GError **error);

/* One more reference / one fewer; the last one closes (and frees the locks). */
struct file *file_ref(struct file *f);
void file_unref(struct file *f); /* NULL is allowed */

const char *file_name(const struct file *f); /* the path as opened */
bool file_writable(const struct file *f);
/* What fstat said when it was opened (memory files: made up, unique st_ino). */
const struct stat *file_stat(const struct file *f);
/* Do both tell of one file, under whatever name? */
static inline bool stat_same_file(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}
/* The descriptor for splice and fstat by the FUSE layer, -1 if there is none.
 * Nobody reads or writes through it by offset in another way than this file's
 * functions, except to splice. */
int file_fd(const struct file *f);
/* Smallest size and alignment of O_DIRECT requests; 1 for the page cache. */
uint32_t file_alignment(const struct file *f);

/* Size in bytes as of opening or of our own last growth. file_refresh_size asks
 * the system again. */
uint64_t file_size(const struct file *f);
int file_refresh_size(struct file *f);
/* Bytes that the file occupies on its host (st_blocks * 512, asked now), or -errno. */
int64_t file_allocated(struct file *f);

/*
 * Reads len bytes at offset. Bytes past the end of the file read as zero
 * (drivers that need the difference ask file_size); -EIO where the file had bytes when its size was
 * last asked for, and somebody has cut it since. 0 or -errno. May yield; a
 * page-cache hit is answered in place.
 */
int file_read(struct file *f, uint64_t offset, void *buf, size_t len);
/* iov is not changed. niov any number. */
int file_readv(struct file *f, uint64_t offset, const struct iovec *iov, int niov);
/* Only what can be had without waiting: bytes read from the front of the range
 * (zeros past the end count), 0 if nothing, never an error, never yields. */
size_t file_read_nowait(struct file *f, uint64_t offset, void *buf, size_t len);

/* Writes all of it, growing the file. 0 or -errno. May yield. */
int file_write(struct file *f, uint64_t offset, const void *buf, size_t len);
int file_writev(struct file *f, uint64_t offset, const struct iovec *iov, int niov);
/* Everything written before is durable when this returns 0 (fdatasync; nothing
 * under CACHE_UNSAFE, or when nothing has changed since the last one). After a failure every later
 * flush fails too. May yield. */
int file_flush(struct file *f);
/* Has a flush failed? */
bool file_sync_failed(const struct file *f);
/* May yield. */
int file_truncate(struct file *f, uint64_t size);
/* fallocate: reserve space / make zeroes keeping space / make a hole.
 * -EOPNOTSUPP where the host cannot. May yield. */
int file_allocate(struct file *f, uint64_t offset, uint64_t len);
int file_zero(struct file *f, uint64_t offset, uint64_t len);
int file_punch(struct file *f, uint64_t offset, uint64_t len);
/* copy_file_range inside the kernel; bytes copied (may be short) or -errno
 * (-EOPNOTSUPP, -EXDEV: copy by hand). May yield. */
int64_t file_copy_range(struct file *from, uint64_t from_offset, struct file *to,
			uint64_t to_offset, uint64_t len);

/*
 * Is there data at offset? *is_data, and in *run how many bytes from offset on
 * (1..len) are alike, by SEEK_DATA and SEEK_HOLE; where the host cannot tell, all
 * is data. Bytes past the end count as hole. 0 or -errno. Remembers the last
 * extent found, so that walking is cheap. Does not yield.
 */
int file_extent(struct file *f, uint64_t offset, uint64_t len, bool *is_data, uint64_t *run);

/* Hints, ignored on failure: bytes will be read soon. */
void file_readahead(struct file *f, uint64_t offset, uint64_t len);

/* Lets the process have as many files open as the system allows it: a chain of 1000 images is
 * more than the usual limit, and some programs open it more than once. Called once, by main. */
void file_allow_many(void);

/* Syncs the directory that holds path, after a file was made or renamed in it. */
int file_sync_directory(const char *path);

/* Is this name a regular file or block device that opens for reading, without
 * opening it for long? lstat/stat wrapper so that nobody outside io/ calls the
 * system: 0 or -errno. Follows symbolic links. */
int file_lookup(const char *path, struct stat *st);

#endif
