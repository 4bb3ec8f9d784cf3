/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "fs/overlay.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/file-unnamed.h"

/* The overlay that was made for this mount. */
static struct {
	char *path;
	struct stat st;
} made;

/* What the layer is to stand on. */
struct base {
	char *path; /* real, absolute */
	const struct format *format;
	uint64_t size;
	struct stat st;
};

static void base_clear(struct base *b)
{
	free(b->path);
}

static bool look_at_base(const struct mount_options *o, const struct image_open_options *open,
			 struct base *b, GError **error)
{
	struct image_open_options plain = {
		.format = o->format,
		.flags = IMAGE_NO_BACKING | IMAGE_NO_DATA_FILES,
		.gate = open->gate,
	};
	struct image *img;

	if (g_str_has_prefix(o->image, "json:")) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE,
			    "%s: -o %s needs the name of a file", o->image,
			    mount_mode_name(o->mode));
		return false;
	}
	img = image_open(o->image, &plain, error);
	if (!img)
		return false;
	b->path = realpath(img->filename, NULL);
	b->format = img->format;
	b->size = img->size;
	b->st = *file_stat(img->file);
	image_unref(img);
	if (!b->path) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_FAILED, "%s: %s", o->image,
			    g_strerror(errno));
		return false;
	}
	/* The user named it: it may be opened wherever it lies. */
	return gate_allow(open->gate, b->path, error);
}

static struct options *new_options(const struct base *b, const char *name)
{
	struct options *options = options_new();
	g_autofree char *size = g_strdup_printf("%" G_GUINT64_FORMAT, b->size);

	options_set(options, "size", size);
	options_set(options, "backing_file", name);
	options_set(options, "backing_fmt", b->format->name);
	return options;
}

static bool create(const char *path, struct options *options, GError **error)
{
	const struct format *qcow2 = image_find_format("qcow2", error);
	bool ok = qcow2 && image_create(path, qcow2, options, error);

	options_free(options);
	return ok;
}

/* ---- overlay= ------------------------------------------------------------------------------- */

static bool refuse(const struct mount_options *o, GError **error, const char *why)
{
	g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_REFUSED,
		    "'%s' cannot be the overlay of '%s': %s", o->overlay, o->image, why);
	return false;
}

/*
 * How the overlay names its backing file: what lies in its folder or below moves with it, all
 * else stays where it is.
 */
static char *name_for(const struct mount_options *o, const struct base *b, GError **error)
{
	g_autofree char *folder = g_path_get_dirname(o->overlay);
	char *real = realpath(folder, NULL), *name;
	size_t len = real ? strlen(real) : 0;

	if (!real) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_FAILED, "Could not create '%s': %s",
			    o->overlay, g_strerror(errno));
		return NULL;
	}
	if (len > 1 && !strncmp(b->path, real, len) && b->path[len] == '/')
		/* "a:b" by itself would name a protocol. */
		name = g_strconcat(strchr(b->path + len, ':') ? "./" : "", b->path + len + 1, NULL);
	else
		name = g_strdup(b->path);
	free(real);
	return name;
}

static bool make_overlay(const struct mount_options *o, const struct base *b, GError **error)
{
	g_autofree char *name = name_for(o, b, error);
	struct unnamed u;
	int ret;

	if (!name)
		return false;
	/* Bytes of the image come into it: who may not read one may not read the other. */
	if (!unnamed_open(&u, o->overlay, 0600 | (b->st.st_mode & 0644), error)) {
		g_prefix_error(error, "Could not create '%s': ", o->overlay);
		return false;
	}
	if (!create(u.path, new_options(b, name), error)) {
		g_prefix_error(error, "Could not create '%s': ", o->overlay);
		unnamed_close(&u);
		return false;
	}
	ret = unnamed_publish(&u, o->overlay);
	unnamed_close(&u);
	if (ret == 0)
		ret = file_lookup(o->overlay, &made.st);
	if (ret == 0)
		made.path = g_strdup(o->overlay);
	else
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_FAILED, "Could not create '%s': %s",
			    o->overlay, g_strerror(-ret));
	return ret == 0;
}

/*
 * Read-only, since to open an image for writing can change it: only then is it known whether this
 * is the overlay of this image.
 */
static bool judge_overlay(const struct mount_options *o, const struct base *b,
			  const struct image_open_options *open, GError **error)
{
	struct image_open_options plain = {
		.format = "qcow2",
		.flags = IMAGE_NO_BACKING | IMAGE_NO_DATA_FILES,
		.gate = open->gate,
	};
	struct image *img = image_open(o->overlay, &plain, error);
	g_autofree char *path = NULL, *why = NULL;
	struct stat st;

	if (!img) {
		g_prefix_error(error, "'%s' cannot be the overlay of '%s': ", o->overlay, o->image);
		return false;
	}
	path = image_backing_path(img);
	if (!path)
		why = g_strdup("it has no backing file");
	else if (file_lookup(path, &st) < 0 || !stat_same_file(&st, &b->st))
		why = g_strdup_printf("its backing file is '%s'", path);
	else if (o->format && img->backing_format && strcmp(img->backing_format, b->format->name))
		why = g_strdup_printf("it says that the image's format is %s, not %s",
				      img->backing_format, b->format->name);
	image_unref(img);
	return why ? refuse(o, error, why) : true;
}

static struct image *open_overlay(const struct mount_options *o, const struct base *b,
				  struct image_open_options *open, GError **error)
{
	struct image *img;

	open->format = "qcow2";
	open->backing_format = o->format;
	img = image_open(o->overlay, open, error);
	if (!img || (img->backing && stat_same_file(file_stat(img->backing->file), &b->st)))
		return img;
	image_unref(img);
	refuse(o, error, "another file was put in its place");
	return NULL;
}

struct image *overlay_open(const struct mount_options *o, struct image_open_options *open,
			   GError **error)
{
	struct base b = {0};
	struct image *img = NULL;
	struct stat st = {0};
	bool ok = look_at_base(o, open, &b, error);

	if (ok && file_lookup(o->overlay, &st) == -ENOENT)
		ok = g_file_test(o->overlay, G_FILE_TEST_IS_SYMLINK)
			     ? refuse(o, error, "it is a symbolic link to what is not there")
			     : make_overlay(o, &b, error);
	else if (ok && stat_same_file(&st, &b.st))
		ok = refuse(o, error, "it is the image itself");
	else if (ok)
		ok = judge_overlay(o, &b, open, error);
	if (ok)
		img = open_overlay(o, &b, open, error);
	base_clear(&b);
	return img;
}

void overlay_end(bool failed)
{
	struct stat st;

	if (failed && made.path && file_lookup(made.path, &st) == 0 &&
	    stat_same_file(&st, &made.st))
		unlink(made.path);
	g_clear_pointer(&made.path, g_free);
}

/* ---- scratch --------------------------------------------------------------------------------- */

/* Nothing is to last, so nothing is to be waited for. */
static enum cache_mode without_sync(enum cache_mode cache)
{
	return cache == CACHE_WRITETHROUGH ? CACHE_WRITEBACK
	       : cache == CACHE_DIRECTSYNC ? CACHE_NONE
					   : cache;
}

static struct image *open_scratch(const struct base *b, struct file *file,
				  struct image_open_options *open, GError **error)
{
	struct options *options = new_options(b, b->path);
	int ret;

	/* A small write takes 4 KiB then, and copies nothing from below. */
	options_set(options, "extended_l2", "on");
	options_set(options, "cluster_size", "128k");
	if (!create(scratch_path(file), options, error))
		return NULL;
	ret = scratch_look(file);
	if (ret < 0) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_FAILED, "%s: %s", file_name(file),
			    g_strerror(-ret));
		return NULL;
	}
	open->format = "qcow2";
	open->cache = without_sync(open->cache);
	return image_open_file(file, open, error);
}

struct image *overlay_open_scratch(const struct mount_options *o, struct image_open_options *open,
				   GError **error)
{
	struct base b = {0};
	struct file *file = NULL;
	struct image *img = NULL;

	if (look_at_base(o, open, &b, error))
		file = file_new_scratch("scratch", o->scratch_memory, error);
	if (file)
		img = open_scratch(&b, file, open, error);
	file_unref(file);
	base_clear(&b);
	return img;
}
