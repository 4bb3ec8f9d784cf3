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
	{OPT_ALL_FIELDS, "all-fields", NULL, "JSON: every counter is there, also those that are 0"},
	{'r', "repair", "leaks|all",
	 "repair: only leaks, which is always safe, or all that is found"},
	{'T', NULL, "CACHE", "cache mode of the image (default: writeback)"},
	OPTS_OPEN,
	{0},
};

static void tell(void *arg, const char *sentence)
{
	g_autofree char *shown = report_escape(sentence, -1);

	fprintf(stderr, "%s\n", shown);
}

struct job {
	struct image *img;
	enum check_repair repair;
	bool json, all_fields, quiet;
};

static void print(const struct job *job, const struct check_result *result)
{
	g_autoptr(GString) out = g_string_new(NULL);

	if (job->json) {
		struct report *r = report_new(out, REPORT_JSON, 0);

		check_result_json(job->img->filename, job->img->format->name, result,
				  job->all_fields, r);
		report_free(r);
	} else if (!job->quiet) {
		check_result_text(result, out);
	}
	fwrite(out->str, 1, out->len, stdout);
}

/* Says what was repaired, and checks what it has become: that is the result. */
static bool check_again(const struct job *job, struct check_result *result, GError **error)
{
	struct check_options o = {.tell = tell};
	uint64_t leaks = result->leaks_fixed, corruptions = result->corruptions_fixed;

	if (!leaks && !corruptions)
		return true;
	if (!job->json && !job->quiet) {
		printf("The following inconsistencies were found and repaired:\n\n"
		       "    %" G_GUINT64_FORMAT " leaked clusters\n"
		       "    %" G_GUINT64_FORMAT " corruptions\n\n"
		       "Double checking the fixed image now...\n",
		       leaks, corruptions);
		fflush(stdout);
	}
	if (!image_check(job->img, &o, result, error))
		return false;
	result->leaks_fixed = leaks;
	result->corruptions_fixed = corruptions;
	return true;
}

static int check(const struct job *job)
{
	struct check_options o = {
		.repair = job->repair, .tell = tell, .cancelled = tool_interrupted};
	struct check_result result = {0};
	GError *error = NULL;

	if (!job->img->format->check) {
		tool_error("This image format does not support checks");
		return STATUS_UNSUPPORTED;
	}
	if (!image_check(job->img, &o, &result, &error) || !check_again(job, &result, &error)) {
		if (tool_interrupted())
			g_clear_error(&error);
		else
			tool_say(error, "Check failed: ");
		return 1;
	}
	print(job, &result);
	return check_result_status(&result);
}

static bool parse_repair(struct args *args, struct job *job)
{
	const char *word = opt_value(args, 'r');

	if (!word)
		return true;
	if (strcmp(word, "leaks") != 0 && strcmp(word, "all") != 0) {
		tool_usage(args, "Unknown option value for -r (expecting 'leaks' or 'all'): %s",
			   word);
		return false;
	}
	job->repair = *word == 'l' ? CHECK_REPAIR_LEAKS : CHECK_REPAIR_ALL;
	return true;
}

static int run(struct args *args)
{
	struct job job = {
		.all_fields = opt_given(args, OPT_ALL_FIELDS),
		.quiet = opt_given(args, 'q'),
	};
	unsigned flags = IMAGE_FOR_CHECK;
	int status;

	if (!tool_output_is_json(args, &job.json) || !parse_repair(args, &job))
		return 1;
	if (args->n != 1)
		return tool_usage(args, "Expecting one image file name");
	if (job.repair && opt_given(args, 'U')) {
		tool_error("Could not open '%s': force-share=on can only be used with read-only "
			   "images",
			   args->operands[0]);
		return 1;
	}
	if (job.repair)
		flags |= IMAGE_RDWR;
	job.img = tool_open_operand(args, flags, opt_value(args, 'T'));
	if (!job.img)
		return 1;
	status = check(&job);
	return tool_close(job.img, status);
}

const struct command command_check = {
	.name = "check",
	.run = run,
	.options = options,
	.mounted_read = MOUNTED_HELD,
	.operands = "FILE",
	.summary = "Find what is inconsistent in an image's tables, and repair it",
	.examples = {"check disk.qcow2", "check --output=json disk.qcow2",
		     "check -r all disk.qcow2"},
};
