/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The first cause of a data path error, kept on the image until somebody tells it. */
#include "config.h"

#include <stdarg.h>

#include "image/core.h"

/*
 * Records why a data path function is about to return -err (err is positive or
 * negative, both are taken). Only the first cause is kept: what follows is its
 * consequence. offset: bytes of the disk.
 */
void image_fault(struct image *img, int err, uint64_t offset, const char *format, ...)
{
	g_autofree char *words = NULL;
	va_list ap;

	if (img->core->fault)
		return;
	va_start(ap, format);
	words = g_strdup_vprintf(format, ap);
	va_end(ap);
	if (ABS(err) == EIO)
		img->core->fault = g_strdup_printf("%s: offset %" G_GUINT64_FORMAT ": %s",
						   img->filename, offset, words);
	else
		img->core->fault =
			g_strdup_printf("%s: offset %" G_GUINT64_FORMAT ": %s (%s)", img->filename,
					offset, words, g_strerror(ABS(err)));
}

const char *image_fault_text(struct image *img)
{
	for (; img; img = img->backing) {
		if (img->core->fault)
			return img->core->fault;
		if (img->core->owner && img->core->owner->core->fault)
			return img->core->owner->core->fault;
	}
	return NULL;
}

const char *image_cause(struct image *img, int err)
{
	const char *text = image_fault_text(img);

	return text ? text : g_strerror(-err);
}

bool image_fail(struct image *img, int err, const char *what, GError **error)
{
	g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_FAILED, "%s: %s", what, image_cause(img, err));
	return false;
}

bool image_unsupported(GError **error, const char *sentence)
{
	g_set_error_literal(error, IMAGE_ERROR, IMAGE_ERROR_UNSUPPORTED, sentence);
	return false;
}

void image_fault_clear(struct image *img)
{
	for (; img; img = img->backing) {
		g_clear_pointer(&img->core->fault, g_free);
		if (img->core->owner)
			g_clear_pointer(&img->core->owner->core->fault, g_free);
	}
}

void image_warn(struct image *img, const char *format, ...)
{
	const struct image_open_options *o = &img->core->options;
	g_autofree char *words = NULL, *sentence = NULL;
	va_list ap;

	if (!o->warn)
		return;
	va_start(ap, format);
	words = g_strdup_vprintf(format, ap);
	va_end(ap);
	sentence = g_strdup_printf("'%s': %s", img->filename, words);
	o->warn(o->warn_arg, sentence);
}
