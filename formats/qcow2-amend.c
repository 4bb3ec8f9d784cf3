/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: changing what an image was created with: version, lazy refcounts, refcount width, size,
 * names. Everything is checked before anything is changed; then one change after the other is made,
 * each with the header as its point of commit, in an order in which the image is valid between any
 * two of them.
 */
#include "formats/qcow2.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "image/cache.h"
#include "image/units.h"

const struct option_desc qcow2_amend_options[] = {
	{"backing_file", OPTION_STRING, "File name of a base image", NULL},
	{"backing_fmt", OPTION_STRING, "Image format of the base image", NULL},
	{"compat", OPTION_STRING, "Compatibility level (v2 [0.10] or v3 [1.1])", NULL},
	{"data_file", OPTION_STRING, "File name of an external data file", NULL},
	{"data_file_raw", OPTION_BOOL, "The external data file must stay valid as a raw image",
	 NULL},
	{"lazy_refcounts", OPTION_BOOL, "Postpone refcount updates", NULL},
	{"refcount_bits", OPTION_NUMBER, "Width of a reference count entry in bits", NULL},
	{"size", OPTION_SIZE, "Virtual disk size", NULL},
	{NULL},
};

struct amend {
	struct image *img;
	struct qcow2 *q;
	const struct image_progress *progress;
	char *backing, *backing_format, *compat, *data_file;
	unsigned version, order; /* wanted */
	uint64_t size;
	bool lazy, set_lazy, raw, set_raw;
};

/* ---- what is asked for ------------------------------------------------------------------------
 */

static bool take_flag(struct options *o, const char *key, bool *given, bool *value, GError **error)
{
	*given = options_peek(o, key);
	return options_take_bool(o, key, value, error);
}

static bool parse_compat(struct amend *a, GError **error)
{
	a->version = a->q->header.version;
	if (!a->compat)
		return true;
	if (!strcmp(a->compat, "0.10") || !strcmp(a->compat, "v2")) {
		a->version = 2;
	} else if (!strcmp(a->compat, "1.1") || !strcmp(a->compat, "v3")) {
		a->version = 3;
	} else {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE, "Unknown compatibility level %s",
			    a->compat);
		return false;
	}
	return true;
}

static bool parse_width(struct amend *a, struct options *o, GError **error)
{
	uint64_t bits = 1ull << a->q->header.refcount_order;

	if (!options_take_size(o, "refcount_bits", &bits, error))
		return false;
	if (!bits || bits > 64 || (bits & (bits - 1)))
		return image_unsupported(
			error, "Refcount width must be a power of two and may not exceed 64 "
			       "bits");
	a->order = __builtin_ctzll(bits);
	return true;
}

static bool parse(struct amend *a, struct options *o, GError **error)
{
	a->backing = options_take_string(o, "backing_file");
	a->backing_format = options_take_string(o, "backing_fmt");
	a->compat = options_take_string(o, "compat");
	a->data_file = options_take_string(o, "data_file");
	a->size = a->img->size;
	return parse_compat(a, error) && parse_width(a, o, error) &&
	       take_flag(o, "lazy_refcounts", &a->set_lazy, &a->lazy, error) &&
	       take_flag(o, "data_file_raw", &a->set_raw, &a->raw, error) &&
	       options_take_size(o, "size", &a->size, error) && options_refuse_rest(o, NULL, error);
}

/* ---- what is possible --------------------------------------------------------------------------
 */

/* "Version 2 images ... have a fixed refcount_order", no features, no size of a snapshot's own. */
static bool may_downgrade(const struct amend *a, GError **error)
{
	const struct qcow2_header *h = &a->q->header;
	uint64_t others = h->incompatible & ~(QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_DATA_FILE |
					      QCOW2_INCOMPAT_COMPRESSION);

	if (a->order != 4)
		return image_unsupported(
			error, a->order == h->refcount_order
				       ? "compat=0.10 requires refcount_bits=16"
				       : "Refcount widths other than 16 bits require "
					 "compatibility level 1.1 or above (use compat=1.1 or "
					 "greater)");
	if (a->q->external)
		return image_unsupported(error, "Cannot downgrade an image with a data file");
	if (others) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_UNSUPPORTED,
			    "Cannot downgrade an image with incompatible features 0x%" PRIx64
			    " set",
			    others);
		return false;
	}
	if (h->has_bitmaps)
		return image_unsupported(
			error, "Cannot downgrade an image with bitmaps: remove them first");
	for (unsigned i = 0; i < h->nb_snapshots; i++) {
		struct qcow2_snapshot s;

		if (!qcow2_snapshot_read(a->img, i, &s, error))
			return false;
		if (s.vm_state_size > UINT32_MAX || (s.has_disk_size && s.disk_size != a->size))
			return image_unsupported(error,
						 "Internal snapshots prevent downgrade of image");
	}
	return true;
}

static bool check_names(const struct amend *a, GError **error)
{
	const struct qcow2_header *h = &a->q->header;

	if (a->set_raw && a->raw && !a->q->data_file_raw)
		return image_unsupported(error, "data-file-raw cannot be set on existing images");
	if (a->data_file && !a->q->external)
		return image_unsupported(
			error, "data-file can only be set for images that use an external "
			       "data file");
	if (a->backing && *a->backing && a->q->data_file_raw)
		return image_unsupported(
			error, "Backing file and data-file-raw cannot be used at the same "
			       "time");
	if (a->backing_format && !(a->backing ? *a->backing : h->backing_name != NULL))
		return image_unsupported(error,
					 "Backing format cannot be used without backing file");
	return true;
}

static bool check(const struct amend *a, GError **error)
{
	if (a->set_lazy && a->lazy && a->version < 3)
		return image_unsupported(
			error, "Lazy refcounts only supported with compatibility level 1.1 "
			       "and above (use compat=1.1 or greater)");
	if (a->order != 4 && a->version < 3 && a->q->header.version < 3)
		return image_unsupported(error,
					 "Refcount widths other than 16 bits require compatibility "
					 "level 1.1 or above (use compat=1.1 or greater)");
	if (a->size % 512)
		return image_unsupported(error, "The new size must be a multiple of 512");
	if (!check_names(a, error))
		return false;
	return a->version >= a->q->header.version || may_downgrade(a, error);
}

/* ---- the changes -------------------------------------------------------------------------------
 */

static bool store(struct amend *a, const struct qcow2_header *old, const char *what, GError **error)
{
	int err = qcow2_flush_header(a->img);

	if (!err) {
		qcow2_relayout(a->img);
		return true;
	}
	a->q->header.version = old->version;
	a->q->header.compatible = old->compatible;
	a->q->header.incompatible = old->incompatible;
	a->q->header.autoclear = old->autoclear;
	a->q->header.compression_type = old->compression_type;
	return image_fail(a->img, err, what, error);
}

static bool upgrade(struct amend *a, GError **error)
{
	struct qcow2_header old = a->q->header;
	bool changed;

	if (a->version <= old.version)
		return true;
	/* Version 3 wants the disk's size in each snapshot; in version 2 it may be there. */
	if (!qcow2_snapshots_complete(a->img, &changed, error))
		return false;
	a->q->header.version = 3;
	return store(a, &old, "Could not write the new version", error);
}

static bool change_width(struct amend *a, GError **error)
{
	int err;

	if (a->order == a->q->header.refcount_order)
		return true;
	err = qcow2_change_refcount_order(a->img, a->order, a->progress, error);
	if (err && error && !*error)
		image_fail(a->img, err, "Could not change the refcounts' width", error);
	return err == 0;
}

/* What was written is durable when the header is, so that nothing is left that is dirty. */
static void end_lazy(struct amend *a)
{
	a->q->header.compatible &= ~QCOW2_COMPAT_LAZY_REFCOUNTS;
	a->q->header.incompatible &= ~QCOW2_INCOMPAT_DIRTY;
	a->q->writer->set_dirty = false;
}

static bool change_flags(struct amend *a, GError **error)
{
	struct qcow2_header *h = &a->q->header, old = *h;

	if (a->set_lazy && a->lazy)
		h->compatible |= QCOW2_COMPAT_LAZY_REFCOUNTS;
	else if (a->set_lazy)
		end_lazy(a);
	if (a->set_raw && !a->raw)
		h->autoclear &= ~QCOW2_AUTOCLEAR_DATA_FILE_RAW;
	if (h->compatible == old.compatible && h->autoclear == old.autoclear)
		return true;
	if (!store(a, &old, "Could not write the new features", error))
		return false;
	a->q->data_file_raw = a->q->external && (h->autoclear & QCOW2_AUTOCLEAR_DATA_FILE_RAW);
	return true;
}

static bool change_data_file(struct amend *a, GError **error)
{
	struct qcow2_header *h = &a->q->header;
	char *old = h->data_file;
	int err;

	if (!a->data_file)
		return true;
	h->data_file = *a->data_file ? g_strdup(a->data_file) : NULL;
	err = qcow2_flush_header(a->img);
	if (err) {
		g_free(h->data_file);
		h->data_file = old;
		return image_fail(a->img, err, "Could not write the data file's name", error);
	}
	g_free(old);
	return true;
}

static bool change_backing(struct amend *a, GError **error)
{
	const struct qcow2_header *h = &a->q->header;
	g_autofree char *name = g_strdup(a->backing ? a->backing : h->backing_name);

	if (!a->backing && !a->backing_format)
		return true;
	return qcow2_set_backing(a->img, name, a->backing_format, error);
}

static bool change_size(struct amend *a, GError **error)
{
	struct options *none;
	bool ok;

	/* An image that cannot be resized can still be amended otherwise. */
	if (a->size == a->img->size)
		return true;
	none = options_new();
	ok = qcow2_resize(a->img, a->size, none, error);
	options_free(none);
	return ok;
}

static bool downgrade(struct amend *a, GError **error)
{
	struct qcow2_header *h = &a->q->header, old = *h;

	if (a->version >= h->version)
		return true;
	if (!qcow2_expand_zeroes(a->img, a->progress, error))
		return false;
	old = *h;
	end_lazy(a);
	h->version = 2;
	h->incompatible = h->compatible = h->autoclear = 0;
	h->compression_type = 0;
	if (!store(a, &old, "Could not write the old version", error))
		return false;
	a->q->codec = &codec_deflate;
	return true;
}

bool qcow2_amend(struct image *img, struct options *options, const struct image_progress *progress,
		 GError **error)
{
	struct amend a = {.img = img, .q = qcow2_of(img), .progress = progress};
	bool ok;
	int err;

	image_fault_clear(img);
	ok = parse(&a, options, error) && check(&a, error);
	if (ok) {
		err = qcow2_begin(img);
		if (err)
			ok = image_fail(img, err, "the image cannot be changed", error);
	}
	ok = ok && upgrade(&a, error) && change_width(&a, error) && change_flags(&a, error) &&
	     change_data_file(&a, error) && change_backing(&a, error) && change_size(&a, error) &&
	     downgrade(&a, error);
	g_free(a.backing);
	g_free(a.backing_format);
	g_free(a.compat);
	g_free(a.data_file);
	return ok;
}

/* ---- the backing file's name --------------------------------------------------------------------
 */

static void replace(char **to, const char *value)
{
	g_free(*to);
	*to = g_strdup(value);
}

/* Would the header have room for it? Nothing is written. */
static int try_header(struct image *img, const char *name, const char *format)
{
	struct qcow2_header *h = &qcow2_of(img)->header, old = *h;
	int err;

	h->backing_name = (char *)name;
	h->backing_format = name ? (char *)format : NULL;
	err = qcow2_header_try(img);
	*h = old;
	return err;
}

bool qcow2_check_backing(struct image *img, const char *name, const char *format, GError **error)
{
	int err;

	if (name && !*name)
		name = NULL;
	if (name && strlen(name) > QCOW2_MAX_BACKING_NAME)
		return image_unsupported(error, "Backing file name too long: more than 1023 bytes");
	if (name && format && strlen(format) > QCOW2_MAX_BACKING_FORMAT)
		return image_unsupported(error, "Backing format name too long: more than 15 bytes");
	if (name && qcow2_of(img)->data_file_raw)
		return image_unsupported(
			error, "An image whose data file is raw cannot have a backing file");
	image_fault_clear(img);
	err = try_header(img, name, format);
	return err ? image_fail(img, err, "The header cannot take the backing file's name", error)
		   : true;
}

bool qcow2_set_backing(struct image *img, const char *name, const char *format, GError **error)
{
	struct qcow2_header *h = &qcow2_of(img)->header;
	char *old_name = h->backing_name, *old_format = h->backing_format;
	int err;

	if (!qcow2_check_backing(img, name, format, error))
		return false;
	if (name && !*name)
		name = NULL;
	h->backing_name = g_strdup(name);
	h->backing_format = name ? g_strdup(format) : NULL;
	err = qcow2_flush_header(img);
	if (err) {
		g_free(h->backing_name);
		g_free(h->backing_format);
		h->backing_name = old_name;
		h->backing_format = old_format;
		return image_fail(img, err, "Could not write the backing file's name", error);
	}
	g_free(old_name);
	g_free(old_format);
	replace(&img->backing_name, name);
	replace(&img->backing_format, h->backing_format);
	return true;
}
