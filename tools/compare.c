/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * imgtool compare. Both maps are walked together: what both call zero, and what both
 * have at the same place of the same file, is equal without being read.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "image/buffers.h"
#include "io/pool.h"
#include "tools/tool.h"

#define PIECE	   (1u << 20)	/* handed to a worker at a time */
#define STEP	   (128u << 10) /* two of them fit into a processor's own cache */
#define PEEK_MIN   (32u << 10)	/* less costs less than handing it over */
#define COROUTINES 8
#define WALK_STEP  (256u << 20)

enum { SAME = 0, DIFFERENT = 1, OPEN_FAILED = 2, MAP_FAILED = 3, READ_FAILED = 4 };

static const struct opt options[] = {
	OPT_FORMAT,
	{'F', NULL, "FMT", "format of the second image (default: found out)"},
	{'s', NULL, NULL, "strict: sizes and allocation must agree too"},
	{'p', NULL, NULL, "show progress"},
	OPT_QUIET,
	{'T', NULL, "CACHE", "cache mode of both images (default: writeback)"},
	OPTS_OPEN,
	{0},
};

struct compare {
	struct image *a, *b;
	bool strict, quiet;
	uint64_t common, total; /* bytes */
	struct co_group group;
	struct buffers buffers; /* each holds a step of both images */
	struct progress progress;
	uint64_t mismatch; /* lowest found, UINT64_MAX: none */
	int status;	   /* MAP_FAILED, READ_FAILED */
};

/* Some steps, one after the other. offset and len are what is still to be judged. */
struct piece {
	struct compare *c;
	struct image *a, *b; /* NULL: zeroes */
	struct extent ea, eb;
	uint64_t offset, len;
	uint8_t *x, *y;	   /* a step of a and of b */
	uint64_t mismatch; /* UINT64_MAX: none so far */
};

static bool same_file(struct file *x, struct file *y)
{
	const struct stat *s = file_stat(x), *t = file_stat(y);

	return x == y || (file_fd(x) >= 0 && file_fd(y) >= 0 && s->st_dev == t->st_dev &&
			  s->st_ino == t->st_ino);
}

/* Proof of equality without reading. Both extents begin at the same offset. */
static bool known_equal(const struct extent *x, const struct extent *y)
{
	if (extent_is_zero(x) && extent_is_zero(y))
		return true;
	return x->kind == EXTENT_DATA && y->kind == EXTENT_DATA && !x->cryptor && !y->cryptor &&
	       x->host == y->host && same_file(x->file, y->file);
}

/* ---- pieces ---------------------------------------------------------------------------------- */

static int read_side(struct piece *p, struct image *img, const struct extent *e, void *buf,
		     size_t len)
{
	int ret = e->kind == EXTENT_DATA ? image_read_extent(img, e, p->offset, buf, len)
					 : image_read(img, p->offset, buf, len);

	if (ret == 0)
		return 0;
	if (!p->c->status)
		tool_error("Error while reading offset %" G_GUINT64_FORMAT " of %s: %s", p->offset,
			   img->filename, tool_cause(img, ret));
	p->c->status = READ_FAILED;
	return ret;
}

/* Steps end at multiples of STEP, so that no cluster is read twice. */
static size_t next_step(const struct piece *p)
{
	return MIN(p->len, STEP - p->offset % STEP);
}

/* Of the bytes that were read. qemu-img tells the sector, not the byte, and so do we. */
static void judge_step(struct piece *p, size_t len)
{
	const uint8_t *x = p->a ? p->x : p->y, *y = p->a && p->b ? p->y : NULL;

	if (y ? memcmp(x, y, len) != 0 : !buffer_is_zero(x, len)) {
		size_t at = 0;

		while (at < len && x[at] == (y ? y[at] : 0))
			at++;
		p->mismatch = (p->offset + at) & ~G_GUINT64_CONSTANT(511);
	}
	p->offset += len;
	p->len -= len;
}

static bool unfinished(const struct piece *p)
{
	return p->len > 0 && p->mismatch == UINT64_MAX;
}

/* On a worker, and so in its own caches: as far as nothing has to be waited for. */
static int judge_at_hand(void *arg)
{
	struct piece *p = arg;

	while (unfinished(p)) {
		size_t n = next_step(p);

		if ((p->a && image_peek_extent(&p->ea, p->offset, p->x, n) != n) ||
		    (p->b && image_peek_extent(&p->eb, p->offset, p->y, n) != n))
			break;
		judge_step(p, n);
	}
	return 0;
}

/* Is it worth a hand-over? */
static bool may_be_at_hand(const struct piece *p)
{
	return p->len >= PEEK_MIN && (!p->a || p->ea.kind == EXTENT_DATA) &&
	       (!p->b || p->eb.kind == EXTENT_DATA);
}

static int compare_piece(struct piece *p)
{
	int ret = 0;

	if (may_be_at_hand(p))
		pool_run(judge_at_hand, p);
	while (ret == 0 && unfinished(p)) {
		size_t n = next_step(p);

		if (p->a)
			ret = read_side(p, p->a, &p->ea, p->x, n);
		if (ret == 0 && p->b)
			ret = read_side(p, p->b, &p->eb, p->y, n);
		if (ret == 0)
			judge_step(p, n);
	}
	p->c->mismatch = MIN(p->c->mismatch, p->mismatch);
	return ret;
}

static int piece_run(void *arg)
{
	struct piece *p = arg;
	void *buf = NULL;
	int ret = 0;

	if (p->c->status || p->offset > p->c->mismatch) {
		/* nothing more to find out here */
	} else if (!(buf = buffers_take(&p->c->buffers))) {
		p->c->status = READ_FAILED;
		tool_error("Out of memory");
	} else {
		p->x = buf;
		p->y = p->x + STEP;
		ret = compare_piece(p);
		progress_update(&p->c->progress, p->offset, p->c->total);
	}
	buffers_give(&p->c->buffers, buf);
	g_free(p);
	return ret;
}

static void spawn_pieces(struct compare *c, const struct extent *ea, const struct extent *eb,
			 uint64_t offset, uint64_t len)
{
	uint64_t end = offset + len;

	while (offset < end && !c->status && c->mismatch == UINT64_MAX && !tool_interrupted()) {
		struct piece *p = g_new0(struct piece, 1);

		p->c = c;
		p->ea = *ea;
		p->eb = *eb;
		p->a = extent_is_zero(ea) ? NULL : c->a;
		p->b = extent_is_zero(eb) ? NULL : c->b;
		p->offset = offset;
		p->len = MIN(end - offset, PIECE - offset % PIECE);
		p->mismatch = UINT64_MAX;
		offset += p->len;
		co_group_spawn(&c->group, piece_run, p);
	}
}

/* ---- the walk -------------------------------------------------------------------------------- */

static bool map(struct compare *c, struct image *img, uint64_t offset, uint64_t len,
		struct extent *e)
{
	int ret = image_map_run(img, offset, len, NULL, e);

	if (ret == 0)
		return true;
	c->status = MAP_FAILED;
	tool_error("Sector allocation test failed for %s at offset %" G_GUINT64_FORMAT ": %s",
		   img->filename, offset, tool_cause(img, ret));
	return false;
}

/* What strict mode compares: what an allocation looks like, not where it is. */
static bool same_status(const struct extent *x, const struct extent *y)
{
	return (x->kind == EXTENT_HOLE) == (y->kind == EXTENT_HOLE) &&
	       extent_is_zero(x) == extent_is_zero(y);
}

/* Returns false when there is no need to go on. */
static bool compare_common(struct compare *c)
{
	uint64_t offset = 0;

	while (offset < c->common && !c->status && c->mismatch == UINT64_MAX &&
	       !tool_interrupted()) {
		struct extent ea = {0}, eb = {0};
		uint64_t n = MIN(c->common - offset, WALK_STEP);

		if (!map(c, c->a, offset, n, &ea))
			break;
		/* No further than needed: looking far ahead in a raw file and coming back asks
		 * the host again, which walks its page tables. */
		n = ea.len;
		if (!map(c, c->b, offset, n, &eb))
			break;
		n = MIN(n, eb.len);
		if (c->strict && !same_status(&ea, &eb)) {
			/* A difference of content further in front is told first. */
			co_group_wait(&c->group);
			if (c->mismatch == UINT64_MAX && !c->status) {
				if (!c->quiet)
					printf("Strict mode: Offset %" G_GUINT64_FORMAT
					       " block status mismatch!\n",
					       offset);
				c->status = DIFFERENT;
			}
			break;
		}
		if (!known_equal(&ea, &eb))
			spawn_pieces(c, &ea, &eb, offset, n);
		offset += n;
		progress_update(&c->progress, offset, c->total);
	}
	co_group_wait(&c->group);
	return !c->status && c->mismatch == UINT64_MAX && !tool_interrupted();
}

/* What the larger image has behind the smaller one's end must be zeroes. */
static void compare_tail(struct compare *c)
{
	bool a_larger = c->a->size > c->b->size;
	struct image *large = a_larger ? c->a : c->b;
	uint64_t offset = c->common;

	while (offset < c->total && !c->status && c->mismatch == UINT64_MAX &&
	       !tool_interrupted()) {
		struct extent e = {0}, zero = {.kind = EXTENT_ZERO};

		if (!map(c, large, offset, MIN(c->total - offset, WALK_STEP), &e))
			break;
		if (!extent_is_zero(&e))
			spawn_pieces(c, a_larger ? &e : &zero, a_larger ? &zero : &e, offset,
				     e.len);
		offset += e.len;
		progress_update(&c->progress, offset, c->total);
	}
	co_group_wait(&c->group);
}

static int verdict(struct compare *c)
{
	if (c->status)
		return c->status;
	if (tool_interrupted())
		return READ_FAILED;
	if (c->mismatch != UINT64_MAX) {
		if (!c->quiet)
			printf("Content mismatch at offset %" G_GUINT64_FORMAT "!\n", c->mismatch);
		return DIFFERENT;
	}
	if (!c->quiet)
		printf("Images are identical.\n");
	return SAME;
}

static int compare(struct compare *c, bool show_progress)
{
	int status;

	c->common = MIN(c->a->size, c->b->size);
	c->total = MAX(c->a->size, c->b->size);
	c->mismatch = UINT64_MAX;
	if (c->strict && c->common != c->total) {
		if (!c->quiet)
			printf("Strict mode: Image size mismatch!\n");
		return DIFFERENT;
	}
	co_group_init(&c->group, COROUTINES);
	c->buffers.size = 2 * (size_t)STEP;
	progress_begin(&c->progress, show_progress && !c->quiet, 2);
	if (compare_common(c) && c->common != c->total) {
		if (!c->quiet)
			printf("Warning: Image size mismatch!\n");
		compare_tail(c);
	}
	buffers_clear(&c->buffers);
	status = verdict(c);
	progress_end(&c->progress);
	return status;
}

static int run(struct args *args)
{
	struct tool_source s = {.format = opt_value(args, 'f'),
				.flags = IMAGE_NO_READ_AHEAD,
				.cache = opt_value(args, 'T'),
				.cache_wrong = "Invalid source cache option",
				.with_image_opts = opt_given(args, OPT_IMAGE_OPTS)};
	struct compare c = {.strict = opt_given(args, 's'), .quiet = opt_given(args, 'q')};
	enum cache_mode mode;
	int status = OPEN_FAILED;

	if (args->n != 2)
		return tool_usage(args, "Expecting two image file names");
	if (s.with_image_opts && (opt_given(args, 'f') || opt_given(args, 'F'))) {
		tool_error("--image-opts and --format are mutually exclusive");
		return 1;
	}
	if (!tool_check_common(args))
		return 1;
	if (s.cache && !cache_mode_parse(s.cache, &mode)) {
		tool_error("Invalid source cache option: %s", s.cache);
		return 1;
	}
	c.a = tool_open(args, args->operands[0], &s);
	s.format = opt_value(args, 'F');
	if (c.a)
		c.b = tool_open(args, args->operands[1], &s);
	if (c.a && c.b)
		status = compare(&c, opt_given(args, 'p'));
	image_unref(c.b);
	image_unref(c.a);
	return status;
}

const struct command command_compare = {
	.name = "compare",
	.run = run,
	.options = options,
	.operands = "FILE1 FILE2",
	.summary = "Tell whether two images have the same content",
	.examples = {"compare disk.qcow2 disk.raw", "compare -q -F raw disk.qcow2 copy.img",
		     "compare -s -p old.qcow2 new.qcow2"},
};
