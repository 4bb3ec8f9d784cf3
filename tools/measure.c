/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* imgtool measure */
#include <stdio.h>
#include <string.h>

#include "tools/tool.h"

static const struct opt options[] = {
	OPT_FORMAT,
	OPT_FORMAT_OUTPUT,
	{'O', NULL, "FMT", "format of the new file (default: raw)"},
	{'o', NULL, "OPTIONS", "its options: name=value,..."},
	{'l', NULL, "SNAPSHOT", "measure this snapshot: ID, name, or snapshot.id=,snapshot.name="},
	{OPT_SIZE, "size", "N", "measure a new, empty disk of this size"},
	OPTS_OPEN,
	{0},
};

static int print(const struct image_measure *m, bool json)
{
	if (json) {
		struct report *r = report_new_stream(stdout, REPORT_JSON, 0);

		report_begin_object(r, NULL);
		if (m->has_bitmaps)
			report_uint(r, "bitmaps", m->bitmaps);
		report_uint(r, "required", m->required);
		report_uint(r, "fully-allocated", m->fully_allocated);
		report_end_object(r);
		report_free(r);
		return 0;
	}
	printf("required size: %" G_GUINT64_FORMAT "\n"
	       "fully allocated size: %" G_GUINT64_FORMAT "\n",
	       m->required, m->fully_allocated);
	if (m->has_bitmaps)
		printf("bitmaps size: %" G_GUINT64_FORMAT "\n", m->bitmaps);
	return 0;
}

/* What must be so of --size, FILE and the options that go with a file. */
static const char *contradiction(const struct args *args)
{
	bool size = opt_given(args, OPT_SIZE);

	if (args->n > 1)
		return "At most one filename argument is allowed.";
	if (args->n == 0 &&
	    (opt_given(args, OPT_IMAGE_OPTS) || opt_given(args, 'f') || opt_given(args, 'l')))
		return "--image-opts, -f, and -l require a filename argument.";
	if (!size && args->n == 0)
		return "Either --size N or one filename must be specified.";
	if (size && args->n)
		return "--size N cannot be used together with a filename.";
	return NULL;
}

/* NULL after saying why. */
static struct options *target_options(struct args *args, const struct format *format)
{
	struct options *o = tool_option_list(args);
	GError *error = NULL;

	if (!o || options_validate(o, format->create_options, &error))
		return o;
	tool_say(error, NULL);
	tool_error("Invalid options for file format '%s'", format->name);
	options_free(o);
	return NULL;
}

static const struct format *target_format(struct args *args)
{
	const char *word = opt_value(args, 'O');
	GError *error = NULL;
	const struct format *format = image_find_format(word ? word : "raw", &error);

	if (!format)
		tool_say(error, NULL);
	else if (!format->measure || !format->create_options)
		tool_error("Block driver '%s' does not support size measurement", format->name);
	else
		return format;
	return NULL;
}

static bool measure(struct args *args, const struct format *format, struct options *o,
		    uint64_t size, struct image_measure *m)
{
	const char *param = opt_value(args, 'l');
	struct image *img = NULL;
	GError *error = NULL;
	bool ok;

	if (args->n) {
		img = tool_open_operand(args, 0, NULL);
		if (img && param)
			img = tool_view(img, param);
		if (!img)
			return false;
		size = img->size;
	}
	ok = format->measure(o, size, img, m, &error);
	image_unref(img);
	if (!ok)
		tool_say(error, NULL);
	return ok;
}

static int run(struct args *args)
{
	const char *word = opt_value(args, OPT_SIZE), *wrong = contradiction(args);
	struct image_measure m = {0};
	const struct format *format;
	uint64_t size = 0;
	struct options *o;
	bool json, ok;

	if (!tool_output_is_json(args, &json))
		return 1;
	if (word && !tool_size(word, "image size", 0, INT64_MAX, &size))
		return 1;
	if (wrong) {
		tool_error("%s", wrong);
		return 1;
	}
	tool_let_signals_end();
	format = target_format(args);
	o = format ? target_options(args, format) : NULL;
	ok = o && measure(args, format, o, size, &m);
	options_free(o);
	return ok ? print(&m, json) : 1;
}

const struct command command_measure = {
	.name = "measure",
	.run = run,
	.options = options,
	.mounted_read = MOUNTED_HELD,
	.operands = "[FILE]",
	.summary = "Tell how large a new image file will be",
	.examples = {"measure --size 10G", "measure -O qcow2 -o cluster_size=2M disk.raw",
		     "measure -l before-upgrade --output=json disk.qcow2"},
};
