/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* imgtool check */
#include <stdio.h>
#include <string.h>

#include "image/inspect.h"
#include "tools/tool.h"

#define STATUS_UNSUPPORTED 63

static const struct opt options[] = {
	OPT_QUIET,
	OPT_FORMAT,
	OPT_FORMAT_OUTPUT,
	{'r', "repair", "leaks|all", "repair what is found (not in this version)"},
	{'T', NULL, "CACHE", "cache mode of the image (default: writeback)"},
	OPTS_OPEN,
	{0},
};

static void tell(void *arg, const char *sentence)
{
	g_autofree char *shown = report_escape(sentence, -1);

	fprintf(stderr, "%s\n", shown);
}

static void print(struct image *img, const struct check_result *result, bool json, bool quiet)
{
	g_autoptr(GString) out = g_string_new(NULL);

	if (json) {
		struct report *r = report_new(out, REPORT_JSON, 0);

		check_result_json(img->filename, img->format->name, result, r);
		report_free(r);
	} else if (!quiet) {
		check_result_text(result, out);
	}
	fwrite(out->str, 1, out->len, stdout);
}

static int check(struct image *img, bool json, bool quiet)
{
	struct check_options o = {.tell = tell, .cancelled = tool_interrupted};
	struct check_result result = {0};
	GError *error = NULL;

	if (!img->format->check) {
		tool_error("This image format does not support checks");
		return STATUS_UNSUPPORTED;
	}
	if (!image_check(img, &o, &result, &error)) {
		if (tool_interrupted())
			g_clear_error(&error);
		else
			tool_say(error, "Check failed: ");
		return 1;
	}
	print(img, &result, json, quiet);
	return check_result_status(&result);
}

static int run(struct args *args)
{
	const char *repair = opt_value(args, 'r');
	struct image *img;
	bool json;
	int status;

	if (!tool_output_is_json(args, &json))
		return 1;
	if (repair && strcmp(repair, "leaks") != 0 && strcmp(repair, "all") != 0)
		return tool_usage(args,
				  "Unknown option value for -r (expecting 'leaks' or 'all'): %s",
				  repair);
	if (args->n != 1)
		return tool_usage(args, "Expecting one image file name");
	if (repair) {
		tool_error(
			"Repair is not available in this version: check without -r reports only");
		return STATUS_UNSUPPORTED;
	}
	img = tool_open_operand(args, IMAGE_FOR_CHECK, opt_value(args, 'T'));
	if (!img)
		return 1;
	status = check(img, json, opt_given(args, 'q'));
	image_unref(img);
	return status;
}

const struct command command_check = {
	.name = "check",
	.run = run,
	.options = options,
	.operands = "FILE",
	.summary = "Find what is inconsistent in an image's tables",
	.examples = {"check disk.qcow2", "check --output=json disk.qcow2", "check -q disk.qcow2"},
};
