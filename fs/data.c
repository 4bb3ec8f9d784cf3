/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "fs/data.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/log.h"
#include "io/loop.h"

/* ---- buffers: a few are kept by each thread, so that their pages stay warm ---- */

#define SMALL (128u << 10)
#define KEPT  8

struct buffer_list {
	void *free[KEPT];
	unsigned count;
};
static __thread struct buffer_list small_buffers, large_buffers;

static struct buffer_list *list_for(size_t size)
{
	return size <= SMALL ? &small_buffers : &large_buffers;
}

/* Aligned for O_DIRECT. NULL: no memory. */
static void *buffer_get(size_t size)
{
	struct buffer_list *l = list_for(size);
	void *buf;

	assert(size <= DATA_READ_MAX);
	if (l->count)
		return l->free[--l->count];
	if (posix_memalign(&buf, 4096, size <= SMALL ? SMALL : DATA_READ_MAX))
		return NULL;
	return buf;
}

static void buffer_put(void *buf, size_t size)
{
	struct buffer_list *l = list_for(size);

	if (l->count < KEPT)
		l->free[l->count++] = buf;
	else
		free(buf);
}

void data_thread_end(void)
{
	while (small_buffers.count)
		free(small_buffers.free[--small_buffers.count]);
	while (large_buffers.count)
		free(large_buffers.free[--large_buffers.count]);
}

/* ---- reading ---- */

#define ZEROES (64u << 10)
static const uint8_t zeroes[ZEROES] __attribute__((aligned(4096)));

static void reply_zeroes(fuse_req_t req, size_t size)
{
	struct iovec iov[DATA_READ_MAX / ZEROES];
	int n = 0;

	while (size) {
		size_t part = MIN(size, ZEROES);

		iov[n++] = (struct iovec){(void *)zeroes, part};
		size -= part;
	}
	fuse_reply_iov(req, iov, n);
}

/*
 * Bytes are copied twice, through a buffer that stays warm. Splicing the file into
 * /dev/fuse saves one copy and was measured to take twice as long (1 GiB in 0.95 s
 * against 0.43 s): a pipe carries 4 KiB pages one by one.
 */

/*
 * The first extent is there already; all others are left to image_read. So is all of an image that
 * changes: a write beside these bytes may move their cluster, and another one take its place.
 */
static int read_bytes(const struct window *w, const struct extent *e, uint64_t at, void *buf,
		      size_t size, bool direct)
{
	if (image_stays(w->img) && e->start <= at && e->start + e->len - at >= size)
		return image_read_extent(w->img, e, at, buf, size);
	return direct ? image_read_alone(w->img, at, buf, size) : image_read(w->img, at, buf, size);
}

static void reply_read_error(fuse_req_t req, const struct window *w, uint64_t at, size_t size,
			     int err)
{
	log_read_error(w->img, at, size, err);
	/* Whatever was the cause (a corrupt table is EINVAL or so inside), readers
	 * understand EIO; a lack of memory they may understand too. */
	fuse_reply_err(req, err == ENOMEM ? ENOMEM : EIO);
}

void data_reply_read(fuse_req_t req, const struct window *w, uint64_t offset, size_t size,
		     bool direct)
{
	uint64_t at = w->start + offset;
	struct extent e;
	void *buf;
	int ret;

	if (offset >= w->size) {
		fuse_reply_buf(req, NULL, 0);
		return;
	}
	size = MIN(MIN(size, DATA_READ_MAX), w->size - offset);
	ret = image_map(w->img, at, size, NULL, &e);
	if (ret) {
		reply_read_error(req, w, at, size, -ret);
		return;
	}
	if (extent_is_zero(&e) && e.len >= size) {
		reply_zeroes(req, size);
		return;
	}
	buf = buffer_get(size);
	if (!buf) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	ret = read_bytes(w, &e, at, buf, size, direct);
	if (ret)
		reply_read_error(req, w, at, size, -ret);
	else
		fuse_reply_buf(req, buf, size);
	buffer_put(buf, size);
}

/* ---- holes ---- */

/* Are the bytes from at on data, and how many of len are alike? */
static int next_run(struct image *img, uint64_t at, uint64_t len, bool *is_data, uint64_t *run)
{
	struct extent e;
	int ret = image_map_run(img, at, len, NULL, &e);

	if (ret)
		return ret;
	*run = e.start + e.len - at;
	*is_data = !extent_is_zero(&e);
	if (e.kind == EXTENT_DATA && (e.flags & EXTENT_MAYBE_SPARSE))
		return file_extent(e.file, e.host + (at - e.start), *run, is_data, run);
	return 0;
}

#define STEPS_BETWEEN_PAUSES 256

int data_seek(const struct window *w, uint64_t offset, int whence, uint64_t *found)
{
	bool want = whence == SEEK_DATA;

	if (offset >= w->size)
		return -ENXIO;
	for (unsigned steps = 1; offset < w->size; steps++) {
		bool is_data;
		uint64_t run;
		int ret = next_run(w->img, w->start + offset, w->size - offset, &is_data, &run);

		/* What cannot be mapped counts as data, so that reading it tells the error. */
		if (ret) {
			is_data = true;
			run = MIN(w->size - offset, 65536 - offset % 65536);
		}
		if (is_data == want) {
			*found = offset;
			return 0;
		}
		offset += run;
		if (steps % STEPS_BETWEEN_PAUSES == 0)
			co_relax();
	}
	if (want)
		return -ENXIO;
	*found = w->size; /* there is always a hole at the end */
	return 0;
}

/* ---- st_blocks ---- */

/*
 * What has few runs is counted exactly, however busy the machine is. Beyond that the rest is
 * estimated once a stat took this long: to read every table of a fragmented terabyte takes
 * seconds, and what looks at st_blocks (cp, tar, du) only wants to know whether there are holes.
 */
#define COUNT_RUNS_MIN 4096
#define COUNT_NS_MAX   4000000
#define COUNT_PIECE    (UINT64_C(1) << 30)
#define MEMO_MAX       65536

/* Node -> blocks, of all loops: so they agree, and one of them counts. */
struct memo {
	uint64_t node, blocks;
	uint64_t at;	/* the value of `changes` when counting began */
	uint64_t again; /* loop_now from which on it is worth counting again */
};
static pthread_mutex_t memo_lock = PTHREAD_MUTEX_INITIALIZER;
static GHashTable *memo;
static uint64_t changes; /* atomic */

void data_changed(void)
{
	__atomic_fetch_add(&changes, 1, __ATOMIC_RELAXED);
}

/*
 * A disk that is written to is not counted over and over: a count that took long is believed for a
 * while. But not that there is no data at all, which is why cp would read nothing.
 */
static bool is_fresh(const struct memo *m)
{
	return m->at == __atomic_load_n(&changes, __ATOMIC_RELAXED) ||
	       (m->blocks && loop_now() < m->again);
}

static bool memo_get(uint64_t node, uint64_t *blocks)
{
	struct memo *m;
	bool found;

	pthread_mutex_lock(&memo_lock);
	m = memo ? g_hash_table_lookup(memo, &node) : NULL;
	found = m && is_fresh(m);
	if (found)
		*blocks = m->blocks;
	pthread_mutex_unlock(&memo_lock);
	return found;
}

/* Gives what is remembered: another loop may have been first. */
static uint64_t memo_put(struct memo counted)
{
	struct memo *m;

	pthread_mutex_lock(&memo_lock);
	if (!memo)
		memo = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
	m = g_hash_table_lookup(memo, &counted.node);
	if (m && m->at >= counted.at) {
		counted.blocks = m->blocks;
	} else if (m) {
		*m = counted;
	} else if (g_hash_table_size(memo) < MEMO_MAX) {
		m = g_memdup2(&counted, sizeof(counted));
		g_hash_table_insert(memo, m, m);
	}
	pthread_mutex_unlock(&memo_lock);
	return counted.blocks;
}

static gboolean is_of_disk(void *key, void *value, void *disk)
{
	return node_disk(((const struct memo *)value)->node) == GPOINTER_TO_UINT(disk);
}

void data_forget_disk(unsigned disk)
{
	pthread_mutex_lock(&memo_lock);
	if (memo)
		g_hash_table_foreach_remove(memo, is_of_disk, GUINT_TO_POINTER(disk));
	pthread_mutex_unlock(&memo_lock);
}

void data_clear(void)
{
	pthread_mutex_lock(&memo_lock);
	g_clear_pointer(&memo, g_hash_table_unref);
	pthread_mutex_unlock(&memo_lock);
}

/* Bytes of data in the window; *hole: there is or may be one. */
static uint64_t count_data(const struct window *w, bool *hole)
{
	uint64_t at = 0, data = 0, deadline = loop_now() + COUNT_NS_MAX, runs = 0;

	*hole = false;
	while (at < w->size) {
		bool is_data;
		uint64_t run;

		if (next_run(w->img, w->start + at, MIN(w->size - at, COUNT_PIECE), &is_data,
			     &run)) {
			/* Damaged: all data, so that nobody skips what cannot be read. */
			*hole = false;
			return w->size;
		}
		if (is_data)
			data += run;
		else
			*hole = true;
		at += run;
		if (at < w->size && ++runs > COUNT_RUNS_MIN && loop_now() > deadline) {
			double rest = (double)data / (double)at * (double)(w->size - at);

			*hole = true;
			return MAX(data + (uint64_t)rest, 1);
		}
	}
	return data;
}

#define COUNT_SHARE 20 /* counting takes at most one part in so many of the time */

uint64_t data_blocks(const struct window *w, uint64_t node)
{
	struct memo m = {.node = node};
	uint64_t data, begin, took;
	bool hole;

	if (memo_get(node, &m.blocks))
		return m.blocks;
	m.at = __atomic_load_n(&changes, __ATOMIC_RELAXED);
	begin = loop_now();
	data = count_data(w, &hole);
	took = loop_now() - begin;
	m.again = begin + took * COUNT_SHARE;
	m.blocks = data / 512 + (data % 512 != 0);
	if (hole && m.blocks * 512 >= w->size)
		m.blocks = (w->size - 1) / 512;
	if (data && !m.blocks)
		m.blocks = 1;
	return memo_put(m);
}
