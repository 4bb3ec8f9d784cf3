/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* imgtool snapshot: the list. */
#include <stdio.h>

#include "image/inspect.h"
#include "tools/tool.h"

static const struct opt options[] = {
	{'l', NULL, NULL, "list the snapshots"},
	{'a', NULL, "SNAPSHOT", "apply it (not in this version)"},
	{'c', NULL, "SNAPSHOT", "create it (not in this version)"},
	{'d', NULL, "SNAPSHOT", "delete it (not in this version)"},
	OPT_FORMAT,
	OPT_QUIET,
	OPTS_OPEN,
	{0},
};

static int list(struct image *img)
{
	g_autoptr(GString) out = g_string_new(NULL);
	GError *error = NULL;
	g_autoptr(GPtrArray) snapshots = image_snapshots(img, &error);

	if (!snapshots) {
		tool_say(error, NULL);
		return 1;
	}
	if (snapshots->len)
		snapshot_table_text(snapshots, out, SIZE_MAX);
	fwrite(out->str, 1, out->len, stdout);
	return 0;
}

static int run(struct args *args)
{
	static const char actions[] = "lacd";
	unsigned given = 0;
	struct image *img;
	int status = 0;

	for (const char *p = actions; *p; p++)
		for (unsigned i = 0; i < args->given->len; i++)
			given += i == 0 && opt_given(args, *p);
	if (given > 1)
		return tool_usage(args, "Cannot mix '-l', '-a', '-c', '-d'");
	if (args->n != 1)
		return tool_usage(args, "Expecting one image file name");
	if (given && !opt_given(args, 'l')) {
		tool_error("Changing snapshots is not available in this version");
		return 1;
	}
	img = tool_open_operand(args, IMAGE_NO_BACKING | IMAGE_NO_DATA_FILES, NULL);
	if (!img)
		return 1;
	if (given)
		status = list(img);
	image_unref(img);
	return status;
}

const struct command command_snapshot = {
	.name = "snapshot",
	.run = run,
	.options = options,
	.operands = "FILE",
	.summary = "List the internal snapshots of an image",
	.examples = {"snapshot -l disk.qcow2", "snapshot -l -U disk.qcow2"},
};
