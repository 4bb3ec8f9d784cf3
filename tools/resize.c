/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* imgtool resize */
#include <stdio.h>
#include <string.h>

#include "tools/through.h"
#include "tools/tool.h"

static const struct opt options[] = {
	OPT_FORMAT,
	{OPT_PREALLOCATION, "preallocation", "MODE",
	 "how to make room for what is added: off, metadata, falloc or full"},
	{OPT_SHRINK, "shrink", NULL, "yes, lose what lies behind the new end"},
	OPT_QUIET,
	OPTS_WRITE,
	{0},
};

static bool check_direction(const struct args *args, uint64_t old, uint64_t size, const char *mode)
{
	if (size <= old && mode && strcmp(mode, "off") != 0) {
		tool_error("Preallocation can only be used for growing images");
		return false;
	}
	if (size < old && !opt_given(args, OPT_SHRINK)) {
		tool_error("Use the --shrink option to perform a shrink operation.");
		tool_error("warning: Shrinking an image will delete all data beyond the shrunken "
			   "image's end. Before performing such an operation, make sure there is "
			   "no important data there.");
		return false;
	}
	return true;
}

static bool resize(const struct args *args, struct image *img, const struct size_change *change,
		   const char *mode)
{
	struct options *o;
	GError *error = NULL;
	uint64_t size;
	bool ok;

	if (!units_apply_change(change, img->size, &size, &error)) {
		tool_say(error, NULL);
		return false;
	}
	if (!check_direction(args, img->size, size, mode))
		return false;
	o = options_new();
	if (mode)
		options_set(o, "preallocation", mode);
	ok = image_resize(img, size, o, &error);
	options_free(o);
	if (!ok)
		tool_say(error, NULL);
	else if (!opt_given(args, 'q'))
		printf("Image resized.\n");
	return ok;
}

static bool send(struct args *args, const struct size_change *change, const char *mode,
		 GError **error)
{
	g_autofree char *text = through_read(args, "resize", error), *line = NULL;
	uint64_t old, size;

	if (!text || !units_parse(g_strchomp(text), "size", 0, INT64_MAX, &old, error) ||
	    !units_apply_change(change, old, &size, error))
		return false;
	if (!check_direction(args, old, size, mode))
		return false;
	if (mode && strcmp(mode, "off") != 0) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_UNSUPPORTED,
			    "'%s' is mounted, and the mount adds no preallocated space: unmount it "
			    "first, or leave out --preallocation",
			    args->mounted_name);
		return false;
	}
	/* The size that was judged, whatever else happens to the image. */
	line = g_strdup_printf("%s%" G_GUINT64_FORMAT "\n", size < old ? "--shrink " : "", size);
	return through_send(args, "resize", line, error);
}

static bool resize_mounted(struct args *args, const struct size_change *change, const char *mode)
{
	GError *error = NULL;
	bool ok = send(args, change, mode, &error);

	if (error)
		tool_say(error, NULL);
	else if (ok && !opt_given(args, 'q'))
		printf("Image resized.\n");
	return ok;
}

static bool is_mode(const char *word)
{
	return !strcmp(word, "off") || !strcmp(word, "metadata") || !strcmp(word, "falloc") ||
	       !strcmp(word, "full");
}

static int run(struct args *args)
{
	const char *mode = opt_value(args, OPT_PREALLOCATION);
	struct size_change change;
	GError *error = NULL;
	struct image *img;
	bool ok;

	if (mode && !is_mode(mode)) {
		tool_error("Invalid preallocation mode '%s'", mode);
		return 1;
	}
	if (args->n < 2 && args->given->len == 0)
		return tool_usage(args, "Not enough arguments");
	if (args->n != 2)
		return tool_usage(args, "Expecting image file name and size");
	if (!units_parse_change(args->operands[1], &change, &error)) {
		tool_say(error, NULL);
		return 1;
	}
	img = tool_open_operand(args, IMAGE_RDWR, NULL);
	if (!img)
		return args->mount && resize_mounted(args, &change, mode) ? 0 : 1;
	ok = resize(args, img, &change, mode);
	return tool_close(img, ok ? 0 : 1);
}

const struct command command_resize = {
	.name = "resize",
	.run = run,
	.options = options,
	.mounted_write = MOUNTED_SENT,
	.operands = "FILE [+|-]SIZE",
	.last_is_operand = true,
	.summary = "Make a disk larger or smaller",
	.examples = {"resize disk.qcow2 +10G", "resize --shrink disk.raw 20G",
		     "resize --preallocation=falloc -f raw disk.raw 40G"},
};
