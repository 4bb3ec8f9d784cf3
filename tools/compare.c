/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * imgtool compare: ends at the first difference, as qemu-img does, or with --all tells every
 * differing range of sectors.
 */
#include <stdio.h>
#include <string.h>

#include "image/compare.h"
#include "tools/tool.h"

#define COROUTINES 8
#define SECTOR	   512u

enum { SAME = 0, DIFFERENT = 1, OPEN_FAILED = 2, MAP_FAILED = 3, READ_FAILED = 4 };

static const struct opt options[] = {
	OPT_FORMAT,
	{'F', NULL, "FMT", "format of the second image (default: found out)"},
	{'s', NULL, NULL, "strict: sizes and allocation must agree too"},
	{OPT_ALL, "all", NULL, "tell every range that differs, in whole sectors"},
	{OPT_OUTPUT, "output", "human|json", "with --all: how to print (default: human)"},
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
	struct progress progress;
	uint64_t mismatch; /* lowest found, UINT64_MAX: none */

	bool all;
	struct report *report; /* JSON of --all; NULL: text, or quiet */
	/* The last range of --all, not told yet because it may go on; the sums of all. */
	uint64_t start, end, ranges, bytes;
};

static void on_progress(void *arg, uint64_t offset)
{
	struct compare *c = arg;

	progress_update(&c->progress, offset, c->total);
}

/* ---- differences ----------------------------------------------------------------------------- */

static bool sector_differs(const uint8_t *x, const uint8_t *y, size_t len)
{
	if (x && y)
		return memcmp(x, y, len) != 0;
	return !buffer_is_zero(x ? x : y, len);
}

/* qemu-img tells the sector, not the byte, and so do we. */
static int find_first(void *arg, uint64_t offset, const uint8_t *x, const uint8_t *y, size_t len)
{
	struct compare *c = arg;
	size_t at = 0;

	if (!sector_differs(x, y, len))
		return 0;
	/* A piece may begin within a sector: where the smaller disk ends. */
	for (size_t n; at < len; at += n) {
		n = MIN(len - at, SECTOR - (offset + at) % SECTOR);
		if (sector_differs(x ? x + at : NULL, y ? y + at : NULL, n))
			break;
	}
	offset += at;
	c->mismatch = offset - offset % SECTOR;
	return 1;
}

static void tell_range(struct compare *c)
{
	if (c->end == c->start)
		return;
	c->ranges++;
	c->bytes += c->end - c->start;
	if (c->report) {
		report_begin_object(c->report, NULL);
		report_uint(c->report, "start", c->start);
		report_uint(c->report, "length", c->end - c->start);
		report_end_object(c->report);
	} else if (!c->quiet) {
		if (c->ranges == 1)
			printf("%-16s%-16s\n", "Offset", "Length");
		printf("%#-16" G_GINT64_MODIFIER "x%#-16" G_GINT64_MODIFIER "x\n", c->start,
		       c->end - c->start);
	}
}

static int find_all(void *arg, uint64_t offset, const uint8_t *x, const uint8_t *y, size_t len)
{
	struct compare *c = arg;

	if (!sector_differs(x, y, len))
		return 0;
	for (size_t at = 0, n; at < len; at += n) {
		uint64_t start = (offset + at) - (offset + at) % SECTOR;

		n = MIN(len - at, SECTOR - (offset + at) % SECTOR);
		if (!sector_differs(x ? x + at : NULL, y ? y + at : NULL, n))
			continue;
		if (start > c->end || c->end == c->start) {
			tell_range(c);
			c->start = start;
		}
		c->end = MIN(start + SECTOR, c->total);
	}
	return 0;
}

/* What strict mode compares: what an allocation looks like, not where it is. */
static bool same_status(void *arg, const struct extent *x, const struct extent *y)
{
	return (x->kind == EXTENT_HOLE) == (y->kind == EXTENT_HOLE) &&
	       extent_is_zero(x) == extent_is_zero(y);
}

/* ---- the two parts --------------------------------------------------------------------------- */

/* One of SAME, DIFFERENT and the failures; DIFFERENT only where that ends the command. */
static int compare_range(struct compare *c, uint64_t start, uint64_t end)
{
	struct compare_job job = {
		.a = c->a,
		.b = c->b,
		.start = start,
		.len = end - start,
		.align = 1,
		.coroutines = COROUTINES,
		.in_order = true,
		.alike = c->strict ? same_status : NULL,
		.examine = c->all ? find_all : find_first,
		.progress = on_progress,
		.cancelled = tool_cancelled,
		.arg = c,
	};
	GError *error = NULL;
	uint64_t at = 0;
	enum compare_end how = image_compare(&job, &at, &error);

	if (error)
		tool_say(error, NULL);
	switch (how) {
	case COMPARE_DONE:
		return SAME;
	case COMPARE_UNALIKE:
		if (!c->quiet)
			printf("Strict mode: Offset %" G_GUINT64_FORMAT " block status mismatch!\n",
			       at);
		return DIFFERENT;
	case COMPARE_NOT_MAPPED:
		return MAP_FAILED;
	case COMPARE_STOPPED:
		if (c->mismatch == UINT64_MAX)
			return READ_FAILED; /* interrupted */
		if (!c->quiet)
			printf("Content mismatch at offset %" G_GUINT64_FORMAT "!\n", c->mismatch);
		return DIFFERENT;
	default:
		return READ_FAILED;
	}
}

static int compare(struct compare *c)
{
	int status;

	if (c->strict && c->common != c->total) {
		if (!c->quiet)
			printf("Strict mode: Image size mismatch!\n");
		return DIFFERENT;
	}
	status = compare_range(c, 0, c->common);
	if (status != SAME)
		return status;
	if (c->common != c->total && !c->quiet && !c->report)
		printf("Warning: Image size mismatch!\n");
	/* What the larger image has behind the smaller one's end must be zeroes. */
	if (c->common != c->total)
		status = compare_range(c, c->common, c->total);
	if (status == SAME && !c->quiet && !c->all)
		printf("Images are identical.\n");
	return status;
}

static int compare_all(struct compare *c, bool json)
{
	int status;

	if (json && !c->quiet) {
		c->report = report_new_stream(stdout, REPORT_JSON, 0);
		report_begin_object(c->report, NULL);
		report_begin_array(c->report, "differences");
	}
	status = compare(c);
	tell_range(c);
	if (status == SAME && c->ranges)
		status = DIFFERENT;
	if (c->report) {
		report_end_array(c->report);
		report_uint(c->report, "differing-bytes", c->bytes);
		report_bool(c->report, "complete", status <= DIFFERENT);
		report_bool(c->report, "identical", status == SAME);
		report_end_object(c->report);
		report_free(c->report);
	} else if (!c->quiet && status == SAME) {
		printf("Images are identical.\n");
	} else if (!c->quiet && status == DIFFERENT) {
		printf("%" G_GUINT64_FORMAT " ranges differ, %" G_GUINT64_FORMAT " bytes.\n",
		       c->ranges, c->bytes);
	}
	return status;
}

/* ---- the command ----------------------------------------------------------------------------- */

static bool check_switches(struct args *args, bool *json)
{
	enum cache_mode mode;
	const char *cache = opt_value(args, 'T');

	if (opt_given(args, OPT_IMAGE_OPTS) && (opt_given(args, 'f') || opt_given(args, 'F'))) {
		tool_error("--image-opts and --format are mutually exclusive");
		return false;
	}
	if (!tool_check_common(args) || !tool_output_is_json(args, json))
		return false;
	if (opt_given(args, OPT_ALL) && opt_given(args, 's')) {
		tool_error("--all tells differences of content, which -s does not go by");
		return false;
	}
	if (opt_given(args, OPT_OUTPUT) && !opt_given(args, OPT_ALL)) {
		tool_error("--output requires --all");
		return false;
	}
	if (cache && !cache_mode_parse(cache, &mode)) {
		tool_error("Invalid source cache option: %s", cache);
		return false;
	}
	return true;
}

static int compare_opened(struct compare *c, bool show_progress, bool json)
{
	int status;

	c->common = MIN(c->a->size, c->b->size);
	c->total = MAX(c->a->size, c->b->size);
	c->mismatch = UINT64_MAX;
	/* Ranges are rows on the same stream. */
	progress_begin(&c->progress, show_progress && !c->quiet && !c->all, 2);
	status = c->all ? compare_all(c, json) : compare(c);
	progress_end(&c->progress);
	return status;
}

static int run(struct args *args)
{
	struct tool_source s = {.format = opt_value(args, 'f'),
				.flags = IMAGE_NO_READ_AHEAD,
				.cache = opt_value(args, 'T'),
				.with_image_opts = opt_given(args, OPT_IMAGE_OPTS)};
	struct compare c = {.strict = opt_given(args, 's'),
			    .quiet = opt_given(args, 'q'),
			    .all = opt_given(args, OPT_ALL)};
	int status = OPEN_FAILED;
	bool json;

	if (args->n != 2)
		return tool_usage(args, "Expecting two image file names");
	if (!check_switches(args, &json))
		return 1;
	c.a = tool_open(args, args->operands[0], &s);
	s.format = opt_value(args, 'F');
	if (c.a)
		c.b = tool_open(args, args->operands[1], &s);
	if (c.a && c.b)
		status = compare_opened(&c, opt_given(args, 'p'), json);
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
		     "compare --all --output=json old.qcow2 new.qcow2"},
};
