/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The gate: which names found inside an image may be opened. An image is data from
 * somebody else; without a gate its backing name "/etc/shadow" reads that
 * file into the guest's disk (CVE-2014-3641, CVE-2015-1851, CVE-2024-32498).
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image/core.h"

struct gate {
	unsigned refs;
	enum gate_policy policy;
	GPtrArray *dirs; /* real paths */
};

struct gate *gate_new(enum gate_policy policy)
{
	struct gate *g = g_new0(struct gate, 1);

	g->refs = 1;
	g->policy = policy;
	g->dirs = g_ptr_array_new_with_free_func(free);
	return g;
}

struct gate *gate_ref(struct gate *g)
{
	g->refs++;
	return g;
}

void gate_free(struct gate *g)
{
	if (!g || --g->refs)
		return;
	g_ptr_array_unref(g->dirs);
	g_free(g);
}

bool gate_is_open(const struct gate *g)
{
	return g->policy == GATE_ANY;
}

bool gate_allow(struct gate *g, const char *word, GError **error)
{
	char *real;

	if (strcmp(word, "any") == 0) {
		g->policy = GATE_ANY;
		return true;
	}
	real = realpath(word, NULL);
	if (!real) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE,
			    "Directory '%s' of --allow-references: %s", word, g_strerror(errno));
		return false;
	}
	g_ptr_array_add(g->dirs, real);
	if (g->policy == GATE_DEFAULT)
		g->policy = GATE_DIRS;
	return true;
}

/* Is path (real, absolute) dir (real, absolute), or below it? */
static bool is_below(const char *path, const char *dir)
{
	size_t len = strlen(dir);

	if (len > 0 && dir[len - 1] == '/') /* the root */
		len--;
	return strncmp(path, dir, len) == 0 && (path[len] == '/' || (len && !path[len]));
}

static bool in_allowed_tree(const struct gate *g, const char *referrer, const char *path)
{
	char *real = realpath(path, NULL), *own = realpath(referrer, NULL);
	bool inside = false;

	if (real && own) {
		/* The image's own directory, after links: a link in it that leads out does not
		 * count. */
		char *slash = strrchr(own, '/');

		slash[slash == own] = '\0';
		inside = is_below(real, own);
	}
	for (guint i = 0; real && !inside && i < g->dirs->len; i++)
		inside = is_below(real, g_ptr_array_index(g->dirs, i));
	free(real);
	free(own);
	return inside;
}

/* Does the file's content say that it is a disk image? Raw says nothing. May yield. */
static bool looks_like_image(const char *path, const struct stat *st)
{
	struct file_options fo = {.flags = FILE_REGULAR_ONLY};
	struct file *f = file_open(path, &fo, NULL);
	const struct format *format = NULL;
	int score = 0;

	if (f && stat_same_file(file_stat(f), st))
		format = probe_format(f, &score, NULL);
	file_unref(f);
	return format && score > 0 && strcmp(format->name, "raw") != 0;
}

static char *refuse(char *path, const char *referrer, const char *name, GError **error,
		    const char *why)
{
	g_free(path);
	g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_REFUSED,
		    "The name '%s' found in image '%s' is not followed: %s", name, referrer, why);
	return NULL;
}

static const char *wrong_type(const struct gate *g, const struct stat *st)
{
	if (S_ISREG(st->st_mode) || (S_ISBLK(st->st_mode) && g->policy == GATE_ANY))
		return NULL;
	if (S_ISBLK(st->st_mode))
		return "it is a block device (--allow-references=any would allow it)";
	return "it is not a regular file";
}

char *gate_check(struct gate *g, const char *referrer, const char *name, struct stat *st,
		 GError **error)
{
	const char *rest, *why;
	char *path;
	int ret;

	if (!*name || strlen(name) > NAME_MAX_IN_IMAGE)
		return refuse(NULL, referrer, *name ? "(too long)" : "", error,
			      "it is no file name");
	switch (filename_classify(name, &rest)) {
	case FILENAME_JSON:
		return refuse(NULL, referrer, name, error,
			      "json: is not taken from an image, only from the command line");
	case FILENAME_PROTOCOL:
		return refuse(NULL, referrer, name, error,
			      "protocols are not taken from an image, only from the command line");
	case FILENAME_PATH:
		break;
	}
	path = filename_beside(referrer, rest);
	ret = file_lookup(path, st);
	if (ret == -ENOTSUP || ret == -EISDIR)
		return refuse(path, referrer, name, error, "it is not a regular file");
	if (ret < 0) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_NOT_FOUND, "Could not open '%s': %s",
			    path, g_strerror(-ret));
		g_free(path);
		return NULL;
	}
	why = wrong_type(g, st);
	if (why)
		return refuse(path, referrer, name, error, why);
	if (g->policy == GATE_ANY || in_allowed_tree(g, referrer, path) ||
	    looks_like_image(path, st))
		return path;
	return refuse(path, referrer, name, error,
		      "it lies outside of the image's directory and is not recognised as a disk "
		      "image (--allow-references=DIR or --allow-references=any would allow it)");
}

char *gate_resolve(struct gate *g, const char *referrer, const char *name, GError **error)
{
	struct stat st;

	return gate_check(g, referrer, name, &st, error);
}
