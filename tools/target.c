/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tools/target.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "image/create.h"
#include "tools/through.h"

const struct format *target_format(const char *word)
{
	GError *error = NULL;
	const struct format *format = image_find_format(word, &error);

	if (!format) {
		tool_say(error, NULL);
		return NULL;
	}
	if (!format->create) {
		tool_error("Format driver '%s' does not support image creation", format->name);
		return NULL;
	}
	return format;
}

bool target_is_source(const char *name, struct image *const *sources, unsigned n)
{
	struct stat st;

	if (file_lookup(name, &st) < 0)
		return false;
	for (unsigned i = 0; i < n; i++) {
		if (tool_chain_has(sources[i], &st)) {
			tool_error("'%s' is also read from ('%s'): nothing was written", name,
				   sources[i]->filename);
			return true;
		}
	}
	return false;
}

static void remove_file(const char *name)
{
	struct stat st;

	if (file_lookup(name, &st) == 0 && S_ISREG(st.st_mode))
		unlink(name);
}

static void remove_made(struct target *t)
{
	if (t->create && !t->existed)
		remove_file(t->name);
	if (t->data_name)
		remove_file(t->data_name);
}

/* A data file that is about to be made is taken away with its image. */
static char *new_data_file(const char *name, const struct options *o)
{
	const char *data = o ? options_peek(o, "data_file") : NULL;
	g_autofree char *path = data ? image_path_beside(name, data) : NULL;
	struct stat st;

	return path && file_lookup(path, &st) == -ENOENT ? g_steal_pointer(&path) : NULL;
}

/* What the user named as backing file may be opened, wherever it is. */
static bool allow_backing(struct args *args, struct target *t, const char *backing)
{
	g_autofree char *path = image_path_beside(t->name, backing);
	g_autofree char *folder = g_path_get_dirname(path);
	struct gate *gate = tool_gate(args);
	GError *error = NULL;

	if (gate && gate_allow(gate, folder, &error))
		return true;
	if (error)
		tool_say(error, NULL);
	return false;
}

static void target_clear(struct target *t)
{
	image_unref(t->img);
	t->img = NULL;
	g_clear_pointer(&t->data_name, g_free);
}

bool target_open(struct args *args, struct target *t, const struct format *format,
		 struct options *o, const struct tool_source *s)
{
	const char *backing = t->create && o ? options_peek(o, "backing_file") : NULL;
	struct stat st;

	if (backing && !allow_backing(args, t, backing))
		return false;
	if (t->create) {
		g_autofree char *data_name = new_data_file(t->name, o);
		GError *error = NULL;

		t->existed = file_lookup(t->name, &st) == 0;
		if (!image_create(t->name, format, o, &error)) {
			g_autofree char *prefix = g_strdup_printf(
				"%s: error while converting %s: ", t->name, format->name);

			through_explain(args, t->name, &error);
			tool_say(error, prefix);
			return false;
		}
		t->data_name = g_steal_pointer(&data_name);
	}
	t->img = tool_open(args, t->name, s);
	if (!t->img) {
		remove_made(t);
		target_clear(t);
		return false;
	}
	/* What an image with tables does not describe is zero, on a device too. */
	t->is_zero = t->create && !t->img->backing_name &&
		     (t->img->format->reserve || S_ISREG(file_stat(t->img->file)->st_mode));
	return true;
}

void target_abandon(struct target *t)
{
	remove_made(t);
	target_clear(t);
}

bool target_close(struct target *t, GError *failure)
{
	int ret = failure ? 0 : image_settle(t->img);

	if (ret < 0)
		g_set_error(&failure, IMAGE_ERROR, IMAGE_ERROR_FAILED,
			    "error while writing '%s': %s", t->name, image_cause(t->img, ret));
	if (failure)
		remove_made(t);
	target_clear(t);
	if (!failure)
		return true;
	if (t->existed || !t->create) {
		g_autofree char *sentence =
			g_strdup_printf("%s; '%s' is incomplete", failure->message, t->name);

		tool_error("%s", sentence);
		g_error_free(failure);
	} else {
		tool_say(failure, NULL);
	}
	return false;
}
