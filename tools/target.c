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
	if (!t->img)
		remove_made(t);
	return t->img != NULL;
}

bool target_close(struct target *t, bool ok)
{
	if (t->img && ok) {
		int ret = image_flush(t->img);

		if (ret < 0) {
			tool_error("error while writing '%s': %s", t->name,
				   tool_cause(t->img, ret));
			ok = false;
		}
	}
	/* A file that was there before is not removed, but its old content is gone: emptied, it
	 * does not look like a whole image. */
	if (t->img && !ok && t->create && t->existed)
		(void)file_truncate(t->img->file, 0);
	image_unref(t->img);
	t->img = NULL;
	if (!ok && t->create)
		remove_made(t);
	else if (!ok)
		tool_error("'%s' is incomplete", t->name);
	return ok;
}
