/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The copy engine's writing half. Encoding is done by the worker pool, a piece at a time, and in
 * the order of the disk only from there on.
 */
#include "image/copy-internal.h"

#include <errno.h>
#include <string.h>

#include "image/encode.h"

static int write_bytes(struct copy *c, uint64_t offset, const uint8_t *buf, size_t len)
{
	int ret = image_write(c->job->target, copy_place(c->job, offset), buf, len);

	if (ret < 0)
		copy_fail(c, c->job->target, "writing", copy_place(c->job, offset), ret);
	return ret;
}

int copy_zeroes(struct copy *c, uint64_t offset, uint64_t len)
{
	int ret;

	if (c->job->target_is_zero)
		return 0;
	ret = image_write_zeroes(c->job->target, copy_place(c->job, offset), len, true);
	if (ret < 0)
		copy_fail(c, c->job->target, "writing zeroes", copy_place(c->job, offset), ret);
	return ret;
}

/* How many bytes from the front of buf are alike, in whole granules: zero or not. */
static size_t alike(const uint8_t *buf, size_t len, size_t granule, bool *zero)
{
	size_t at = MIN(len, granule);

	*zero = buffer_is_zero(buf, at);
	while (at < len) {
		size_t n = MIN(len - at, granule);

		if (buffer_is_zero(buf + at, n) != *zero)
			break;
		at += n;
	}
	return at;
}

/* A granule that lies across a boundary of the disk would make holes that the host's file
 * system cannot have: the first one is cut so that the others begin at multiples. */
static int write_sparse(struct copy *c, uint64_t offset, const uint8_t *buf, size_t len)
{
	size_t granule = MAX(c->job->sparse, c->grain), done = 0;
	int ret = 0;

	while (ret == 0 && done < len) {
		uint64_t skew = copy_place(c->job, offset + done) % granule;
		size_t span = skew ? MIN(len - done, granule - skew) : len - done, n;
		bool zero;

		n = alike(buf + done, span, granule, &zero);
		ret = zero ? copy_zeroes(c, offset + done, n)
			   : write_bytes(c, offset + done, buf + done, n);
		done += n;
	}
	return ret;
}

static void pass_turn(struct piece *p)
{
	struct copy *c = p->copy;

	c->next_write = MAX(c->next_write, p->number + 1);
	co_queue_wake_all(&c->turn);
}

static void wait_for_turn(struct piece *p)
{
	struct copy *c = p->copy;

	while (!c->job->out_of_order && !c->failed && c->next_write != p->number)
		co_queue_wait(&c->turn);
}

void copy_await_turn(struct piece *p)
{
	if (p->had_turn)
		return;
	p->had_turn = true;
	wait_for_turn(p);
	pass_turn(p);
}

/* ---- encoding ------------------------------------------------------------------------------- */

static int write_unit(struct piece *p, const struct encoding *e, size_t first, size_t i)
{
	struct copy *c = p->copy;
	size_t n = MIN(e->len - i * e->unit, e->unit);
	uint64_t offset = p->offset + first + i * e->unit, to = copy_place(c->job, offset);
	int ret;

	if (e->result[i] == ENCODED_ZERO)
		return copy_zeroes(c, offset, n);
	if (e->result[i] == ENCODED_PLAIN)
		return write_bytes(c, offset, e->plain + i * e->unit, n);
	ret = image_write_coded(c->job->target, to, e->coded + i * e->unit, e->result[i]);
	if (ret < 0)
		copy_fail(c, c->job->target, "writing", to, ret);
	return ret;
}

/* first: bytes up to the first whole unit, left as they are. */
static int write_encoded(struct piece *p, const uint8_t *buf, size_t first, struct encoding *e)
{
	struct copy *c = p->copy;
	int ret = encode_units(e);

	if (ret < 0)
		copy_fail(c, c->job->target, "compressing", copy_place(c->job, p->offset), ret);
	wait_for_turn(p);
	if (ret == 0 && !c->failed && first)
		ret = write_bytes(c, p->offset, buf, first);
	for (size_t i = 0; ret == 0 && !c->failed && i * e->unit < e->len; i++)
		ret = write_unit(p, e, first, i);
	pass_turn(p);
	return ret;
}

static int encode_piece(struct piece *p, uint8_t *buf)
{
	struct copy *c = p->copy;
	uint64_t to = copy_place(c->job, p->offset);
	/* Where several disks are joined, one may begin inside of a cluster. */
	size_t unit = c->grain, first = MIN((unit - to % unit) % unit, p->len);
	size_t cut = (p->len - first) % unit;
	struct encoding e = {
		.codec = c->job->target->codec,
		.plain = buf + first,
		.len = p->len - first,
		.unit = unit,
		.padded = to + p->len == c->job->target->size,
		.find_zeroes = c->job->sparse,
		.number = (to + unit - 1) / unit,
		.result = g_new(int64_t, c->piece_size / unit + 1),
	};
	int ret = -ENOMEM;

	if (cut && e.padded)
		memset(buf + p->len, 0, unit - cut);
	e.coded = buffers_take(&c->buffers);
	if (e.coded)
		ret = write_encoded(p, buf, first, &e);
	else
		copy_fail(c, c->job->target, "allocating memory", p->offset, ret);
	buffers_give(&c->buffers, e.coded);
	g_free(e.result);
	return ret;
}

int copy_write_piece(struct piece *p, uint8_t *buf)
{
	struct copy *c = p->copy;

	if (c->job->encode)
		return encode_piece(p, buf);
	copy_await_turn(p);
	if (c->failed)
		return 0;
	if (c->job->sparse)
		return write_sparse(c, p->offset, buf, p->len);
	return write_bytes(c, p->offset, buf, p->len);
}
