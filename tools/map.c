/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* imgtool map */
#include <errno.h>
#include <stdio.h>

#include "image/inspect.h"
#include "tools/tool.h"

static const struct opt options[] = {
	OPT_FORMAT,
	OPT_FORMAT_OUTPUT,
	{'s', "start-offset", "OFFSET", "begin here (bytes of the disk)"},
	{'l', "max-length", "LENGTH", "this much at most"},
	OPTS_OPEN,
	{0},
};

static int map_failed(struct image *img, int err)
{
	tool_error("Could not map '%s': %s", img->filename, image_cause(img, err));
	return 1;
}

static int map_json(struct image *img, uint64_t start, uint64_t len)
{
	struct report *r = report_new_stream(stdout, REPORT_JSON_COMPACT, 0);
	int ret = image_map_json(img, start, len, r);

	report_free(r); /* a failed write shows in ferror(stdout), which main looks at */
	return ret < 0 ? map_failed(img, ret) : 0;
}

static int map_text(struct image *img, uint64_t start, uint64_t len)
{
	bool hidden = false;
	int ret = image_map_text(img, start, len, stdout, &hidden);

	if (ret < 0)
		return map_failed(img, ret);
	if (hidden)
		tool_error("File contains external, encrypted or compressed clusters.");
	return hidden ? 1 : 0;
}

static int run(struct args *args)
{
	const char *start_word = opt_value(args, 's'), *len_word = opt_value(args, 'l');
	uint64_t start = 0, len = INT64_MAX;
	struct image *img;
	bool json;
	int status;

	if (!tool_output_is_json(args, &json))
		return 1;
	if (start_word && !tool_size(start_word, "start offset", 0, INT64_MAX, &start))
		return 1;
	if (len_word && !tool_size(len_word, "max length", 0, INT64_MAX, &len))
		return 1;
	if (args->n != 1)
		return tool_usage(args, "Expecting one image file name");
	tool_let_signals_end();
	img = tool_open_operand(args, 0, NULL);
	if (!img)
		return 1;
	status = json ? map_json(img, start, len) : map_text(img, start, len);
	image_unref(img);
	return status;
}

const struct command command_map = {
	.name = "map",
	.run = run,
	.options = options,
	.mounted_read = MOUNTED_HELD,
	.operands = "FILE",
	.summary = "Tell where the bytes of a disk are",
	.examples = {"map disk.qcow2", "map --output=json disk.qcow2",
		     "map -s 1M -l 64M --output=json disk.qcow2"},
};
