/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* control/resize: "[--shrink] [+|-]SIZE"; what is read is the size in bytes. */
#include "config.h"

#include <errno.h>
#include <string.h>

#include "fs/control.h"
#include "fs/events.h"
#include "fs/handles.h"
#include "fs/kernel.h"
#include "fs/resized.h"

#define SHRINK "--shrink"

/* Takes the word that allows shrinking off the line. */
static bool take_shrink(char **line)
{
	size_t len = strlen(SHRINK);

	if (strncmp(*line, SHRINK, len) != 0 || ((*line)[len] != ' ' && (*line)[len] != '\t'))
		return false;
	*line += len;
	*line += strspn(*line, " \t");
	return true;
}

static int resize(struct tree *t, uint64_t size, GError **error)
{
	uint64_t before = tree_image(t)->size;

	if (!image_resize(tree_image(t), size, NULL, error))
		return -control_errno(*error);
	tree_wrote(t);
	kernel_changed(t);
	resized_tell(t);
	if (size != before)
		events_tell("resized", EVENT_NUMBER("size", size));
	return 0;
}

/* What lies behind the new end must not be under anybody's hands. */
static int shrink(struct tree *t, uint64_t size, GError **error)
{
	int ret;

	if (!handles_bar(DISK_TOP, true))
		return control_refuse(error, EBUSY, "disk.raw or a partition is open for writing");
	ret = resize(t, size, error);
	handles_unbar();
	return ret;
}

int control_resize_command(struct tree *t, struct control_open *o, char *line, GError **error)
{
	bool may_shrink = take_shrink(&line);
	struct size_change change;
	uint64_t size, old;

	/* What was written behind the end, and the kernel still keeps, makes the disk longer. */
	kernel_settle();
	old = tree_image(t)->size;

	if (!units_parse_change(line, &change, error) ||
	    !units_apply_change(&change, old, &size, error))
		return -EINVAL;
	if (size >= old)
		return resize(t, size, error);
	if (!may_shrink)
		return control_refuse(error, EINVAL,
				      "the disk would lose what lies behind byte %" G_GUINT64_FORMAT
				      ": write \"" SHRINK " SIZE\" if it is to",
				      size);
	return shrink(t, size, error);
}

int control_resize_show(struct tree *t, struct control_open *o, GString *out, GError **error)
{
	g_string_append_printf(out, "%" G_GUINT64_FORMAT "\n", tree_image(t)->size);
	return 0;
}
