/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* imgtool bitmap: actions on one dirty bitmap, in the order of the command line. */
#include "tools/tool.h"

#include <stdio.h>
#include <string.h>

static const struct opt options[] = {
	{OPT_ADD, "add", NULL, "make the bitmap: clear, and enabled"},
	{OPT_REMOVE, "remove", NULL, "take it out of the image"},
	{OPT_CLEAR, "clear", NULL, "let it say that nothing was written"},
	{OPT_ENABLE, "enable", NULL, "let it follow what is written from now on"},
	{OPT_DISABLE, "disable", NULL, "let it stay as it is"},
	{OPT_MERGE, "merge", "SOURCE", "add what bitmap SOURCE has"},
	{'b', "source-file", "FILE", "SOURCE is in this image"},
	{'F', "source-format", "FMT", "format of that image (default: found out)"},
	{'g', "granularity", "SIZE", "of --add: bytes that one bit stands for (default: 64k)"},
	OPT_FORMAT,
	OPTS_WRITE,
	{0},
};

struct job {
	struct image *img, *source; /* source: of --merge, often img */
	const char *name;
	uint64_t granularity;
};

static const char *action_name(int id)
{
	switch (id) {
	case OPT_ADD:
		return "add";
	case OPT_REMOVE:
		return "remove";
	case OPT_CLEAR:
		return "clear";
	case OPT_ENABLE:
		return "enable";
	case OPT_DISABLE:
		return "disable";
	case OPT_MERGE:
		return "merge";
	default:
		return NULL;
	}
}

static bool act(const struct job *job, int id, const char *value, GError **error)
{
	switch (id) {
	case OPT_ADD:
		return image_bitmap_add(job->img, job->name, job->granularity, error);
	case OPT_REMOVE:
		return image_bitmap_remove(job->img, job->name, error);
	case OPT_CLEAR:
		return image_bitmap_clear(job->img, job->name, error);
	case OPT_MERGE:
		return image_bitmap_merge(job->img, job->name, job->source, value, error);
	default:
		return image_bitmap_enable(job->img, job->name, id == OPT_ENABLE, error);
	}
}

/* Stops at the first that fails; what was done before it stays. */
static bool act_all(const struct args *args, const struct job *job)
{
	const char *value;
	int id;

	for (unsigned i = 0; (id = opt_at(args, i, &value)); i++) {
		g_autofree char *prefix = NULL;
		GError *error = NULL;

		if (!action_name(id) || act(job, id, value, &error))
			continue;
		prefix = g_strdup_printf("Operation %s on bitmap %s failed: ", action_name(id),
					 job->name);
		tool_say(error, prefix);
		return false;
	}
	return true;
}

/* Is there something to do, and does it go together? */
static bool check_words(const struct args *args)
{
	const char *value, *wrong = NULL;
	bool any = false;
	int id;

	for (unsigned i = 0; (id = opt_at(args, i, &value)); i++)
		any = any || action_name(id);
	if (!any)
		wrong = "Need at least one of --add, --remove, --clear, --enable, --disable, or "
			"--merge";
	else if (opt_given(args, 'g') && !opt_given(args, OPT_ADD))
		wrong = "granularity only supported with --add";
	else if (opt_given(args, 'F') && !opt_given(args, 'b'))
		wrong = "-F only supported with -b";
	else if (opt_given(args, 'b') && !opt_given(args, OPT_MERGE))
		wrong = "Merge bitmap source file only supported with --merge";
	else if (args->n != 2)
		wrong = "Expecting filename and bitmap name";
	if (wrong)
		tool_error("%s", wrong);
	return !wrong;
}

static bool open_source(struct args *args, struct job *job)
{
	struct tool_source s = {
		.format = opt_value(args, 'F'),
		.flags = IMAGE_NO_BACKING | IMAGE_NO_DATA_FILES,
	};

	job->source = opt_given(args, 'b') ? tool_open(args, opt_value(args, 'b'), &s)
					   : image_ref(job->img);
	return job->source != NULL;
}

static int run(struct args *args)
{
	const char *granularity = opt_value(args, 'g');
	struct job job = {0};
	bool ok;

	if (granularity && !tool_size(granularity, "granularity", 0, INT64_MAX, &job.granularity))
		return 1;
	if (!check_words(args))
		return 1;
	job.name = args->operands[1];
	job.img = tool_open_operand(args, IMAGE_RDWR | IMAGE_NO_BACKING, NULL);
	if (!job.img)
		return 1;
	ok = open_source(args, &job) && act_all(args, &job);
	image_unref(job.source);
	return tool_close(job.img, ok ? 0 : 1);
}

const struct command command_bitmap = {
	.name = "bitmap",
	.run = run,
	.options = options,
	.operands = "FILE BITMAP",
	.summary = "Change the dirty bitmaps of an image",
	.examples = {"bitmap --add disk.qcow2 since-sunday",
		     "bitmap --add --merge monday -b monday.qcow2 disk.qcow2 both",
		     "bitmap --clear --disable disk.qcow2 since-sunday"},
};
