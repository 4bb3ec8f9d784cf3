/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* imgtool snapshot: list, create, apply, delete and rename internal snapshots. */
#include <stdio.h>
#include <string.h>

#include "image/inspect.h"
#include "tools/through.h"
#include "tools/tool.h"

static const struct opt options[] = {
	{'l', NULL, NULL, "list the snapshots"},
	{'a', NULL, "SNAPSHOT", "apply it: the disk becomes what it was"},
	{'c', NULL, "NAME", "create a snapshot of the disk as it is"},
	{'d', NULL, "SNAPSHOT", "delete it"},
	{'r', "rename", "SNAPSHOT", "give it the name NEW"},
	OPT_FORMAT,
	OPT_FORMAT_OUTPUT,
	OPT_QUIET,
	OPTS_OPEN,
	{0},
};

/* ---- the list ---------------------------------------------------------------------------------
 */

static bool report_one(struct image *img, unsigned i, const struct snapshot *s, struct report *r,
		       GError **error)
{
	uint64_t own, shared;

	if (!image_snapshot_usage(img, i, &own, &shared, error))
		return false;
	report_begin_object(r, NULL);
	snapshot_rows(s, r);
	report_uint(r, "disk-size", s->disk_size);
	report_uint(r, "own-size", own);
	report_uint(r, "shared-size", shared);
	report_end_object(r);
	return true;
}

static bool list_json(struct image *img, GPtrArray *snapshots, GString *out, GError **error)
{
	struct report *r = report_new(out, REPORT_JSON, 0);
	bool ok = true;

	report_begin_array(r, NULL);
	for (guint i = 0; ok && i < snapshots->len; i++)
		ok = report_one(img, i, g_ptr_array_index(snapshots, i), r, error);
	report_end_array(r);
	report_free(r);
	return ok;
}

static int list(struct image *img, bool json)
{
	g_autoptr(GString) out = g_string_new(NULL);
	GError *error = NULL;
	g_autoptr(GPtrArray) snapshots = image_snapshots(img, &error);

	if (!snapshots || (json && !list_json(img, snapshots, out, &error))) {
		tool_say(error, NULL);
		return 1;
	}
	if (!json && snapshots->len)
		snapshot_table_text(snapshots, out, SIZE_MAX);
	fwrite(out->str, 1, out->len, stdout);
	return 0;
}

/* ---- changes ----------------------------------------------------------------------------------
 */

struct change {
	char action;
	const char *what;     /* "create" */
	const char *word;     /* the option's: a name, or which snapshot is meant */
	const char *new_name; /* rename's */
};

/* qemu-img looks for an ID first where it applies, and only for names where it deletes: what is
 * deleted is never another one than there, but an ID works too. */
static int find(GPtrArray *list, const struct change *c)
{
	for (guint i = 0; c->action == 'd' && i < list->len; i++)
		if (strcmp(((struct snapshot *)g_ptr_array_index(list, i))->name, c->word) == 0)
			return i;
	return image_find_snapshot(list, c->word, NULL);
}

static bool change_one(struct image *img, const struct change *c, GError **error)
{
	g_autoptr(GPtrArray) snapshots = NULL;
	int i;

	if (c->action == 'c')
		return image_snapshot_create(img, c->word, error);
	if (c->action == 'a' && !img->format->snapshot_apply) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_UNSUPPORTED,
			    "Block driver does not support snapshots");
		return false;
	}
	snapshots = image_snapshots(img, error);
	if (!snapshots)
		return false;
	i = find(snapshots, c);
	if (i < 0) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_NOT_FOUND,
			    c->action == 'a' ? "Failed to load snapshot: No such file or directory"
					     : "snapshot not found");
		return false;
	}
	if (c->action == 'a')
		return image_snapshot_apply(img, i, error);
	if (c->action == 'd')
		return image_snapshot_delete(img, i, error);
	return image_snapshot_rename(img, i, c->new_name, error);
}

/* The mount finds the snapshot by the same rules. */
static bool send(struct args *args, const struct change *c, GError **error)
{
	g_autofree char *word = through_quote(c->word, error), *line = NULL, *new_name = NULL;

	if (word && c->new_name)
		new_name = through_quote(c->new_name, error);
	if (!word || (c->new_name && !new_name))
		return false;
	line = g_strdup_printf("%s %s%s%s\n", c->what, word, new_name ? " " : "",
			       new_name ? new_name : "");
	return through_send(args, "snapshot", line, error);
}

/* img NULL: the mount does it. */
static int change(struct args *args, struct image *img, const struct change *c)
{
	g_autofree char *shown = report_escape(c->word, -1), *prefix = NULL;
	GError *error = NULL;

	if (img ? change_one(img, c, &error) : send(args, c, &error))
		return 0;
	prefix = g_strdup_printf("Could not %s snapshot '%s': ", c->what, shown);
	tool_say(error, prefix);
	return 1;
}

/* ---- the command line -------------------------------------------------------------------------
 */

/* The one action; false after saying that there are several. */
static bool parse_action(struct args *args, struct change *c)
{
	static const struct {
		char letter;
		const char *what;
	} actions[] = {{'l', "list"},	{'a', "apply"},	 {'c', "create"},
		       {'d', "delete"}, {'r', "rename"}, {0, NULL}};

	for (unsigned i = 0; actions[i].letter; i++) {
		if (!opt_given(args, actions[i].letter))
			continue;
		if (c->action) {
			tool_usage(args, "Cannot mix '-l', '-a', '-c', '-d'");
			return false;
		}
		c->action = actions[i].letter;
		c->what = actions[i].what;
		c->word = opt_value(args, c->action);
	}
	return true;
}

/* NEW stands in front of the file. */
static bool take_new_name(struct args *args, struct change *c)
{
	if (c->action != 'r')
		return true;
	if (args->n != 2) {
		tool_usage(args, "Expecting the new name and one image file name");
		return false;
	}
	c->new_name = args->operands[0];
	args->operands++;
	args->n--;
	return true;
}

static int run(struct args *args)
{
	unsigned flags = IMAGE_NO_BACKING | IMAGE_NO_DATA_FILES;
	struct change c = {0};
	struct image *img;
	bool json;
	int status = 0;

	if (!tool_output_is_json(args, &json) || !parse_action(args, &c) ||
	    !take_new_name(args, &c))
		return 1;
	if (args->n != 1)
		return tool_usage(args, "Expecting one image file name");
	if (c.action && c.action != 'l')
		flags |= IMAGE_RDWR;
	if ((flags & IMAGE_RDWR) && opt_given(args, 'U')) {
		tool_error("Could not open '%s': force-share=on can only be used with read-only "
			   "images",
			   args->operands[0]);
		return 1;
	}
	img = tool_open_operand(args, flags, NULL);
	if (!img)
		return args->mount ? change(args, NULL, &c) : 1;
	if (c.action)
		status = flags & IMAGE_RDWR ? change(args, img, &c) : list(img, json);
	return tool_close(img, status);
}

const struct command command_snapshot = {
	.name = "snapshot",
	.run = run,
	.options = options,
	.mounted_read = MOUNTED_HELD,
	.mounted_write = MOUNTED_SENT,
	.operands = "[NEW] FILE",
	.summary = "List, create, apply, delete or rename the internal snapshots of an image",
	.examples = {"snapshot -c before-upgrade disk.qcow2", "snapshot -l disk.qcow2",
		     "snapshot -a before-upgrade disk.qcow2"},
};
