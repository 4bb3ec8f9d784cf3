/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * control/snapshot: "create NAME", "delete NAME", "apply NAME", "rename OLD NEW". A name is the
 * rest of the line, OLD one word of it; in double quotes either may have blanks at its ends or
 * inside.
 */
#include "config.h"

#include <errno.h>
#include <string.h>

#include "fs/control.h"
#include "fs/snapshot-dir.h"
#include "image/inspect.h"

static const struct {
	const char *word;
	control_fn *change;
	bool two; /* names */
} commands[] = {
	{"create", snapshot_create, false},
	{"delete", snapshot_delete, false},
	{"apply", snapshot_apply, false},
	{"rename", snapshot_rename, true},
};

int control_snapshot_command(struct tree *t, struct control_open *o, char *line, GError **error)
{
	struct snapshot_change c = {0};
	char *word = control_word(&line, false, "command", error);
	unsigned i = 0;

	if (!word)
		return -EINVAL;
	while (i < G_N_ELEMENTS(commands) && strcmp(commands[i].word, word) != 0)
		i++;
	if (i == G_N_ELEMENTS(commands))
		return control_refuse(error, EINVAL,
				      "'%s' is none of create, delete, apply, rename", word);
	c.name = control_word(&line, !commands[i].two, "name of the snapshot", error);
	if (c.name && commands[i].two)
		c.new_name = control_word(&line, true, "new name", error);
	if (!c.name || (commands[i].two && !c.new_name))
		return -EINVAL;
	if (*line)
		return control_refuse(error, EINVAL, "'%s' behind the name is too much", line);
	return commands[i].change(t, &c, error);
}

int control_snapshot_show(struct tree *t, struct control_open *o, GString *out, GError **error)
{
	g_autoptr(GPtrArray) list = image_snapshots(tree_image(t), error);

	if (!list)
		return -EIO;
	if (list->len)
		snapshot_table_text(list, out, SIZE_MAX);
	return 0;
}
