/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* imgtool create */
#include <stdio.h>
#include <string.h>

#include "tools/tool.h"

static const struct opt options[] = {
	{'f', "format", "FMT", "format of the new image (default: raw)"},
	{'o', NULL, "OPTIONS", "name=value,...; -o help lists them"},
	{'b', NULL, "FILE", "backing file (not for raw)"},
	{'F', NULL, "FMT", "format of the backing file"},
	{'u', NULL, NULL, "do not open the backing file"},
	OPT_QUIET,
	{OPT_OBJECT, "object", "OBJECTDEF", "define an object, such as a secret"},
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
	if (!options_peek(o, "size")) {
		tool_error("%s: Image creation needs a size parameter", name);
		return false;
	}
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
	if (!format->has_backing && (opt_given(args, 'b') || opt_given(args, 'F'))) {
		tool_error("%s: Backing file not supported for file format '%s'", name,
			   format->name);
		return 1;
	}
	if (!take_size(args, name, o))
		return 1;
	if (!opt_given(args, 'q'))
		tool_print_formatting(name, format, o);
	if (!image_create(name, format, o, &error)) {
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
	.summary = "Make a new image (raw, in this version)",
	.examples = {"create disk.raw 10G", "create -f raw -o preallocation=falloc disk.raw 10G",
		     "create -o help"},
};
