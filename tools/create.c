/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* imgtool create */
#include <stdio.h>
#include <string.h>

#include "tools/through.h"
#include "tools/tool.h"

static const struct opt options[] = {
	{'f', "format", "FMT", "format of the new image (default: raw)"},
	{'o', NULL, "OPTIONS", "name=value,...; -o help lists them"},
	{'b', NULL, "FILE", "backing file: the image records what differs from it (not for raw)"},
	{'F', NULL, "FMT", "format of the backing file"},
	{'u', NULL, NULL, "do not open the backing file"},
	OPT_QUIET,
	OPT_DEFINE_OBJECT,
	OPT_GATE,
	{0},
};

/* The size operand into the options; false after saying why. */
static bool take_size(struct args *args, const char *name, struct options *o)
{
	g_autofree char *text = NULL;
	uint64_t size;

	if (args->n > 1) {
		if (!tool_size(args->operands[1], "image size", 0, INT64_MAX, &size))
			return false;
		if (options_peek(o, "size")) {
			tool_error("%s: The image size must be specified only once", name);
			return false;
		}
		text = g_strdup_printf("%" G_GUINT64_FORMAT, size);
		options_set(o, "size", text);
	}
	return true;
}

static bool take_backing(struct args *args, const char *name, const struct format *format,
			 struct options *o)
{
	if (!format->has_backing && (opt_given(args, 'b') || opt_given(args, 'F'))) {
		tool_error("%s: Backing file not supported for file format '%s'", name,
			   format->name);
		return false;
	}
	if (opt_given(args, 'b'))
		options_set(o, "backing_file", opt_value(args, 'b'));
	if (opt_given(args, 'F'))
		options_set(o, "backing_fmt", opt_value(args, 'F'));
	return true;
}

static int create(struct args *args, const struct format *format, const char *name,
		  struct options *o)
{
	g_autofree char *prefix = g_strdup_printf("%s: ", name);
	GError *error = NULL;

	if (!options_validate(o, format->create_options, &error)) {
		tool_say(error, prefix);
		return 1;
	}
	if (!take_size(args, name, o) || !take_backing(args, name, format, o))
		return 1;
	if (!image_check_names(name, o, &error)) {
		tool_say(error, prefix);
		return 1;
	}
	if (!tool_settle_backing(args, name, o, opt_given(args, 'u')))
		return 1;
	if (!options_peek(o, "size")) {
		tool_error("%s: Image creation needs a size parameter", name);
		return 1;
	}
	if (!opt_given(args, 'q'))
		tool_print_formatting(name, format, o);
	if (!image_create(name, format, o, &error)) {
		through_explain(args, name, &error);
		tool_say(error, prefix);
		return 1;
	}
	return 0;
}

static int run(struct args *args)
{
	const char *word = opt_value(args, 'f'), *name = args->n ? args->operands[0] : NULL;
	const struct format *format;
	struct options *o;
	GError *error = NULL;
	int status;

	format = image_find_format(word ? word : "raw", &error);
	if (!format) {
		g_autofree char *prefix = g_strdup_printf("%s: ", name ? name : "create");

		tool_say(error, prefix);
		return 1;
	}
	if (tool_wants_option_help(args))
		return tool_print_option_help(format, name != NULL);
	if (!name)
		return tool_usage(args, "Expecting image file name");
	if (args->n > 2)
		return tool_usage(args, "Unexpected argument: %s", args->operands[2]);
	if (!format->create || !format->create_options) {
		tool_error("%s: Format driver '%s' does not support image creation", name,
			   format->name);
		return 1;
	}
	o = tool_option_list(args);
	status = o ? create(args, format, name, o) : 1;
	options_free(o);
	return status;
}

const struct command command_create = {
	.name = "create",
	.run = run,
	.options = options,
	.operands = "FILE [SIZE]",
	.summary = "Make a new image",
	.examples = {"create -f qcow2 disk.qcow2 10G",
		     "create -f qcow2 -b base.qcow2 -F qcow2 overlay.qcow2",
		     "create -f qcow2 -o help"},
};
