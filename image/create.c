/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Making new image files: checks before anything is touched, and nothing half-made left behind. */
#include "config.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "image/core.h"
#include "image/create.h"
#include "image/option.h"

bool new_file_take_hints(struct new_file *n, struct options *options, GError **error)
{
	uint64_t hint = 1 << 20; /* images grow by small pieces, which would fragment them */

	if (!options_take_bool(options, "nocow", &n->nocow, error) ||
	    !options_take_size(options, "extent_size_hint", &hint, error))
		return false;
	if (hint > UINT32_MAX) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE, "Extent size hint is too large");
		return false;
	}
	n->extent_hint = hint;
	return true;
}

bool new_file_open(struct new_file *n, GError **error)
{
	static const char theirs[] = "Could not open";
	struct file_options fo = {
		.flags = FILE_RDWR | FILE_CREATE | FILE_EXCL,
		.perms = PERM_WRITE | PERM_RESIZE,
		.unshared = PERM_CONSISTENT_READ | PERM_WRITE | PERM_RESIZE,
	};
	GError *why = NULL;
	struct stat st;

	if (n->nocow)
		fo.flags |= FILE_NOCOW;
	n->made = file_lookup(n->path, &st) == -ENOENT;
	if (!n->made)
		fo.flags &= ~(FILE_CREATE | FILE_EXCL);
	n->file = file_open(n->path, &fo, &why);
	if (n->file)
		return true;
	if (g_str_has_prefix(why->message, theirs))
		g_set_error(error, why->domain, why->code, "Could not create%s",
			    why->message + strlen(theirs));
	else
		g_propagate_error(error, g_steal_pointer(&why));
	g_clear_error(&why);
	return false;
}

static bool is_device(struct file *f)
{
	return file_fd(f) >= 0 && !S_ISREG(file_stat(f)->st_mode);
}

int new_file_empty(struct new_file *n)
{
	bool was_empty = file_size(n->file) == 0;
	int ret;

	if (is_device(n->file))
		return 0;
	ret = file_truncate(n->file, 0);
	if (ret == 0 && n->extent_hint)
		file_hint_extents(n->file, n->extent_hint);
	/* Before anything new is in it: a header of old above clusters of today is a trap. */
	return ret < 0 || was_empty ? ret : file_flush(n->file);
}

void new_file_keep(struct new_file *n)
{
	/* The name must survive a power cut too; a file system that cannot say so is no reason to
	 * throw away an image. */
	if (n->file && n->made)
		file_sync_directory(n->path);
	file_unref(n->file);
	n->file = NULL;
}

void new_file_drop(struct new_file *n)
{
	if (!n->file)
		return;
	if (n->made)
		unlink(n->path);
	else
		new_file_empty(n);
	file_unref(n->file);
	n->file = NULL;
}

int image_set_file_size(struct file *f, uint64_t size)
{
	if (is_device(f))
		return size <= file_size(f) ? 0 : -ENOSPC;
	return file_truncate(f, size);
}

int image_write_zero_bytes(struct file *f, uint64_t start, uint64_t len)
{
	enum { CHUNK = 1 << 20 };
	g_autofree uint8_t *zeroes = g_malloc0(CHUNK);
	int ret = 0;

	while (ret == 0 && len > 0) {
		uint64_t n = MIN(len, CHUNK);

		ret = file_write(f, start, zeroes, n);
		start += n;
		len -= n;
	}
	return ret;
}

char *image_path_beside(const char *referrer, const char *name)
{
	const char *path;

	if (filename_classify(name, &path) != FILENAME_PATH)
		return g_strdup(name);
	return filename_beside(referrer, path);
}

/* Are both there, and one file? */
static bool name_one_file(const char *x, const char *y)
{
	struct stat a, b;

	return file_lookup(x, &a) == 0 && file_lookup(y, &b) == 0 && stat_same_file(&a, &b);
}

/* Creating empties a file: never one that the new image is to stand on. */
static bool check_other(const char *path, const char *option, const char *what,
			struct options *options, GError **error)
{
	const char *name = options_peek(options, option);
	g_autofree char *other = name ? image_path_beside(path, name) : NULL;

	if (!other || (strcmp(other, path) != 0 && !name_one_file(path, other)))
		return true;
	g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE,
		    "Error: Trying to create an image with the same filename as the %s", what);
	return false;
}

bool image_check_names(const char *filename, struct options *options, GError **error)
{
	const char *backing = options_peek(options, "backing_file");
	const char *data = options_peek(options, "data_file");
	g_autofree char *data_path = data ? image_path_beside(filename, data) : NULL;

	if (backing && !*backing) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE,
			    "Expected backing file name, got empty string");
		return false;
	}
	if (!check_other(filename, "backing_file", "backing file", options, error) ||
	    !check_other(filename, "data_file", "data file", options, error))
		return false;
	if (!data || !backing)
		return true;
	g_autofree char *backing_path = image_path_beside(filename, backing);

	if (!name_one_file(data_path, backing_path))
		return true;
	g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE, "The data file '%s' is the backing file",
		    data);
	return false;
}

bool image_create(const char *filename, const struct format *format, struct options *options,
		  GError **error)
{
	const char *path;

	if (!format->create) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_UNSUPPORTED,
			    "Format driver '%s' does not support image creation", format->name);
		return false;
	}
	if (filename_classify(filename, &path) != FILENAME_PATH) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_UNSUPPORTED,
			    "Could not create '%s': Unknown protocol", filename);
		return false;
	}
	if (!options_validate(options, format->create_options, error)) {
		g_prefix_error(error, "%s: ", filename);
		return false;
	}
	return image_check_names(path, options, error) && format->create(path, options, error);
}

struct image *image_open_beside(const char *filename, const char *name,
				const struct image_open_options *o, GError **error)
{
	g_autofree char *path = image_path_beside(filename, name);

	return image_open(path, o, error);
}
