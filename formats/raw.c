/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* raw: the disk is the file, or a window of it. */
#include "config.h"

#include <errno.h>
#include <string.h>

#include "image/create.h"
#include "image/image.h"

struct raw {
	uint64_t offset; /* of the window in the file, bytes */
	bool fixed;	 /* the user said where the window ends */
};

static const struct option_desc raw_open_options[] = {
	{"offset", OPTION_SIZE, "Where in the file the disk begins", "0"},
	{"size", OPTION_SIZE, "How long it is (default: up to the end of the file)", NULL},
	{NULL},
};

static const struct option_desc raw_create_options[] = {
	{"size", OPTION_SIZE, "Virtual disk size", NULL},
	{"nocow", OPTION_BOOL, "Turn off copy-on-write (valid only on btrfs)", NULL,
	 .protocol = true},
	{"preallocation", OPTION_STRING, "Preallocation mode (allowed values: off, falloc, full)",
	 NULL, .protocol = true},
	{"extent_size_hint", OPTION_SIZE, "Extent size hint for the image file, 0 to disable", NULL,
	 .protocol = true},
	{NULL},
};

static int raw_probe(const struct probe *p)
{
	return 1; /* anything can be raw: only when nothing else fits */
}

static bool check_window(uint64_t file_size, uint64_t offset, uint64_t size, GError **error)
{
	if (offset > file_size) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE,
			    "Offset (%" G_GUINT64_FORMAT ") cannot be greater than size of the "
			    "containing file (%" G_GUINT64_FORMAT ")",
			    offset, file_size);
		return false;
	}
	if (size > file_size - offset) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE,
			    "The sum of offset (%" G_GUINT64_FORMAT ") and size (%" G_GUINT64_FORMAT
			    ") has to be smaller or equal to the actual size of the containing "
			    "file (%" G_GUINT64_FORMAT ")",
			    offset, size, file_size);
		return false;
	}
	return true;
}

static bool raw_open(struct image *img, struct options *options, GError **error)
{
	uint64_t offset = 0, size = UINT64_MAX;
	struct raw *raw;

	if (!options_take_size(options, "offset", &offset, error) ||
	    !options_take_size(options, "size", &size, error))
		return false;
	if (!check_window(file_size(img->file), offset, size == UINT64_MAX ? 0 : size, error))
		return false;
	raw = g_new(struct raw, 1);
	raw->offset = offset;
	raw->fixed = size != UINT64_MAX;
	if (!raw->fixed)
		size = file_size(img->file) - offset;
	img->size = size;
	img->state = raw;
	return true;
}

static void raw_close(struct image *img)
{
	g_free(img->state);
}

static int raw_map(struct image *img, uint64_t offset, uint64_t len, struct extent *e)
{
	const struct raw *raw = img->state;

	*e = (struct extent){
		.start = offset,
		.len = len,
		.kind = EXTENT_DATA,
		.flags = EXTENT_WRITABLE | EXTENT_SPARSE,
		.file = img->file,
		.host = raw->offset + offset,
	};
	return 0;
}

/* ---- create and resize ----------------------------------------------------------------------- */

static bool check_mode(const char *mode, GError **error)
{
	if (!strcmp(mode, "off") || !strcmp(mode, "falloc") || !strcmp(mode, "full"))
		return true;
	g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE, "Unsupported preallocation mode: %s",
		    mode);
	return false;
}

/* Makes the file `to` bytes long; those from `from` on, if any, get space as mode says. */
static int make_space(struct file *f, uint64_t from, uint64_t to, const char *mode)
{
	int ret = image_set_file_size(f, to);

	if (ret < 0 || to <= from)
		return ret;
	if (strcmp(mode, "falloc") == 0)
		return file_allocate(f, from, to - from);
	if (strcmp(mode, "full") == 0)
		ret = image_write_zero_bytes(f, from, to - from);
	return ret ? ret : file_flush(f);
}

static bool create_file(struct new_file *n, uint64_t size, const char *mode, GError **error)
{
	int ret;

	if (!new_file_open(n, error))
		return false;
	ret = new_file_empty(n);
	if (ret == 0)
		ret = make_space(n->file, 0, size, mode);
	if (ret == 0) {
		new_file_keep(n);
		return true;
	}
	new_file_drop(n);
	g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_FAILED,
		    "Could not make '%s' %" G_GUINT64_FORMAT " bytes long: %s", n->path, size,
		    g_strerror(-ret));
	return false;
}

static bool raw_create(const char *filename, struct options *options, GError **error)
{
	g_autofree char *mode = options_take_string(options, "preallocation");
	struct new_file n = {.path = filename};
	uint64_t size = UINT64_MAX;

	if (!options_take_size(options, "size", &size, error) ||
	    !new_file_take_hints(&n, options, error))
		return false;
	if (size == UINT64_MAX) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE,
			    "Image creation needs a size parameter");
		return false;
	}
	if (mode && !check_mode(mode, error))
		return false;
	return create_file(&n, size, mode ? mode : "off", error);
}

static bool raw_resize(struct image *img, uint64_t size, struct options *options, GError **error)
{
	g_autofree char *mode = options_take_string(options, "preallocation");
	const struct raw *raw = img->state;
	uint64_t end = raw->offset + size, old = file_size(img->file);
	int ret;

	if (mode && !check_mode(mode, error))
		return false;
	if (raw->fixed) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_UNSUPPORTED,
			    "Cannot resize fixed-size raw disks");
		return false;
	}
	if (!S_ISREG(file_stat(img->file)->st_mode) && file_fd(img->file) >= 0) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_UNSUPPORTED,
			    "Cannot resize device files");
		return false;
	}
	ret = end < size || end > INT64_MAX ? -EFBIG
					    : make_space(img->file, old, end, mode ? mode : "off");
	if (ret == 0) {
		img->size = size;
		return true;
	}
	g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_FAILED, "Failed to resize underlying file: %s",
		    g_strerror(-ret));
	/* Without the space that was asked for the old size is the truth. */
	if (file_size(img->file) > old)
		file_truncate(img->file, old);
	return false;
}

static bool raw_measure(struct options *options, uint64_t size, struct image *source,
			struct image_measure *m, GError **error)
{
	m->required = m->fully_allocated = (size + 511) & ~G_GUINT64_CONSTANT(511);
	return true;
}

const struct format format_raw = {
	.name = "raw",
	.long_name = "raw disk bytes",
	.open_options = raw_open_options,
	.create_options = raw_create_options,
	.probe = raw_probe,
	.open = raw_open,
	.close = raw_close,
	.map = raw_map,
	.create = raw_create,
	.measure = raw_measure,
	.resize = raw_resize,
};
