/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* imgtool amend */
#include <stdio.h>
#include <string.h>

#include "tools/tool.h"

static const struct opt options[] = {
	{'o', NULL, "OPTIONS", "what to change: NAME=VALUE,... (help lists them)"},
	OPT_FORMAT,
	{'p', NULL, NULL, "show progress"},
	OPT_QUIET,
	{'t', NULL, "CACHE", "cache mode of the image (default: writeback)"},
	{OPT_FORCE, "force", NULL, "allow what could lock out of an encrypted image"},
	OPTS_WRITE,
	{0},
};

static bool can_amend(const struct format *format)
{
	if (format->amend)
		return true;
	tool_error("Format driver '%s' does not support option amendment", format->name);
	return false;
}

static int print_options(const struct format *format)
{
	g_autofree char *text = NULL;

	if (!can_amend(format))
		return 1;
	text = option_table_help(format->amend_options, false);
	printf("Amend options for '%s':\n%s", format->name, text);
	return 0;
}

/* -f FMT -o help needs no image. */
static int help_without_image(struct args *args)
{
	const struct format *format;
	GError *error = NULL;

	if (!opt_value(args, 'f')) {
		tool_error("Expecting one image file name");
		return 1;
	}
	format = image_find_format(opt_value(args, 'f'), &error);
	if (format)
		return print_options(format);
	tool_say(error, NULL);
	return 1;
}

static bool knows(const struct option_desc *table, const char *key)
{
	for (; table && table->name; table++)
		if (strcmp(table->name, key) == 0)
			return true;
	return false;
}

/* Refuses by name what cannot be changed. */
static bool check_keys(const struct format *format, const struct options *o)
{
	GError *error = NULL;

	for (const struct option_desc *d = format->create_options; d && d->name; d++) {
		if (!options_peek(o, d->name) || knows(format->amend_options, d->name))
			continue;
		tool_error("Invalid parameter '%s'\nThis option is only supported for image "
			   "creation",
			   d->name);
		return false;
	}
	if (options_validate(o, format->amend_options, &error))
		return true;
	tool_say(error, NULL);
	return false;
}

static int amend(const struct args *args, struct image *img, struct options *o)
{
	struct progress shown;
	struct image_progress progress = {tool_progressed, &shown};
	GError *error = NULL;
	bool ok;

	progress_begin(&shown, opt_given(args, 'p') && !opt_given(args, 'q'), 1);
	ok = image_amend(img, o, &progress, &error);
	if (ok)
		progress_update(&shown, 1, 1);
	progress_end(&shown);
	if (ok)
		return 0;
	tool_say(error, NULL);
	return 1;
}

static int run(struct args *args)
{
	struct image *img;
	struct options *o;
	int status = 1;

	if (!opt_given(args, 'o'))
		return tool_usage(args, "Must specify options (-o)");
	if (tool_wants_option_help(args) && (args->n == 0 || opt_given(args, 'f')))
		return help_without_image(args);
	if (args->n != 1) {
		tool_error("Expecting one image file name");
		return 1;
	}
	o = tool_option_list(args);
	if (!o)
		return 1;
	img = tool_open_operand(args, tool_wants_option_help(args) ? 0 : IMAGE_RDWR,
				opt_value(args, 't'));
	if (img && tool_wants_option_help(args))
		status = print_options(img->format);
	else if (img && can_amend(img->format) && check_keys(img->format, o))
		status = amend(args, img, o);
	image_unref(img);
	options_free(o);
	return status;
}

const struct command command_amend = {
	.name = "amend",
	.run = run,
	.options = options,
	.operands = "FILE",
	.summary = "Change what an image was created with",
	.examples = {"amend -o compat=1.1,lazy_refcounts=on disk.qcow2",
		     "amend -p -o refcount_bits=1 disk.qcow2", "amend -f qcow2 -o help"},
};
