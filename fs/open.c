/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "fs/open.h"

#include <string.h>

#include "fs/log.h"
#include "fs/overlay.h"
#include "image/cache.h"
#include "io/holders.h"

static void warn(void *arg, const char *sentence)
{
	log_message("%s", sentence);
}

static struct gate *make_gate(const struct mount_options *o, GError **error)
{
	struct gate *gate = gate_new(o->allow_references->len ? GATE_DIRS : GATE_DEFAULT);

	for (unsigned i = 0; i < o->allow_references->len; i++) {
		if (!gate_allow(gate, g_ptr_array_index(o->allow_references, i), error)) {
			gate_free(gate);
			return NULL;
		}
	}
	return gate;
}

/* The budget of the metadata cache is that of the mount: each tree gets its share. */
static size_t cache_share(const struct mount_options *o, unsigned loops)
{
	size_t cache = o->cache_size ? o->cache_size : CACHE_DEFAULT_SIZE;

	return MAX(cache / loops, 1);
}

/* sync makes of a mode the one that syncs each write. */
static enum cache_mode cache_of(const struct mount_options *o)
{
	enum cache_mode cache = o->cache >= 0 ? (enum cache_mode)o->cache : CACHE_WRITEBACK;

	if (!o->sync)
		return cache;
	return cache == CACHE_NONE	  ? CACHE_DIRECTSYNC
	       : cache == CACHE_WRITEBACK ? CACHE_WRITETHROUGH
					  : cache;
}

/* What writes to disk.raw do to the image that takes them. */
static void set_writing(const struct mount_options *o, struct image_open_options *open)
{
	open->flags |= IMAGE_RDWR;
	open->discard =
		o->discard == DISCARD_DEFAULT ? DISCARD_UNMAP : (enum discard_mode)o->discard;
	if (o->detect_zeroes >= 0)
		open->detect_zeroes = (enum detect_zeroes)o->detect_zeroes;
}

static void warn_of_raw(const struct mount_options *o, const struct image *img)
{
	if (!o->format && strcmp(img->format->name, "raw") == 0)
		log_message(
			"%s: no format was given, and raw is what nothing else fits: what would "
			"make it look like another format cannot be written (-o format=raw "
			"allows it)",
			o->image);
}

/* Reading goes on in spite of both; who looks at the disk is to know of them. */
static void warn_of_state(const struct image *img)
{
	for (; img; img = img->backing) {
		if (img->corrupt)
			log_message(
				"%s: it is marked as corrupt: imgtool check tells what is wrong",
				img->filename);
		else if (img->dirty && !(img->flags & IMAGE_RDWR))
			log_message("%s: it was not closed properly, and is shown as it is: "
				    "imgtool check tells what is wrong",
				    img->filename);
	}
}

/* An image's own options (json:) say more than -o rw. */
static bool is_writable(const struct mount_options *o, const struct image *img, GError **error)
{
	if (o->mode == MODE_RO || (img->flags & IMAGE_RDWR))
		return true;
	g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE,
		    "%s: its read-only option excludes -o %s", o->image, mount_mode_name(o->mode));
	return false;
}

void open_name_holders(GError **error, const struct image *img)
{
	static const char asks[] = "\nIs another process using the image [";
	g_autofree char *name = NULL, *who = NULL;
	char *question = error && *error ? strstr((*error)->message, asks) : NULL;

	if (!question)
		return;
	/* In the background, the folder is not the one in which names were given. */
	name = img ? g_strdup_printf("/proc/self/fd/%d", file_fd(img->file))
		   : g_strndup(question + strlen(asks), strcspn(question + strlen(asks), "]"));
	*question = '\0';
	who = holders_name(name);
	g_prefix_error(error, "In use by %s: ", who ? who : "another process");
}

/* The words are those of any open, and do not tell that reading may well be allowed. */
static void hint_at_writing(GError **error)
{
	if (error && (g_error_matches(*error, G_FILE_ERROR, G_FILE_ERROR_ACCES) ||
		      g_error_matches(*error, G_FILE_ERROR, G_FILE_ERROR_PERM) ||
		      g_error_matches(*error, G_FILE_ERROR, G_FILE_ERROR_ROFS))) {
		g_autofree char *words = (*error)->message;

		(*error)->message = g_strconcat(
			words, " (-o rw writes to it; ro, overlay= and scratch do not)", NULL);
	}
}

struct image *open_mounted(const struct mount_options *o, unsigned loops, bool first,
			   struct gate **gate, GError **error)
{
	struct image_open_options open = {
		.format = o->format,
		.aio = AIO_AUTO,
		.cache = cache_of(o),
		.cache_size = cache_share(o, loops),
		.warn = first ? warn : NULL,
	};

	struct image *img;

	*gate = open.gate = make_gate(o, error);
	if (!*gate)
		return NULL;
	if (o->mode != MODE_RO)
		set_writing(o, &open);
	if (o->mode == MODE_OVERLAY)
		img = overlay_open(o, &open, error);
	else if (o->mode == MODE_SCRATCH)
		img = overlay_open_scratch(o, &open, error);
	else
		img = image_open(o->image, &open, error);
	if (!img) {
		open_name_holders(error, NULL);
		if (o->mode == MODE_RW)
			hint_at_writing(error);
		return NULL;
	}
	if (!is_writable(o, img, error)) {
		image_unref(img);
		return NULL;
	}
	if (o->mode == MODE_RW)
		warn_of_raw(o, img);
	if (first)
		warn_of_state(img);
	return img;
}

const struct stat *open_named_stat(const struct mount_options *o, const struct image *img)
{
	bool above = o->mode == MODE_OVERLAY || o->mode == MODE_SCRATCH;

	return file_stat((above ? img->backing : img)->file);
}

bool open_same_chain(struct image *a, struct image *b)
{
	for (; a && b; a = a->backing, b = b->backing) {
		if (!stat_same_file(file_stat(a->file), file_stat(b->file)) || a->size != b->size ||
		    a->format != b->format)
			return false;
	}
	return !a && !b;
}
