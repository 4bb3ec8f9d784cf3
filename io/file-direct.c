/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * O_DIRECT wants offsets, lengths and memory in multiples of something. What is
 * not so goes through a bounce buffer; a write that covers a block only in part
 * reads the block first.
 *
 * Such a read-modify-write must not meet another change of the same blocks: it
 * would put back what it read before. And one that ends in the last block of the
 * file makes the file longer for a moment and then cuts it, so nobody may write
 * behind it meanwhile. Changes are therefore kept in a list in order of arrival,
 * and each waits for earlier ones that it must not meet.
 */
#include <config.h>

#include "io/file-posix.h"
#include "io/iov.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define BOUNCE_MAX    ((size_t)1 << 20)
#define ALIGNMENT_MAX ((uint32_t)64 << 10)

static uint64_t round_down(const struct posix_file *p, uint64_t n)
{
	return n & ~(uint64_t)(p->base.alignment - 1);
}

static uint64_t round_up(const struct posix_file *p, uint64_t n)
{
	return round_down(p, n + p->base.alignment - 1);
}

static bool is_aligned(const struct posix_file *p, uint64_t n)
{
	return (n & (p->base.alignment - 1)) == 0;
}

/* --- finding out the alignments --- */

static bool is_usable(uint32_t alignment)
{
	return alignment > 0 && alignment <= ALIGNMENT_MAX && (alignment & (alignment - 1)) == 0;
}

/* Linux 6.1 says it, for the file systems that know. */
static bool ask_statx(struct posix_file *p)
{
#ifdef STATX_DIOALIGN
	struct statx stx;

	if (statx(p->base.fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) != 0 ||
	    !(stx.stx_mask & STATX_DIOALIGN) || !is_usable(stx.stx_dio_offset_align) ||
	    !is_usable(stx.stx_dio_mem_align))
		return false;
	p->base.alignment = stx.stx_dio_offset_align;
	p->memory_alignment = stx.stx_dio_mem_align;
	return true;
#else
	return false;
#endif
}

static bool ask_device(struct posix_file *p)
{
	int sector;

	if (!S_ISBLK(p->base.st.st_mode) || ioctl(p->base.fd, BLKSSZGET, &sector) != 0 ||
	    sector <= 0 || !is_usable((uint32_t)sector))
		return false;
	p->base.alignment = p->memory_alignment = (uint32_t)sector;
	return true;
}

static bool can_read(int fd, void *buf, size_t len)
{
	ssize_t n;

	do
		n = pread(fd, buf, len, 0);
	while (n < 0 && errno == EINTR);
	/* Any other answer than "not like that" means that the shape was accepted. */
	return n >= 0 || errno != EINVAL;
}

/* Tries. An empty file accepts anything, so nothing is learnt from it. */
static void try_reads(struct posix_file *p)
{
	char *buf;

	p->base.alignment = p->memory_alignment = 4096;
	if (p->base.size == 0 || posix_memalign((void **)&buf, ALIGNMENT_MAX, 2 * ALIGNMENT_MAX))
		return;
	for (uint32_t a = 512; a <= ALIGNMENT_MAX; a *= 2)
		if (can_read(p->base.fd, buf, a)) {
			p->base.alignment = a;
			break;
		}
	for (uint32_t a = 512; a <= ALIGNMENT_MAX; a *= 2)
		if (can_read(p->base.fd, buf + a, p->base.alignment)) {
			p->memory_alignment = a;
			break;
		}
	free(buf);
}

int direct_set_up(struct posix_file *p)
{
	int flags = fcntl(p->base.fd, F_GETFL);

	if (flags < 0 || fcntl(p->base.fd, F_SETFL, flags | O_DIRECT) != 0)
		return -errno;
	p->direct = true;
	if (!ask_statx(p) && !ask_device(p))
		try_reads(p);
	return 0;
}

/* --- who may change what at the same time --- */

static bool must_wait(const struct posix_file *p, const struct direct_range *self)
{
	for (const struct direct_range *r = p->ranges; r != self; r = r->next)
		if (r->start < self->end && self->start < r->end &&
		    (r->exclusive || self->exclusive))
			return true;
	return false;
}

static void range_enter(struct posix_file *p, struct direct_range *self)
{
	struct direct_range **end = &p->ranges;

	while (*end)
		end = &(*end)->next;
	self->next = NULL;
	*end = self;
	while (must_wait(p, self))
		co_queue_wait(&p->ranges_changed);
}

void direct_enter(struct posix_file *p, struct direct_range *r, uint64_t start, uint64_t end)
{
	if (!p->direct)
		return;
	r->start = round_down(p, start);
	r->end = end > INT64_MAX ? UINT64_MAX : round_up(p, end);
	r->exclusive = false;
	range_enter(p, r);
}

void direct_leave(struct posix_file *p, struct direct_range *self)
{
	struct direct_range **r = &p->ranges;

	if (!p->direct)
		return;
	while (*r != self)
		r = &(*r)->next;
	*r = self->next;
	co_queue_wake_all(&p->ranges_changed);
}

/* --- transfers --- */

static bool all_aligned(const struct posix_file *p, uint64_t offset, const struct iovec *iov,
			int niov)
{
	if (!is_aligned(p, offset))
		return false;
	for (int i = 0; i < niov; i++)
		if (((uintptr_t)iov[i].iov_base & (p->memory_alignment - 1)) != 0 ||
		    !is_aligned(p, iov[i].iov_len))
			return false;
	return true;
}

/* Reads aligned memory and adds up; *got < len only at the end of the file. */
static int read_aligned(struct posix_file *p, uint64_t offset, const struct iovec *iov, int niov,
			size_t len, size_t *got)
{
	struct iov_walk w;

	*got = 0;
	iov_walk_init(&w, iov, niov);
	while (*got < len) {
		struct iovec part[AIO_PARTS];
		size_t size;
		int n = iov_walk_peek(&w, part, AIO_PARTS, AIO_MAX_BYTES, &size);
		struct aio_transfer t = {
			.fd = p->base.fd, .iov = part, .niov = n, .offset = offset + *got};
		ssize_t r = posix_transfer(p, &t);

		if (r < 0)
			return (int)r;
		*got += (size_t)r;
		/* What is not whole blocks is the end; to ask again from there would be
		 * refused. */
		if (r == 0 || !is_aligned(p, (uint64_t)r))
			return 0;
		iov_walk_advance(&w, (size_t)r);
	}
	return 0;
}

static int write_aligned(struct posix_file *p, uint64_t offset, const struct iovec *iov, int niov,
			 size_t len)
{
	struct iov_walk w;

	iov_walk_init(&w, iov, niov);
	while (len > 0) {
		struct iovec part[AIO_PARTS];
		size_t size;
		int n = iov_walk_peek(&w, part, AIO_PARTS, AIO_MAX_BYTES, &size);
		struct aio_transfer t = {
			.fd = p->base.fd, .write = true, .iov = part, .niov = n, .offset = offset};
		ssize_t r = posix_transfer(p, &t);

		if (r < 0)
			return (int)r;
		/* A part of a block cannot be taken up again: most likely no space. */
		if (r == 0 || !is_aligned(p, (uint64_t)r))
			return r == 0 ? -EIO : -ENOSPC;
		iov_walk_advance(&w, (size_t)r);
		offset += (uint64_t)r;
		len -= (size_t)r;
	}
	return 0;
}

static void *bounce_new(const struct posix_file *p, size_t size)
{
	void *buf;
	size_t alignment = MAX(p->memory_alignment, 4096);

	return posix_memalign(&buf, alignment, size) == 0 ? buf : NULL;
}

/* How big a buffer the blocks from offset to end need, up to the limit. */
static size_t bounce_size(const struct posix_file *p, uint64_t offset, uint64_t end)
{
	return (size_t)MIN(round_up(p, end) - round_down(p, offset), BOUNCE_MAX);
}

/* Fills buf with whole blocks, zeroes past the end. want: as far as they are looked at. */
static int read_blocks(struct posix_file *p, uint64_t offset, char *buf, size_t size, size_t want)
{
	struct iovec iov = {.iov_base = buf, .iov_len = size};
	size_t got;
	int ret = read_aligned(p, offset, &iov, 1, size, &got);

	if (ret == 0 && got < want && posix_was_cut(p, offset + got))
		ret = -EIO;
	if (ret == 0)
		memset(buf + got, 0, size - got);
	return ret;
}

/* Whole blocks, through a buffer, of which the bytes from `skip` on are n of the caller's. */
struct window {
	uint64_t start;
	char *buf;
	size_t size, skip, n;
};

static int read_window(struct posix_file *p, const struct window *v, struct iov_walk *w)
{
	int ret = read_blocks(p, v->start, v->buf, v->size, v->skip + v->n);

	if (ret == 0)
		iov_walk_copy_in(w, v->buf + v->skip, v->n);
	return ret;
}

/* Of the blocks that are written in part only, the other part is read first. */
static int write_window(struct posix_file *p, const struct window *v, struct iov_walk *w)
{
	size_t block = p->base.alignment;
	struct iovec iov = {.iov_base = v->buf, .iov_len = v->size};
	bool head = v->skip > 0, tail = v->skip + v->n < v->size;
	size_t last = v->size - block;
	int ret = 0;

	if (head || (tail && last == 0))
		ret = read_blocks(p, v->start, v->buf, block, block);
	if (ret == 0 && tail && last > 0)
		ret = read_blocks(p, v->start + last, v->buf + last, block, block);
	if (ret < 0)
		return ret;
	iov_walk_copy_out(w, v->buf + v->skip, v->n);
	return write_aligned(p, v->start, &iov, 1, v->size);
}

static int bounce(struct posix_file *p, uint64_t offset, struct iov_walk *w, size_t len,
		  int (*move)(struct posix_file *p, const struct window *v, struct iov_walk *w))
{
	size_t size = bounce_size(p, offset, offset + len);
	char *buf = bounce_new(p, size);
	int ret = buf ? 0 : -ENOMEM;

	while (ret == 0 && len > 0) {
		struct window v = {.start = round_down(p, offset), .buf = buf};

		v.size = (size_t)MIN(size, round_up(p, offset + len) - v.start);
		v.skip = (size_t)(offset - v.start);
		v.n = MIN(v.size - v.skip, len);
		ret = move(p, &v, w);
		offset += v.n;
		len -= v.n;
	}
	free(buf);
	return ret;
}

int direct_readv(struct posix_file *p, uint64_t offset, const struct iovec *iov, int niov,
		 size_t len)
{
	struct iov_walk w;
	size_t got;

	iov_walk_init(&w, iov, niov);
	/* Near the greatest offset, the end of the last block would not be one. */
	if (offset + len > INT64_MAX - ALIGNMENT_MAX) {
		iov_walk_zero(&w, len);
		return 0;
	}
	if (!all_aligned(p, offset, iov, niov))
		return bounce(p, offset, &w, len, read_window);

	int ret = read_aligned(p, offset, iov, niov, len, &got);
	if (ret == 0 && got < len && posix_was_cut(p, offset + got))
		return -EIO;
	if (ret == 0 && got < len) {
		iov_walk_advance(&w, got);
		iov_walk_zero(&w, len - got);
	}
	return ret;
}

/* Does writing the whole last block make the file longer than it should be? */
static bool overshoots(const struct posix_file *p, uint64_t end)
{
	return S_ISREG(p->base.st.st_mode) && !is_aligned(p, end) &&
	       round_up(p, end) > p->base.size;
}

static void enter_write(struct posix_file *p, struct direct_range *r, uint64_t offset, uint64_t end)
{
	for (;;) {
		bool over = overshoots(p, end);

		r->start = round_down(p, offset);
		r->end = over ? UINT64_MAX : round_up(p, end);
		r->exclusive = !is_aligned(p, offset) || !is_aligned(p, end);
		range_enter(p, r);
		if (overshoots(p, end) == over)
			return;
		direct_leave(p, r); /* the size changed while it waited */
	}
}

int direct_writev(struct posix_file *p, uint64_t offset, const struct iovec *iov, int niov,
		  size_t len)
{
	uint64_t end = offset + len;
	struct direct_range range;
	struct iov_walk w;
	int ret;

	if (end > INT64_MAX - ALIGNMENT_MAX)
		return -EFBIG;
	iov_walk_init(&w, iov, niov);
	enter_write(p, &range, offset, end);
	if (all_aligned(p, offset, iov, niov))
		ret = write_aligned(p, offset, iov, niov, len);
	else
		ret = bounce(p, offset, &w, len, write_window);
	/* Also after a failure, which may have come after a part was written. */
	if (overshoots(p, end)) {
		int cut = posix_set_size(p, MAX(p->base.size, ret == 0 ? end : 0));

		ret = ret < 0 ? ret : cut;
	}
	direct_leave(p, &range);
	return ret;
}
