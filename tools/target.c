/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tools/target.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

const struct format *target_format(const char *word)
{
	GError *error = NULL;
	const struct format *format = image_find_format(word, &error);

	if (!format) {
		tool_say(error, NULL);
		return NULL;
	}
	if (!format->create || strcmp(format->name, "raw") != 0) {
		tool_error("Writing format '%s' is not available in this version: -O raw is",
			   format->name);
		return NULL;
	}
	return format;
}

static bool uses_file(struct image *img, const struct stat *st)
{
	for (; img; img = img->backing) {
		const struct stat *own = file_stat(img->file);

		if (file_fd(img->file) >= 0 && own->st_dev == st->st_dev &&
		    own->st_ino == st->st_ino)
			return true;
	}
	return false;
}

bool target_is_source(const char *name, struct image *const *sources, unsigned n)
{
	struct stat st;

	if (file_lookup(name, &st) < 0)
		return false;
	for (unsigned i = 0; i < n; i++) {
		if (uses_file(sources[i], &st)) {
			tool_error("'%s' is also read from ('%s'): nothing was written", name,
				   sources[i]->filename);
			return true;
		}
	}
	return false;
}

static void remove_made(struct target *t)
{
	struct stat st;

	if (t->create && !t->existed && file_lookup(t->name, &st) == 0 && S_ISREG(st.st_mode))
		unlink(t->name);
}

bool target_open(struct args *args, struct target *t, const struct format *format,
		 struct options *o, const struct tool_source *s)
{
	struct stat st;

	if (t->create) {
		GError *error = NULL;

		t->existed = file_lookup(t->name, &st) == 0;
		if (!image_create(t->name, format, o, &error)) {
			g_autofree char *prefix = g_strdup_printf(
				"%s: error while converting %s: ", t->name, format->name);

			tool_say(error, prefix);
			remove_made(t);
			return false;
		}
	}
	t->img = tool_open(args, t->name, s);
	if (!t->img) {
		remove_made(t);
		return false;
	}
	t->is_zero = t->create && S_ISREG(file_stat(t->img->file)->st_mode);
	return true;
}

bool target_close(struct target *t, GError *failure)
{
	int ret = failure ? 0 : image_flush(t->img);

	if (ret < 0)
		g_set_error(&failure, IMAGE_ERROR, IMAGE_ERROR_FAILED,
			    "error while writing '%s': %s", t->name, tool_cause(t->img, ret));
	image_unref(t->img);
	t->img = NULL;
	if (!failure)
		return true;
	remove_made(t);
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
