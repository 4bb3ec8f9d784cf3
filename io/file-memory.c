/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Files in memory for tests and fuzzers: blocks in a hash table, so that holes are
 * real and a file of a terabyte costs nothing. */
#include <config.h>

#include "io/file-internal.h"
#include "io/iov.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#define BLOCK ((size_t)4096)

struct memory_file {
	struct file base;
	GHashTable *blocks; /* block number -> BLOCK bytes; absent: zeroes */
};

static uint8_t *find_block(struct memory_file *m, uint64_t number)
{
	return g_hash_table_lookup(m->blocks, &number);
}

static uint8_t *make_block(struct memory_file *m, uint64_t number)
{
	uint8_t *block = find_block(m, number);

	if (!block) {
		uint64_t *key = g_new(uint64_t, 1);

		*key = number;
		block = g_malloc0(BLOCK);
		g_hash_table_insert(m->blocks, key, block);
	}
	return block;
}

typedef void move_fn(struct memory_file *m, uint64_t number, size_t at, struct iov_walk *w,
		     size_t size);

static void read_part(struct memory_file *m, uint64_t number, size_t at, struct iov_walk *w,
		      size_t size)
{
	const uint8_t *block = find_block(m, number);

	if (block)
		iov_walk_copy_in(w, block + at, size);
	else
		iov_walk_zero(w, size);
}

static void write_part(struct memory_file *m, uint64_t number, size_t at, struct iov_walk *w,
		       size_t size)
{
	iov_walk_copy_out(w, make_block(m, number) + at, size);
}

static int each_block(struct file *f, uint64_t offset, const struct iovec *iov, int niov,
		      size_t len, move_fn *move)
{
	struct iov_walk w;

	iov_walk_init(&w, iov, niov);
	while (len > 0) {
		size_t at = offset % BLOCK, size = MIN(len, BLOCK - at);

		move((struct memory_file *)f, offset / BLOCK, at, &w, size);
		offset += size;
		len -= size;
	}
	return 0;
}

static int memory_readv(struct file *f, uint64_t offset, const struct iovec *iov, int niov,
			size_t len)
{
	return each_block(f, offset, iov, niov, len, read_part);
}

static int memory_writev(struct file *f, uint64_t offset, const struct iovec *iov, int niov,
			 size_t len)
{
	return each_block(f, offset, iov, niov, len, write_part);
}

static size_t memory_read_nowait(struct file *f, uint64_t offset, void *buf, size_t len)
{
	struct iovec iov = {.iov_base = buf, .iov_len = len};

	return memory_readv(f, offset, &iov, 1, len) == 0 ? len : 0;
}

static int memory_flush(struct file *f)
{
	return 0;
}

struct range {
	uint64_t start, end; /* whole blocks */
};

static gboolean is_in_range(gpointer key, gpointer value, gpointer user)
{
	const struct range *r = user;
	uint64_t start = *(const uint64_t *)key * BLOCK;

	return start >= r->start && start < r->end;
}

/* Zeroes, as holes as far as whole blocks go. */
static void clear(struct memory_file *m, uint64_t offset, uint64_t end)
{
	struct range r = {.start = (offset + BLOCK - 1) / BLOCK * BLOCK,
			  .end = end / BLOCK * BLOCK};
	uint8_t *head = find_block(m, offset / BLOCK), *tail = find_block(m, end / BLOCK);

	if (head && offset % BLOCK)
		memset(head + offset % BLOCK, 0, MIN(BLOCK - offset % BLOCK, end - offset));
	if (tail && r.end >= offset)
		memset(tail, 0, end % BLOCK);
	if (r.end > r.start)
		g_hash_table_foreach_remove(m->blocks, is_in_range, &r);
}

static int memory_truncate(struct file *f, uint64_t size)
{
	if (size < f->size)
		clear((struct memory_file *)f, size, f->size + BLOCK);
	return 0;
}

static int memory_change(struct file *f, enum file_change what, uint64_t offset, uint64_t len)
{
	/* Reserving space means nothing in memory. */
	if (what != CHANGE_ALLOCATE)
		clear((struct memory_file *)f, offset, offset + len);
	return 0;
}

static int64_t memory_copy_range(struct file *from, uint64_t from_offset, struct file *to,
				 uint64_t to_offset, uint64_t len)
{
	uint8_t buf[BLOCK];
	struct iovec iov = {.iov_base = buf};

	if (from_offset >= from->size)
		return 0;
	iov.iov_len = (size_t)MIN(MIN(len, from->size - from_offset), sizeof(buf));
	memory_readv(from, from_offset, &iov, 1, iov.iov_len);
	memory_writev(to, to_offset, &iov, 1, iov.iov_len);
	return (int64_t)iov.iov_len;
}

static int memory_extent(struct file *f, uint64_t offset, bool *is_data, uint64_t *end)
{
	struct memory_file *m = (struct memory_file *)f;
	uint64_t block = offset / BLOCK;
	bool data = find_block(m, block) != NULL;

	*is_data = data;
	if (g_hash_table_size(m->blocks) == 0) {
		*end = f->size; /* do not walk through a terabyte of nothing */
		return 0;
	}
	do
		block++;
	while (block * BLOCK < f->size && (find_block(m, block) != NULL) == data);
	*end = MIN(block * BLOCK, f->size);
	return 0;
}

static int memory_measure(struct file *f, uint64_t *size, int64_t *allocated)
{
	struct memory_file *m = (struct memory_file *)f;

	*size = f->size;
	*allocated = (int64_t)(g_hash_table_size(m->blocks) * BLOCK);
	return 0;
}

static void memory_close(struct file *f)
{
	struct memory_file *m = (struct memory_file *)f;

	g_hash_table_destroy(m->blocks);
	file_fini(f);
	g_free(m);
}

static const struct file_ops memory_ops = {
	.readv = memory_readv,
	.read_nowait = memory_read_nowait,
	.writev = memory_writev,
	.flush = memory_flush,
	.truncate = memory_truncate,
	.change = memory_change,
	.copy_range = memory_copy_range,
	.extent = memory_extent,
	.measure = memory_measure,
	.close = memory_close,
};

struct file *file_new_memory(const char *name, const void *data, uint64_t size)
{
	static atomic_uint_least64_t last_inode;
	struct memory_file *m = g_new0(struct memory_file, 1);

	file_init(&m->base, &memory_ops, name);
	m->blocks = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, g_free);
	m->base.writable = true;
	m->base.st.st_mode = S_IFREG | 0644;
	m->base.st.st_nlink = 1;
	m->base.st.st_uid = geteuid();
	m->base.st.st_gid = getegid();
	m->base.st.st_blksize = BLOCK;
	m->base.st.st_ino = (ino_t)(atomic_fetch_add(&last_inode, 1) + 1);
	m->base.st.st_size = (off_t)size;
	if (data && size > 0) {
		struct iovec iov = {.iov_base = (void *)data, .iov_len = (size_t)size};

		memory_writev(&m->base, 0, &iov, 1, (size_t)size);
	}
	m->base.st.st_blocks = (blkcnt_t)(g_hash_table_size(m->blocks) * BLOCK / 512);
	m->base.size = size;
	return &m->base;
}
