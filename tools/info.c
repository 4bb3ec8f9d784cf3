/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* imgtool info */
#include <stdio.h>
#include <string.h>

#include "image/inspect.h"
#include "tools/tool.h"

static const struct opt options[] = {
	OPT_FORMAT,
	OPT_FORMAT_OUTPUT,
	{OPT_BACKING_CHAIN, "backing-chain", NULL, "also every backing file, top first"},
	{OPT_ALL, "all", NULL, "do not cut a very long snapshot list"},
	{OPT_LIST_REFERENCES, "references", NULL,
	 "only the files that the image names, of which none is opened"},
	OPTS_OPEN,
	{0},
};

struct info {
	struct args *args;
	bool json, chain, references;
	size_t limit;
	GString *out;	       /* text */
	struct report *report; /* JSON */
	GHashTable *seen;      /* "device:inode" of each layer */
};

static bool emit(struct info *info, struct image *img)
{
	GError *error = NULL;
	bool ok = true;

	if (info->references && info->json) {
		image_references_json(img, info->report);
	} else if (info->references) {
		g_string_truncate(info->out, 0);
		image_references_text(img, info->out);
		fwrite(info->out->str, 1, info->out->len, stdout);
	} else if (info->json) {
		ok = image_info_json(img, info->report, &error);
	} else {
		g_string_truncate(info->out, 0);
		ok = image_info_text(img, info->out, info->limit, &error);
		fwrite(info->out->str, 1, info->out->len, stdout);
	}
	if (!ok)
		tool_say(error, NULL);
	return ok;
}

static bool is_new(struct info *info, struct image *img)
{
	const struct stat *st = file_stat(img->file);
	char *key = g_strdup_printf("%ju:%ju", (uintmax_t)st->st_dev, (uintmax_t)st->st_ino);

	return g_hash_table_add(info->seen, key);
}

/* The next layer, opened alone; NULL with *ok false after saying why. */
static struct image *next_layer(struct info *info, struct image *img, bool *ok)
{
	struct tool_source s = {.format = img->backing_format,
				.flags = IMAGE_NO_BACKING | IMAGE_NO_DATA_FILES};
	g_autofree char *path = NULL;
	struct image *next;
	GError *error = NULL;

	if (!img->backing_name)
		return NULL;
	*ok = false;
	path = gate_resolve(tool_gate(info->args), img->filename, img->backing_name, &error);
	if (!path) {
		tool_say(error, NULL);
		return NULL;
	}
	next = tool_open(info->args, path, &s);
	if (next && !is_new(info, next)) {
		tool_error("Backing file '%s' creates an infinite loop.", path);
		image_unref(next);
		return NULL;
	}
	*ok = next != NULL;
	return next;
}

static bool each_layer(struct info *info, struct image *img)
{
	bool ok = true, first = true;

	while (img) {
		struct image *next;

		if (!first && !info->json)
			printf("\n");
		first = false;
		ok = emit(info, img);
		next = ok && info->chain ? next_layer(info, img, &ok) : NULL;
		image_unref(img);
		img = next;
	}
	return ok;
}

static int run(struct args *args)
{
	struct info info = {.args = args,
			    .chain = opt_given(args, OPT_BACKING_CHAIN),
			    .references = opt_given(args, OPT_LIST_REFERENCES)};
	g_autoptr(GString) out = g_string_new(NULL);
	struct image *img;
	bool ok;

	if (!tool_output_is_json(args, &info.json))
		return 1;
	if (args->n != 1)
		return tool_usage(args, "Expecting one image file name");
	tool_let_signals_end();
	img = tool_open_operand(args, IMAGE_NO_BACKING | IMAGE_NO_DATA_FILES, NULL);
	if (!img)
		return 1;
	info.out = out;
	info.limit = opt_given(args, OPT_ALL) || tool_is_qemu ? SIZE_MAX : INFO_SNAPSHOT_LIMIT;
	info.seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	is_new(&info, img);
	if (info.json) {
		/* Kept until it is whole: half a JSON is of no use to anybody. */
		info.report = report_new(out, REPORT_JSON, 0);
		if (info.chain)
			report_begin_array(info.report, NULL);
	}
	ok = each_layer(&info, img);
	if (info.json) {
		if (info.chain)
			report_end_array(info.report);
		report_free(info.report);
		if (ok)
			fwrite(out->str, 1, out->len, stdout);
	}
	g_hash_table_unref(info.seen);
	return ok ? 0 : 1;
}

const struct command command_info = {
	.name = "info",
	.run = run,
	.options = options,
	.mounted_read = MOUNTED_HELD,
	.operands = "FILE",
	.summary = "Tell what an image is: format, sizes, backing file, snapshots",
	.examples = {"info disk.qcow2", "info --output=json disk.qcow2",
		     "info --references --output=json upload.qcow2"},
};
