/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Opening the backing chain below an image, from the top down and without
 * recursion. A file that is in the chain already ends it with an error, and so does the
 * thousandth image.
 */
#include "config.h"

#include <errno.h>
#include <string.h>

#include "image/core.h"

struct file_id {
	dev_t dev;
	ino_t ino;
};

struct walk {
	const struct image_open_options *o;
	GHashTable *seen; /* struct file_id -> struct image */
	unsigned depth;
};

static guint id_hash(gconstpointer p)
{
	const struct file_id *id = p;

	return (guint)id->ino * 31 + (guint)id->dev;
}

static gboolean id_equal(gconstpointer a, gconstpointer b)
{
	const struct file_id *x = a, *y = b;

	return x->dev == y->dev && x->ino == y->ino;
}

/* Another image than `owner` that has this file open, or NULL; remembers it. */
static struct image *note_file(struct walk *w, struct file *f, struct image *owner)
{
	struct file_id id = {file_stat(f)->st_dev, file_stat(f)->st_ino};
	struct image *before = g_hash_table_lookup(w->seen, &id);

	if (!before)
		g_hash_table_insert(w->seen, g_memdup2(&id, sizeof(id)), owner);
	return before;
}

static bool note(struct walk *w, struct image *img, struct image *parent, GError **error)
{
	struct image *before = note_file(w, img->file, img);

	for (guint i = 0; !before && img->core->extra_files && i < img->core->extra_files->len; i++)
		before = note_file(w, g_ptr_array_index(img->core->extra_files, i), img);
	if (before) {
		g_set_error(
			error, IMAGE_ERROR, IMAGE_ERROR_INVALID,
			"Could not open backing file of '%s': '%s' is in its own chain already, "
			"as '%s': the chain would never end",
			parent->filename, img->filename, before->filename);
		return false;
	}
	if (++w->depth > CHAIN_MAX) {
		g_set_error(
			error, IMAGE_ERROR, IMAGE_ERROR_INVALID,
			"Could not open backing file of '%s': the backing chain is longer than %d "
			"images at '%s'",
			parent->filename, CHAIN_MAX, img->filename);
		return false;
	}
	return true;
}

static void warn_guess(const struct walk *w, const struct image *img, const struct image *parent)
{
	g_autofree char *sentence = NULL;

	if (!w->o->warn)
		return;
	sentence = g_strdup_printf("Image '%s' does not record the format of its backing file "
				   "'%s', which was taken for %s",
				   parent->filename, img->filename, img->format->name);
	w->o->warn(w->o->warn_arg, sentence);
}

/* The format for the backing file of img: NULL without an error: not recorded. */
static bool recorded_format(struct walk *w, struct image *img, const struct format **format,
			    GError **error)
{
	const char *name = img->backing_format;

	if (w->depth == 1 && w->o->backing_format)
		name = w->o->backing_format;
	*format = NULL;
	if (!name || !*name)
		return true;
	*format = probe_find_driver(name, error);
	return *format != NULL;
}

/* How the image below the one that was opened last is opened: only commit's base for writing. */
static void below_spec(const struct walk *w, struct open_spec *spec)
{
	open_spec_init(spec, w->o);
	if (!w->o->writable_depth || w->depth != w->o->writable_depth)
		spec->o.flags &= ~IMAGE_RDWR;
	spec->o.format = spec->o.backing_format = NULL;
	spec->o.detect_zeroes = DETECT_ZEROES_OFF; /* the top's alone */
}

/* By the name that img records. *guessed: the format was not recorded. */
static struct image *open_recorded(struct walk *w, struct image *img, bool *is_shared,
				   GError **error)
{
	struct open_spec spec;
	struct stat st;
	struct image *backing = NULL;
	bool guessed;

	if (img->core->guessed && !gate_is_open(img->gate)) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_REFUSED,
			    "The name '%s' found in image '%s' is not followed: the image above "
			    "did not record that image's format, it was guessed "
			    "(--allow-references=any would allow it)",
			    img->backing_name, img->filename);
		return NULL;
	}
	below_spec(w, &spec);
	spec.regular_only = !gate_is_open(img->gate);
	spec.expect = &st;
	if (recorded_format(w, img, &spec.format, error))
		spec.path = gate_check(img->gate, img->filename, img->backing_name, &st, error);
	guessed = !spec.format;
	if (spec.path)
		backing = open_shared(&spec, guessed);
	*is_shared = backing != NULL;
	if (spec.path && !backing)
		backing = open_layer(&spec, img->cache, img->gate, error);
	if (backing && guessed) {
		backing->core->guessed = true;
		warn_guess(w, backing, img);
	}
	open_spec_clear(&spec);
	return backing;
}

/* By "backing.*" of json:{}, which the user wrote: no gate. *options becomes those of the next. */
static struct image *open_given(struct walk *w, struct image *img, struct options **options,
				GError **error)
{
	struct open_spec spec;
	struct image *backing = NULL;

	below_spec(w, &spec);
	if (!options_peek(*options, "driver"))
		recorded_format(w, img, &spec.format, NULL);
	if (open_spec_parse(&spec, g_steal_pointer(options), error))
		backing = open_layer(&spec, img->cache, img->gate, error);
	*options = g_steal_pointer(&spec.backing);
	open_spec_clear(&spec);
	return backing;
}

/* The image below img is another's already, with all that is below it: is it for us too? */
static bool note_shared(struct walk *w, struct image *img, struct image *parent, GError **error)
{
	for (; img; parent = img, img = img->backing)
		if (!note(w, img, parent, error))
			return false;
	return true;
}

/* Opens the image below img. false: error. *next: where to go on, or NULL. */
static bool step(struct walk *w, struct image *img, struct options **options, struct image **next,
		 GError **error)
{
	struct image *backing;
	bool is_shared = false;

	if (*options && !img->format->has_backing) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE,
			    "Could not open '%s': Invalid parameter 'backing': format '%s' has no "
			    "backing files",
			    img->filename, img->format->name);
		return false;
	}
	backing = *options ? open_given(w, img, options, error)
			   : open_recorded(w, img, &is_shared, error);
	if (!backing) {
		g_prefix_error(error, "Could not open backing file of '%s': ", img->filename);
		return false;
	}
	img->backing = backing;
	for (struct image *below = backing; img->core->guarded && below; below = below->backing)
		below->core->guarded = true;
	*next = is_shared ? NULL : backing;
	return is_shared ? note_shared(w, backing, img, error) : note(w, backing, img, error);
}

/* Others may use the images below the top from now on: their chains are complete. */
static void share_all(struct image *top)
{
	for (struct image *img = top->backing; img && !img->core->key; img = img->backing) {
		struct open_spec spec;
		const struct format *known = img->format;

		if (img->core->options.flags & IMAGE_RDWR)
			continue;
		open_spec_init(&spec, &img->core->options);
		spec.path = g_strdup(img->filename);
		spec.format = img->core->guessed ? NULL : known;
		open_share(img, &spec);
		open_spec_clear(&spec);
	}
}

bool chain_open(struct image *top, struct options *backing, const struct image_open_options *o,
		GError **error)
{
	struct walk w = {.o = o};
	struct image *img = top;
	bool ok, plain = !backing;

	w.seen = g_hash_table_new_full(id_hash, id_equal, g_free, NULL);
	ok = note(&w, top, NULL, error);
	while (ok && img && !(img->flags & IMAGE_NO_BACKING) && (backing || img->backing_name)) {
		struct image *next = NULL;

		ok = step(&w, img, &backing, &next, error);
		img = next;
	}
	if (ok && backing && img) {
		/* NO_BACKING, and yet a backing image is described. */
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE,
			    "Could not open '%s': Invalid parameter 'backing'", img->filename);
		ok = false;
	}
	options_free(backing);
	g_hash_table_unref(w.seen);
	if (ok && plain)
		share_all(top);
	return ok;
}
