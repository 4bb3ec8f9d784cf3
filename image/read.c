/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading: one walk over the map. What is in caches is answered in place; the
 * rest of a request goes out at once, each piece in a coroutine, straight into the
 * caller's buffers.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image/core.h"
#include "io/pool.h"

#define PIECES_AT_ONCE 32

/* A part of a request that lies in one extent. */
struct piece {
	struct extent e;
	uint64_t offset; /* of the disk */
	size_t len;
	struct iovec *iov; /* its own copy, covers len */
	int niov;
};

static int read_data(const struct extent *e, uint64_t offset, const struct iovec *iov, int niov)
{
	uint64_t host = e->host + (offset - e->start);
	int ret;

	if (e->cryptor)
		return -ENOTSUP;
	ret = niov == 1 ? file_read(e->file, host, iov->iov_base, iov->iov_len)
			: file_readv(e->file, host, iov, niov);
	if (ret < 0 && e->layer)
		image_fault(e->layer, ret, offset,
			    "reading at offset %" G_GUINT64_FORMAT " of '%s' failed", host,
			    file_name(e->file));
	return ret;
}

/* A unit that goes to more than one buffer is decoded apart and then dealt out. */
static int read_coded(const struct extent *e, uint64_t offset, const struct iovec *iov, int niov)
{
	size_t len = iov_total(iov, niov), done = 0;
	uint8_t *bounce;
	int ret;

	if (e->cryptor)
		return -ENOTSUP;
	if (niov == 1)
		return codec_read(e, offset, iov->iov_base, len);
	bounce = malloc(len);
	if (!bounce)
		return -ENOMEM;
	ret = codec_read(e, offset, bounce, len);
	for (int i = 0; ret == 0 && i < niov; i++) {
		memcpy(iov[i].iov_base, bounce + done, iov[i].iov_len);
		done += iov[i].iov_len;
	}
	free(bounce);
	return ret;
}

/* iov covers exactly the bytes wanted, from offset on, all inside e. Yields. */
static int read_extent(const struct extent *e, uint64_t offset, const struct iovec *iov, int niov)
{
	switch (e->kind) {
	case EXTENT_DATA:
		return read_data(e, offset, iov, niov);
	case EXTENT_CODED:
		return read_coded(e, offset, iov, niov);
	case EXTENT_HOLE:
	case EXTENT_ZERO:
		break;
	}
	iov_zero(iov, niov);
	return 0;
}

static int run_piece(void *arg)
{
	struct piece *p = arg;
	int ret = read_extent(&p->e, p->offset, p->iov, p->niov);

	g_free(p->iov);
	g_free(p);
	return ret;
}

/* Bytes from the front that were had without waiting. */
static size_t read_at_once(const struct piece *p)
{
	const struct iovec *first = p->iov;

	if (p->e.cryptor)
		return 0;
	if (p->e.kind == EXTENT_DATA)
		return file_read_nowait(p->e.file, p->e.host + (p->offset - p->e.start),
					first->iov_base, first->iov_len);
	if (p->niov == 1 && codec_try_read(&p->e, p->offset, first->iov_base, p->len))
		return p->len;
	return 0;
}

/* Copies of the piece and its iovec outlive this call: a coroutine works on them. */
static void start_piece(struct co_group *group, const struct piece *p, size_t done)
{
	struct piece *copy = g_memdup2(p, sizeof(*p));

	copy->iov = g_new(struct iovec, p->niov);
	copy->niov = iov_slice(p->iov, p->niov, done, p->len - done, copy->iov);
	copy->offset += done;
	copy->len -= done;
	co_group_spawn(group, run_piece, copy);
}

/* ---- coded units of one long read, some at a time for each worker ---- */

/* How one request is read, and what was met. */
struct manner {
	bool alone; /* nobody else keeps the other processors busy */
	bool coded; /* out: there were coded units */
};

static int run_coded_batch(void *arg)
{
	struct coded_batch *b = arg;
	int ret = codec_read_batch(b);

	g_free(b);
	return ret;
}

static void flush_batch(struct co_group *group, struct coded_batch **batch)
{
	if (*batch)
		co_group_spawn(group, run_coded_batch, *batch);
	*batch = NULL;
}

static bool is_whole_unit(const struct piece *p)
{
	return p->e.kind == EXTENT_CODED && !p->e.cryptor && p->niov == 1 &&
	       p->offset == p->e.unit_start && p->len == p->e.unit_len;
}

/* total: bytes of the whole request, so that each worker gets a share of it. */
static void add_to_batch(struct co_group *group, struct coded_batch **batch, const struct piece *p,
			 size_t total, bool alone)
{
	struct coded_batch *b = *batch;

	if (!b)
		b = *batch = g_new0(struct coded_batch, 1);
	b->alone = alone;
	b->e[b->n] = p->e;
	b->buf[b->n++] = p->iov->iov_base;
	if (b->n == CODED_BATCH || b->n * p->len >= total / pool_width())
		flush_batch(group, batch);
}

/* image_map, and host-contiguous data joined, so that it becomes one readv. */
static int map_piece(struct image *img, uint64_t offset, uint64_t len, struct image *base,
		     struct extent *e)
{
	int ret = image_map(img, offset, len, base, e);

	while (ret == 0 && e->kind == EXTENT_DATA && e->len < len) {
		struct extent more;

		if (image_map(img, offset + e->len, len - e->len, base, &more) < 0 ||
		    more.kind != EXTENT_DATA || more.file != e->file ||
		    more.host != e->host + e->len || more.cryptor != e->cryptor)
			break;
		e->len += more.len;
	}
	return ret;
}

static int read_many(struct image *img, uint64_t offset, const struct iovec *iov, int niov,
		     size_t total, struct image *base, struct extent *e, struct manner *m)
{
	struct co_group group;
	struct iovec small[8], *slice = niov <= 8 ? small : g_new(struct iovec, niov);
	struct coded_batch *batch = NULL;
	size_t done = 0;
	int ret = 0, failed;

	co_group_init(&group, PIECES_AT_ONCE);
	for (;;) {
		struct piece p = {*e, offset + done, MIN(e->len, total - done), slice, 0};
		size_t ready;

		p.niov = iov_slice(iov, niov, done, p.len, slice);
		if (e->kind == EXTENT_HOLE || e->kind == EXTENT_ZERO) {
			iov_zero(slice, p.niov);
		} else {
			m->coded = m->coded || e->kind == EXTENT_CODED;
			ready = read_at_once(&p);
			if (ready == 0 && is_whole_unit(&p) && !codec_is_known(&p.e))
				add_to_batch(&group, &batch, &p, total, m->alone);
			else if (ready < p.len)
				start_piece(&group, &p, ready);
		}
		done += p.len;
		if (done == total || group.error)
			break;
		ret = map_piece(img, offset + done, total - done, base, e);
		if (ret < 0)
			break;
	}
	flush_batch(&group, &batch);
	failed = co_group_wait(&group);
	if (slice != small)
		g_free(slice);
	return ret < 0 ? ret : failed;
}

static int read_noting(struct image *img, uint64_t offset, const struct iovec *iov, int niov,
		       struct image *base, struct manner *m)
{
	size_t total = iov_total(iov, niov);
	struct extent e;
	int ret;

	if (offset > img->size || total > img->size - offset)
		return -EINVAL;
	if (total == 0)
		return 0;
	ret = map_piece(img, offset, total, base, &e);
	if (ret < 0)
		return ret;
	/* Most requests lie in one extent: no group, no copies. */
	if (e.len >= total) {
		m->coded = e.kind == EXTENT_CODED;
		return read_extent(&e, offset, iov, niov);
	}
	return read_many(img, offset, iov, niov, total, base, &e, m);
}

int read_unlocked(struct image *img, uint64_t offset, const struct iovec *iov, int niov,
		  struct image *base)
{
	struct manner m = {0};

	return read_noting(img, offset, iov, niov, base, &m);
}

static int read_locked(struct image *img, uint64_t offset, const struct iovec *iov, int niov,
		       struct manner *m)
{
	struct disk_lock lock;
	size_t total;
	int ret;

	if (img->core->guarded) {
		disk_lock(img, &lock, offset, iov_total(iov, niov), false);
		ret = read_noting(img, offset, iov, niov, NULL, m);
		disk_unlock(img, &lock);
		return ret;
	}
	ret = read_noting(img, offset, iov, niov, NULL, m);
	total = ret == 0 && m->coded ? iov_total(iov, niov) : 0;
	if (total > 0)
		readahead_note(img, offset, total);
	return ret;
}

int image_readv(struct image *img, uint64_t offset, const struct iovec *iov, int niov)
{
	struct manner m = {0};

	return read_locked(img, offset, iov, niov, &m);
}

int image_read(struct image *img, uint64_t offset, void *buf, size_t len)
{
	struct iovec iov = {buf, len};

	return image_readv(img, offset, &iov, 1);
}

int image_read_alone(struct image *img, uint64_t offset, void *buf, size_t len)
{
	struct iovec iov = {buf, len};
	struct manner m = {.alone = true};

	return read_locked(img, offset, &iov, 1, &m);
}

bool image_stays(const struct image *img)
{
	return !img->core->guarded;
}

int image_read_extent(struct image *img, const struct extent *e, uint64_t offset, void *buf,
		      size_t len)
{
	struct iovec iov = {buf, len};

	if (offset < e->start || offset - e->start > e->len || len > e->len - (offset - e->start))
		return -EINVAL;
	/* A run of several coded units (image_map_run) is read by another walk. */
	if (e->kind == EXTENT_CODED && e->unit_len == 0)
		return image_readv(img, offset, &iov, 1);
	return read_extent(e, offset, &iov, 1);
}

size_t image_peek_extent(const struct extent *e, uint64_t offset, void *buf, size_t len)
{
	/* Other than host files may be changed by the loop meanwhile: they have no lock. */
	if (e->kind != EXTENT_DATA || e->cryptor || file_fd(e->file) < 0 || offset < e->start ||
	    offset - e->start > e->len || len > e->len - (offset - e->start))
		return 0;
	return file_read_nowait(e->file, e->host + (offset - e->start), buf, len);
}
