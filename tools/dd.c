/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * imgtool dd. count= is the number of blocks to copy, after skip=, as the manual and dd(1)
 * say (qemu-img itself counts from the front of the image).
 */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "image/copy.h"
#include "tools/target.h"

static const struct opt options[] = {
	OPT_FORMAT,
	{'O', NULL, "FMT", "format of the output (default: raw)"},
	OPTS_OPEN,
	{0},
};

struct dd {
	const char *in, *out;
	uint64_t bs, count, skip;
	bool has_count;
};

/* One word=value; false after saying why. */
static bool take_operand(struct dd *dd, const char *word)
{
	const char *equals = strchr(word, '=');
	g_autofree char *key = equals ? g_strndup(word, equals - word) : g_strdup(word);
	const char *value = equals ? equals + 1 : NULL;

	if (value && strcmp(key, "if") == 0) {
		dd->in = value;
		return true;
	}
	if (value && strcmp(key, "of") == 0) {
		dd->out = value;
		return true;
	}
	if (value && strcmp(key, "bs") == 0)
		return tool_size(value, "bs", 1, INT_MAX, &dd->bs);
	if (value && strcmp(key, "skip") == 0)
		return tool_size(value, "skip", 0, INT64_MAX, &dd->skip);
	if (value && strcmp(key, "count") == 0) {
		dd->has_count = true;
		return tool_size(value, "count", 0, INT64_MAX, &dd->count);
	}
	tool_error("unrecognized operand %s", key);
	return false;
}

/* The window of the input, bytes. */
static void find_window(const struct dd *dd, uint64_t size, uint64_t *start, uint64_t *len)
{
	uint64_t wanted;

	if (__builtin_mul_overflow(dd->skip, dd->bs, start) || *start > size)
		*start = size;
	*len = size - *start;
	if (dd->has_count && !__builtin_mul_overflow(dd->count, dd->bs, &wanted))
		*len = MIN(*len, wanted);
}

static bool copy(struct args *args, const struct dd *dd, const struct format *format,
		 struct image *source)
{
	struct tool_source s = {.format = format->name, .flags = IMAGE_RDWR};
	struct target target = {.name = dd->out, .create = true};
	struct options *o = options_new();
	struct copy_job job = {.source = source,
			       .sparse = COPY_SPARSE_DEFAULT,
			       .coroutines = COPY_COROUTINES_DEFAULT,
			       .cancelled = tool_cancelled};
	g_autofree char *size = NULL;
	GError *error = NULL;
	bool ok;

	find_window(dd, source->size, &job.start, &job.len);
	if (dd->skip && job.start >= source->size && source->size)
		tool_error("%s: cannot skip to specified offset", dd->in);
	size = g_strdup_printf("%" G_GUINT64_FORMAT, (job.len + 511) & ~G_GUINT64_CONSTANT(511));
	options_set(o, "size", size);
	ok = !target_is_source(dd->out, &source, 1) && target_open(args, &target, format, o, &s);
	options_free(o);
	if (!ok)
		return false;
	job.target = target.img;
	job.target_is_zero = target.is_zero;
	if (job.len)
		image_copy(&job, &error);
	return target_close(&target, error);
}

static int run(struct args *args)
{
	struct dd dd = {.bs = 512};
	const char *word = opt_value(args, 'O');
	const struct format *format;
	struct tool_source s = {.format = opt_value(args, 'f'),
				.flags = opt_given(args, 'U') ? 0 : IMAGE_NO_SHARE_WRITE,
				.with_image_opts = opt_given(args, OPT_IMAGE_OPTS)};
	struct image *source;
	bool ok;

	for (int i = 0; i < args->n; i++)
		if (!take_operand(&dd, args->operands[i]))
			return 1;
	if (!dd.in || !dd.out) {
		tool_error("Must specify both input and output files");
		return 1;
	}
	if (!tool_check_common(args))
		return 1;
	format = target_format(word ? word : "raw");
	source = format ? tool_open(args, dd.in, &s) : NULL;
	if (!source)
		return 1;
	ok = copy(args, &dd, format, source);
	image_unref(source);
	return ok ? 0 : 1;
}

const struct command command_dd = {
	.name = "dd",
	.run = run,
	.options = options,
	.operands = "[bs=SIZE] [count=BLOCKS] [skip=BLOCKS] if=FILE of=FILE",
	.summary = "Copy a part of a disk into a new image",
	.examples = {"dd if=disk.qcow2 of=disk.raw", "dd bs=1M count=1 if=disk.qcow2 of=head.raw",
		     "dd bs=1M skip=1 count=100 if=disk.qcow2 of=part.raw"},
};
