/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Comparing: the calling coroutine walks both maps together; each piece that they do not prove to
 * be equal has a coroutine of its own. What is in the page cache is read and compared on a worker;
 * what differs, or must be waited for, by the loop.
 */
#include "image/compare.h"

#include <errno.h>
#include <string.h>

#include "image/buffers.h"
#include "image/image.h"
#include "io/pool.h"

#define PIECE	  (1u << 20)   /* handed to a worker at a time */
#define STEP	  (128u << 10) /* two of them fit into a processor's own cache */
#define PEEK_MIN  (32u << 10)  /* less costs less than handing it over */
#define WALK_STEP (256u << 20) /* progress shows and cancelling works within large zero runs */

struct compare {
	const struct compare_job *job;
	struct co_group group;
	size_t step, piece;	/* bytes: multiples of align */
	struct buffers buffers; /* each holds a step of both images */
	struct co_queue turn;
	uint64_t next_piece, next_turn;
	enum compare_end end; /* not COMPARE_DONE: nothing more is begun */
	GError *error;
};

struct piece {
	struct compare *c;
	struct extent x_extent, y_extent; /* valid when exact */
	bool exact;			  /* the piece lies inside both extents */
	uint64_t offset, number;
	size_t len;	/* from offset on: what is still to be compared */
	uint8_t *x, *y; /* a step of each */
};

/* The file of a layer that is opened twice is two objects, which fstat tells to be one. */
static bool same_file(struct file *x, struct file *y)
{
	return x == y ||
	       (file_fd(x) >= 0 && file_fd(y) >= 0 && stat_same_file(file_stat(x), file_stat(y)));
}

bool extent_known_equal(const struct extent *x, const struct extent *y)
{
	if (extent_is_zero(x) && extent_is_zero(y))
		return true;
	if (x->kind != y->kind || extent_is_zero(x))
		return false;
	/* The same layer of the same open image says it of both. */
	if (x->layer && x->layer == y->layer)
		return true;
	if (x->cryptor || y->cryptor || x->host != y->host || !same_file(x->file, y->file))
		return false;
	/* Of joined coded units only the first one's place is known. */
	return x->kind == EXTENT_DATA ||
	       (x->coded_len && x->coded_len == y->coded_len && x->codec == y->codec &&
		x->unit_start == y->unit_start && x->unit_len == y->unit_len);
}

/* ---- pieces ---------------------------------------------------------------------------------- */

static void end_with(struct compare *c, enum compare_end end)
{
	if (c->end == COMPARE_DONE)
		c->end = end;
	co_queue_wake_all(&c->turn);
}

/* Waits until every earlier piece was examined, or all is at an end. */
static void await_turn(struct piece *p)
{
	struct compare *c = p->c;

	while (c->job->in_order && c->end == COMPARE_DONE && c->next_turn != p->number)
		co_queue_wait(&c->turn);
}

static void pass_turn(struct piece *p)
{
	p->c->next_turn++;
	co_queue_wake_all(&p->c->turn);
}

/* Steps end at multiples of their size, so that no cluster is read twice. */
static size_t next_step(const struct piece *p)
{
	return MIN(p->len, p->c->step - p->offset % p->c->step);
}

static void advance(struct piece *p, size_t n)
{
	p->offset += n;
	p->len -= n;
}

static bool same(const uint8_t *x, const uint8_t *y, size_t len)
{
	if (x && y)
		return memcmp(x, y, len) == 0;
	return !x && !y ? true : buffer_is_zero(x ? x : y, len);
}

static bool needs_reading(const struct piece *p, struct image *img, const struct extent *e)
{
	return img && p->offset < img->size && !(p->exact && extent_is_zero(e));
}

/* On a worker, and so in its own caches: as far as all is equal and nothing is waited for. */
static int skip_at_hand(void *arg)
{
	struct piece *p = arg;
	bool with_x = !extent_is_zero(&p->x_extent), with_y = !extent_is_zero(&p->y_extent);

	while (p->len > 0) {
		size_t n = next_step(p);

		if ((with_x && image_peek_extent(&p->x_extent, p->offset, p->x, n) != n) ||
		    (with_y && image_peek_extent(&p->y_extent, p->offset, p->y, n) != n) ||
		    !same(with_x ? p->x : NULL, with_y ? p->y : NULL, n))
			break;
		advance(p, n);
	}
	return 0;
}

/* Is it worth a hand-over? */
static bool may_be_at_hand(const struct piece *p)
{
	return p->exact && p->len >= PEEK_MIN && p->x_extent.kind != EXTENT_CODED &&
	       p->y_extent.kind != EXTENT_CODED;
}

/* A step of one side; what lies behind the disk's end is zeroes. */
static int read_side(const struct piece *p, struct image *img, const struct extent *e, uint8_t *buf,
		     size_t len)
{
	size_t n = MIN(len, img->size - p->offset);

	memset(buf + n, 0, len - n);
	/* Joined coded units cannot be read as one extent. */
	if (p->exact && e->kind == EXTENT_DATA)
		return image_read_extent(img, e, p->offset, buf, n);
	return image_read(img, p->offset, buf, n);
}

static int read_step(struct piece *p, size_t n, const uint8_t **x, const uint8_t **y,
		     struct image **failed)
{
	const struct compare_job *job = p->c->job;
	int ret = 0;

	*x = needs_reading(p, job->a, &p->x_extent) ? p->x : NULL;
	*y = needs_reading(p, job->b, &p->y_extent) ? p->y : NULL;
	*failed = job->a;
	if (*x)
		ret = read_side(p, job->a, &p->x_extent, p->x, n);
	if (ret < 0 || !*y)
		return ret;
	*failed = job->b;
	return read_side(p, job->b, &p->y_extent, p->y, n);
}

static void fail_reading(struct piece *p, struct image *img, int ret)
{
	struct compare *c = p->c;

	await_turn(p);
	if (c->end == COMPARE_DONE)
		g_set_error(&c->error, IMAGE_ERROR, IMAGE_ERROR_FAILED,
			    "Error while reading offset %" G_GUINT64_FORMAT " of %s: %s", p->offset,
			    img->filename, image_cause(img, ret));
	end_with(c, COMPARE_NOT_READ);
}

static void compare_piece(struct piece *p)
{
	struct compare *c = p->c;

	if (may_be_at_hand(p))
		pool_run(skip_at_hand, p);
	while (p->len > 0 && c->end == COMPARE_DONE) {
		const uint8_t *x, *y;
		struct image *failed;
		size_t n = next_step(p);
		int ret = read_step(p, n, &x, &y, &failed);

		if (ret < 0) {
			fail_reading(p, failed, ret);
			return;
		}
		if (!same(x, y, n)) {
			await_turn(p);
			if (c->end != COMPARE_DONE)
				return;
			ret = c->job->examine(c->job->arg, p->offset, x, y, n);
			if (ret)
				end_with(c, ret < 0 ? COMPARE_FAILED : COMPARE_STOPPED);
		}
		advance(p, n);
	}
	if (c->job->progress)
		c->job->progress(c->job->arg, p->offset);
}

static int piece_run(void *arg)
{
	struct piece *p = arg;
	struct compare *c = p->c;

	if (c->end != COMPARE_DONE) {
		/* nothing more to find out here */
	} else if ((p->x = buffers_take(&c->buffers))) {
		p->y = p->x + c->step;
		compare_piece(p);
	} else {
		if (!c->error)
			g_set_error(&c->error, IMAGE_ERROR, IMAGE_ERROR_FAILED, "Out of memory");
		end_with(c, COMPARE_NOT_READ);
	}
	await_turn(p);
	pass_turn(p);
	buffers_give(&c->buffers, p->x);
	g_free(p);
	return 0;
}

static bool goes_on(struct compare *c)
{
	if (c->end == COMPARE_DONE && c->job->cancelled && c->job->cancelled(c->job->arg))
		end_with(c, COMPARE_STOPPED);
	return c->end == COMPARE_DONE;
}

/* [from, to), of which the extents cover what lies in [known, known_end). */
static void spawn_pieces(struct compare *c, const struct extent *x, const struct extent *y,
			 uint64_t from, uint64_t to, uint64_t known_end)
{
	uint64_t piece = c->piece;

	while (from < to && goes_on(c)) {
		struct piece *p = g_new0(struct piece, 1);

		p->c = c;
		p->x_extent = *x;
		p->y_extent = *y;
		p->offset = from;
		p->len = MIN(to - from, piece - from % piece);
		p->exact = from >= x->start && from + p->len <= known_end;
		p->number = c->next_piece++;
		from += p->len;
		co_group_spawn(&c->group, piece_run, p);
	}
}

/* ---- the walk -------------------------------------------------------------------------------- */

static bool map_side(struct compare *c, struct image *img, uint64_t offset, uint64_t len,
		     struct extent *e)
{
	int ret;

	*e = (struct extent){.start = offset, .len = len, .kind = EXTENT_ZERO};
	if (!img || offset >= img->size)
		return true;
	ret = image_map_run(img, offset, MIN(len, img->size - offset), NULL, e);
	if (ret == 0)
		return true;
	/* What was found out in front of it comes first. */
	co_group_wait(&c->group);
	if (c->end == COMPARE_DONE)
		g_set_error(&c->error, IMAGE_ERROR, IMAGE_ERROR_FAILED,
			    "Sector allocation test failed for %s at offset %" G_GUINT64_FORMAT
			    ": %s",
			    img->filename, offset, image_cause(img, ret));
	end_with(c, COMPARE_NOT_MAPPED);
	return false;
}

static void note_unalike(struct compare *c, uint64_t offset, uint64_t *at)
{
	co_group_wait(&c->group);
	if (c->end == COMPARE_DONE && at)
		*at = offset;
	end_with(c, COMPARE_UNALIKE);
}

/* All of [from, to) is wanted. */
static void walk_window(struct compare *c, uint64_t from, uint64_t to, uint64_t *unalike)
{
	const struct compare_job *job = c->job;
	uint64_t at = from, done = from; /* pieces were made up to there */

	while (at < to && goes_on(c)) {
		struct extent x, y;
		uint64_t n, start, end;

		/* The second no further than the first: looking far ahead in a raw file and
		 * coming back asks the host again, which walks its page tables. */
		if (!map_side(c, job->a, at, to - at, &x) || !map_side(c, job->b, at, x.len, &y))
			return;
		n = MIN(x.len, y.len);
		if (job->alike && !job->alike(job->arg, &x, &y)) {
			note_unalike(c, at, unalike);
			return;
		}
		if (extent_known_equal(&x, &y)) {
			at += n;
		} else {
			start = MAX(at - at % job->align, done);
			end = at + n + job->align - 1;
			end = MIN(end - end % job->align, to);
			spawn_pieces(c, &x, &y, start, end, at + n);
			at = done = end;
		}
		if (job->progress)
			job->progress(job->arg, at);
	}
}

static void walk(struct compare *c, uint64_t *unalike)
{
	const struct compare_job *job = c->job;
	uint64_t offset = job->start, end = job->start + job->len;

	while (offset < end && goes_on(c)) {
		uint64_t n = MIN(end - offset, WALK_STEP - offset % WALK_STEP);
		int wanted = job->wanted ? job->wanted(job->arg, offset, &n) : 1;

		if (wanted < 0)
			end_with(c, COMPARE_FAILED);
		else if (wanted)
			walk_window(c, offset, offset + n, unalike);
		else if (job->progress)
			job->progress(job->arg, offset + n);
		offset += n;
	}
}

enum compare_end image_compare(const struct compare_job *job, uint64_t *at, GError **error)
{
	struct compare c = {.job = job};

	g_assert(job->align >= 1 && job->align <= COMPARE_ALIGN_MAX && job->coroutines >= 1);
	c.step = MAX(STEP, job->align);
	c.piece = MAX(PIECE, c.step);
	c.buffers.size = 2 * c.step;
	co_group_init(&c.group, job->coroutines);
	walk(&c, at);
	co_group_wait(&c.group);
	buffers_clear(&c.buffers);
	if (c.error && (c.end == COMPARE_NOT_MAPPED || c.end == COMPARE_NOT_READ))
		g_propagate_error(error, c.error);
	else
		g_clear_error(&c.error);
	return c.end;
}
