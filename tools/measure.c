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

static int print(uint64_t required, uint64_t full, bool json)
{
	if (json) {
		struct report *r = report_new_stream(stdout, REPORT_JSON, 0);

		report_begin_object(r, NULL);
		report_uint(r, "required", required);
		report_uint(r, "fully-allocated", full);
		report_end_object(r);
		report_free(r);
	} else {
		printf("required size: %" G_GUINT64_FORMAT "\n"
		       "fully allocated size: %" G_GUINT64_FORMAT "\n",
		       required, full);
	}
	return 0;
}

static bool size_of_image(struct args *args, uint64_t *size)
{
	const char *param = opt_value(args, 'l');
	struct image *img = tool_open_operand(args, 0, NULL);

	if (img && param)
		img = tool_view(img, param);
	if (!img)
		return false;
	*size = img->size;
	image_unref(img);
	return true;
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

static int run(struct args *args)
{
	const char *target = opt_value(args, 'O'), *word = opt_value(args, OPT_SIZE), *wrong;
	uint64_t size = 0;
	struct options *o;
	GError *error = NULL;
	bool json, ok;

	if (!tool_output_is_json(args, &json))
		return 1;
	if (word && !tool_size(word, "image size", 0, INT64_MAX, &size))
		return 1;
	wrong = contradiction(args);
	if (wrong) {
		tool_error("%s", wrong);
		return 1;
	}
	if (target && strcmp(target, "raw") != 0) {
		if (image_find_format(target, &error))
			tool_error("Block driver '%s' does not support size measurement", target);
		else
			tool_say(error, NULL);
		return 1;
	}
	o = tool_option_list(args);
	ok = o && options_validate(o, image_find_format("raw", NULL)->create_options, &error);
	options_free(o);
	if (!ok) {
		if (error)
			tool_say(error, NULL);
		return 1;
	}
	if (args->n && !size_of_image(args, &size))
		return 1;
	size = (size + 511) & ~G_GUINT64_CONSTANT(511);
	return print(size, size, json);
}

const struct command command_measure = {
	.name = "measure",
	.run = run,
	.options = options,
	.operands = "[FILE]",
	.summary = "Tell how large a new image file will be",
	.examples = {"measure --size 10G", "measure -O raw disk.qcow2",
		     "measure -l before-upgrade --output=json disk.qcow2"},
};
