/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Opening one image: names, options, format, file and driver; and sharing what is open already. */
#include "config.h"

#include <errno.h>
#include <string.h>

#include "image/cache.h"
#include "image/core.h"

void open_spec_init(struct open_spec *spec, const struct image_open_options *o)
{
	memset(spec, 0, sizeof(*spec));
	spec->options = options_new();
	if (o)
		spec->o = *o;
}

void open_spec_clear(struct open_spec *spec)
{
	g_free(spec->path);
	options_free(spec->options);
	options_free(spec->backing);
	memset(spec, 0, sizeof(*spec));
}

void open_file_options(const struct image_open_options *o, struct file_options *fo)
{
	memset(fo, 0, sizeof(*fo));
	fo->cache = o->cache;
	fo->aio = o->aio;
	fo->perms = PERM_CONSISTENT_READ;
	if (o->flags & IMAGE_RDWR) {
		fo->flags |= FILE_RDWR;
		fo->perms |= PERM_WRITE | PERM_RESIZE;
	}
	if (!(o->flags & IMAGE_FORCE_SHARE))
		fo->unshared = PERM_WRITE | PERM_RESIZE;
}

/* ---- options that the core knows ------------------------------------------------------- */

static bool take_flag(struct options *options, const char *key, unsigned flag, bool set_when,
		      unsigned *flags, GError **error)
{
	bool on = !set_when;

	if (!options_take_bool(options, key, &on, error))
		return false;
	/* An absent key is the opposite of set_when and changes nothing. */
	if (on == set_when)
		*flags = set_when ? *flags | flag : *flags;
	return true;
}

static bool take_cache_mode(struct options *options, struct image_open_options *o, GError **error)
{
	bool direct = o->cache == CACHE_NONE || o->cache == CACHE_DIRECTSYNC;
	bool no_flush = o->cache == CACHE_UNSAFE;
	bool sync = o->cache == CACHE_WRITETHROUGH || o->cache == CACHE_DIRECTSYNC;

	if (!options_take_bool(options, "cache.direct", &direct, error) ||
	    !options_take_bool(options, "cache.no-flush", &no_flush, error))
		return false;
	if (direct)
		o->cache = sync ? CACHE_DIRECTSYNC : CACHE_NONE;
	else if (no_flush)
		o->cache = CACHE_UNSAFE;
	else
		o->cache = sync ? CACHE_WRITETHROUGH : CACHE_WRITEBACK;
	return true;
}

bool discard_mode_parse(const char *word, enum discard_mode *mode)
{
	if (!strcmp(word, "ignore") || !strcmp(word, "off"))
		*mode = DISCARD_IGNORE;
	else if (!strcmp(word, "unmap") || !strcmp(word, "on"))
		*mode = DISCARD_UNMAP;
	else
		return false;
	return true;
}

bool detect_zeroes_parse(const char *word, enum detect_zeroes *detect)
{
	static const char *const words[] = {
		[DETECT_ZEROES_OFF] = "off",
		[DETECT_ZEROES_ON] = "on",
		[DETECT_ZEROES_UNMAP] = "unmap",
	};

	for (unsigned i = 0; i < G_N_ELEMENTS(words); i++) {
		if (strcmp(word, words[i]) == 0) {
			*detect = (enum detect_zeroes)i;
			return true;
		}
	}
	return false;
}

static bool take_space(struct options *options, struct image_open_options *o, GError **error)
{
	g_autofree char *discard = options_take_string(options, "discard");
	g_autofree char *zeroes = options_take_string(options, "detect-zeroes");

	if (discard && !discard_mode_parse(discard, &o->discard)) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE, "Invalid discard option");
		return false;
	}
	if (zeroes && !detect_zeroes_parse(zeroes, &o->detect_zeroes)) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE, "invalid parameter value: %s",
			    zeroes);
		return false;
	}
	return true;
}

static bool check_space(const struct image_open_options *o, GError **error)
{
	if (o->detect_zeroes != DETECT_ZEROES_UNMAP || o->discard == DISCARD_UNMAP)
		return true;
	g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE,
		    "setting detect-zeroes to unmap is not allowed without setting discard "
		    "operation to unmap");
	return false;
}

static bool take_common(struct open_spec *spec, struct options *options, GError **error)
{
	unsigned read_only = 0;
	bool ignored = false;

	if (!take_flag(options, "read-only", 1, true, &read_only, error) ||
	    !take_flag(options, "force-share", IMAGE_FORCE_SHARE, true, &spec->o.flags, error) ||
	    !options_take_bool(options, "auto-read-only", &ignored, error) ||
	    !take_cache_mode(options, &spec->o, error))
		return false;
	if (read_only)
		spec->o.flags &= ~IMAGE_RDWR;
	g_free(options_take_string(options, "node-name")); /* names nothing here */
	return take_space(options, &spec->o, error);
}

/* file.*: the protocol layer, of which there is one so far. */
static bool take_file(struct open_spec *spec, struct options *file, GError **error)
{
	g_autofree char *driver = options_take_string(file, "driver");
	g_autofree char *aio = options_take_string(file, "aio");
	g_autofree char *locking = options_take_string(file, "locking");

	if (driver && strcmp(driver, "file") != 0 && strcmp(driver, "host_device") != 0) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_UNSUPPORTED,
			    "Unknown protocol driver '%s'", driver);
		return false;
	}
	if (aio && !aio_engine_parse(aio, &spec->o.aio)) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE,
			    "Parameter 'file.aio' does not accept value '%s'", aio);
		return false;
	}
	if (locking && strcmp(locking, "on") != 0 && strcmp(locking, "auto") != 0) {
		if (strcmp(locking, "off") != 0) {
			g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE,
				    "Parameter 'file.locking' does not accept value '%s'", locking);
			return false;
		}
		spec->o.flags |= IMAGE_FORCE_SHARE;
	}
	spec->path = options_take_string(file, "filename");
	return true;
}

static bool take_backing(struct open_spec *spec, struct options *options, GError **error)
{
	g_autofree char *none = NULL;

	spec->backing = options_take_group(options, "backing");
	if (!options_peek(options, "backing"))
		return true;
	none = options_take_string(options, "backing");
	if (*none || spec->backing) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE,
			    "Invalid parameter 'backing': it is null, or an object");
		return false;
	}
	spec->o.flags |= IMAGE_NO_BACKING;
	return true;
}

static bool parse_driver(struct open_spec *spec, struct options *options, bool *is_file,
			 GError **error)
{
	g_autofree char *driver = options_take_string(options, "driver");

	/* The protocol by itself: its bytes, without a format on top. */
	*is_file = driver && (strcmp(driver, "file") == 0 || strcmp(driver, "host_device") == 0);
	if (*is_file)
		spec->format = image_find_format("raw", error);
	else if (driver)
		spec->format = probe_find_driver(driver, error);
	else if (spec->o.format)
		spec->format = probe_find_driver(spec->o.format, error);
	else
		return true;
	return spec->format != NULL;
}

static bool spec_parse(struct open_spec *spec, struct options *options, GError **error)
{
	struct options *file;
	bool is_file, ok;

	if (!parse_driver(spec, options, &is_file, error) || !take_common(spec, options, error) ||
	    !check_space(&spec->o, error) || !take_backing(spec, options, error))
		return false;
	file = is_file ? NULL : options_take_group(options, "file");
	if (file) {
		/* What the file knows of its own may be said on either level. */
		ok = take_common(spec, file, error) && take_file(spec, file, error) &&
		     options_refuse_rest(file, "file", error);
		options_free(file);
	} else {
		ok = take_file(spec, options, error);
	}
	if (ok && !spec->path) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE,
			    "No file is named: 'file.filename' is missing");
		ok = false;
	}
	return ok;
}

bool open_spec_parse(struct open_spec *spec, struct options *options, GError **error)
{
	options_free(spec->options);
	spec->options = options;
	return spec_parse(spec, options, error);
}

/* ---- sharing ---------------------------------------------------------------------------- */

/* Open images of this thread's loop: key -> image, which holds no reference. */
static __thread GHashTable *shared;

/* NULL: must not be shared, or cannot be looked at. */
static char *share_key(const struct open_spec *spec, bool guessed)
{
	struct stat st;

	if ((spec->o.flags & IMAGE_RDWR) || !options_is_empty(spec->options) || spec->backing ||
	    spec->o.backing_format || file_lookup(spec->path, &st) < 0)
		return NULL;
	/* The gate is part of it: a chain opened by a wide gate is not for a narrow one. */
	return g_strdup_printf("%llu:%llu:%s:%x:%d:%d:%d:%p:%s", (unsigned long long)st.st_dev,
			       (unsigned long long)st.st_ino,
			       spec->format ? spec->format->name : "?", spec->o.flags,
			       spec->o.cache, spec->o.aio, guessed, (void *)spec->o.gate,
			       spec->path);
}

struct image *open_shared(const struct open_spec *spec, bool guessed)
{
	g_autofree char *key = shared ? share_key(spec, guessed) : NULL;
	struct image *img = key ? g_hash_table_lookup(shared, key) : NULL;

	return img ? image_ref(img) : NULL;
}

void open_share(struct image *img, const struct open_spec *spec)
{
	char *key = img->core->key ? NULL : share_key(spec, img->core->guessed);

	if (!key)
		return;
	if (!shared)
		shared = g_hash_table_new(g_str_hash, g_str_equal);
	if (g_hash_table_contains(shared, key)) {
		g_free(key);
		return;
	}
	img->core->key = key;
	g_hash_table_insert(shared, key, img);
}

void open_unshare(struct image *img)
{
	if (!img->core->key)
		return;
	g_hash_table_remove(shared, img->core->key);
	g_clear_pointer(&img->core->key, g_free);
	if (g_hash_table_size(shared) == 0)
		g_clear_pointer(&shared, g_hash_table_unref);
}

/* ---- opening ----------------------------------------------------------------------------- */

static bool open_driver(struct image *img, struct options *options, GError **error)
{
	if (!img->format->open(img, options, error))
		return false;
	if (img->size > INT64_MAX) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_INVALID,
			    "The disk size %" G_GUINT64_FORMAT " is too large", img->size);
		return false;
	}
	return options_refuse_rest(options, NULL, error);
}

/* Takes a reference to file. */
static struct image *open_on_file(struct file *file, struct open_spec *spec, struct cache *cache,
				  struct gate *gate, GError **error)
{
	struct image *img = image_new();

	img->file = file_ref(file);
	img->filename = g_strdup(spec->path);
	img->flags = spec->o.flags;
	img->cache = cache_ref(cache);
	img->gate = gate_ref(gate);
	img->core->options = spec->o;
	img->core->guarded = img->flags & IMAGE_RDWR;
	img->format = spec->format ? spec->format : probe_format(file, NULL, error);
	img->core->stays_raw = img->format && !spec->format && (img->flags & IMAGE_RDWR) &&
			       strcmp(img->format->name, "raw") == 0;
	if (img->format && open_driver(img, spec->options, error))
		return img;
	g_prefix_error(error, "Could not open '%s': ", spec->path);
	image_unref(img);
	return NULL;
}

/* Between the gate's look and the opening somebody may have put another file in its place. */
static bool same_file(const struct file *f, const struct stat *expect, GError **error)
{
	if (!expect || stat_same_file(file_stat(f), expect))
		return true;
	g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_REFUSED,
		    "Could not open '%s': the file was replaced while it was opened", file_name(f));
	return false;
}

struct image *open_layer(struct open_spec *spec, struct cache *cache, struct gate *gate,
			 GError **error)
{
	struct file_options fo;
	struct file *file;
	struct image *img = NULL;

	open_file_options(&spec->o, &fo);
	if (spec->regular_only)
		fo.flags |= FILE_REGULAR_ONLY;
	file = file_open(spec->path, &fo, error);
	if (file && same_file(file, spec->expect, error))
		img = open_on_file(file, spec, cache, gate, error);
	file_unref(file);
	return img;
}

bool image_is_locked(const struct image *img, bool writing)
{
	struct image_open_options o = {.flags = writing ? IMAGE_RDWR : 0};
	struct file_options fo;
	struct file *file;
	GError *error = NULL;
	bool locked;

	open_file_options(&o, &fo);
	/* Locks do not depend on how the file is open, and here nothing is to be written. */
	fo.flags &= ~(unsigned)FILE_RDWR;
	file = file_open(img->filename, &fo, &error);
	locked = g_error_matches(error, G_FILE_ERROR, G_FILE_ERROR_AGAIN);
	g_clear_error(&error);
	file_unref(file);
	return locked;
}

/* file NULL: spec->path is opened. Clears spec. */
static struct image *open_tree(struct file *file, struct open_spec *spec, GError **error)
{
	struct image_open_options o = spec->o;
	struct gate *gate = o.gate ? gate_ref(o.gate) : gate_new(GATE_DEFAULT);
	struct cache *cache = cache_new(o.cache_size ? o.cache_size : CACHE_DEFAULT_SIZE);
	struct options *backing = g_steal_pointer(&spec->backing);
	struct image *img;
	bool plain;

	img = file ? open_on_file(file, spec, cache, gate, error)
		   : open_layer(spec, cache, gate, error);
	gate_free(gate);
	cache_unref(cache);
	if (!img) {
		options_free(backing);
		return NULL;
	}
	plain = !backing && !file;
	if (!chain_open(img, backing, &o, error)) {
		image_unref(img);
		return NULL;
	}
	if (plain)
		open_share(img, spec);
	return img;
}

static struct image *open_spec(struct open_spec *spec, GError **error)
{
	struct image *img = NULL;

	if ((spec->o.flags & IMAGE_FORCE_SHARE) && (spec->o.flags & IMAGE_RDWR)) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE,
			    "force-share=on can only be used with read-only images");
	} else {
		img = open_shared(spec, false);
		if (!img)
			img = open_tree(NULL, spec, error);
	}
	open_spec_clear(spec);
	return img;
}

struct image *image_open_with_options(struct options *options, const struct image_open_options *o,
				      GError **error)
{
	struct open_spec spec;

	open_spec_init(&spec, o);
	if (!open_spec_parse(&spec, options, error)) {
		open_spec_clear(&spec);
		return NULL;
	}
	return open_spec(&spec, error);
}

static struct image *open_json(const char *name, const char *text,
			       const struct image_open_options *o, GError **error)
{
	struct options *options = options_new();
	struct image *img = NULL;

	if (!options_parse_json(options, text, error))
		options_free(options);
	else
		img = image_open_with_options(options, o, error);
	if (!img && error && !g_str_has_prefix((*error)->message, "Could not open"))
		g_prefix_error(error, "Could not open '%s': ", name);
	return img;
}

struct image *image_open(const char *name, const struct image_open_options *o, GError **error)
{
	struct open_spec spec;
	const char *rest;

	switch (filename_classify(name, &rest)) {
	case FILENAME_JSON:
		return open_json(name, rest, o, error);
	case FILENAME_PROTOCOL:
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_UNSUPPORTED,
			    "Could not open '%s': Unknown protocol '%.*s'", name,
			    (int)strcspn(name, ":"), name);
		return NULL;
	case FILENAME_PATH:
		break;
	}
	open_spec_init(&spec, o);
	spec.path = g_strdup(rest);
	if (spec.o.format) {
		spec.format = probe_find_driver(spec.o.format, error);
		if (!spec.format) {
			g_prefix_error(error, "Could not open '%s': ", name);
			open_spec_clear(&spec);
			return NULL;
		}
	}
	return open_spec(&spec, error);
}

struct image *image_open_file(struct file *file, const struct image_open_options *o, GError **error)
{
	struct open_spec spec;
	struct image *img = NULL;

	open_spec_init(&spec, o);
	spec.path = g_strdup(file_name(file));
	spec.format = spec.o.format ? probe_find_driver(spec.o.format, error) : NULL;
	if (spec.format || !spec.o.format)
		img = open_tree(file, &spec, error);
	open_spec_clear(&spec);
	return img;
}

/*
 * Names in an image count from its own folder. QEMU takes a data file's name from the working
 * directory instead, when it makes one and when it opens one: who follows every name follows that,
 * too, where there is nothing beside the image.
 */
static char *find_data_file(struct image *img, const char *name, bool given, struct stat *st,
			    GError **error)
{
	g_autoptr(GError) why = NULL;
	const char *rest;
	char *path;

	if (!given) {
		path = gate_check(img->gate, img->filename, name, st, &why);
		if (path)
			return path;
	}
	if ((given || (gate_is_open(img->gate) &&
		       g_error_matches(why, IMAGE_ERROR, IMAGE_ERROR_NOT_FOUND))) &&
	    filename_classify(name, &rest) == FILENAME_PATH && file_lookup(rest, st) == 0)
		return g_strdup(rest);
	if (why)
		g_propagate_error(error, g_steal_pointer(&why));
	else
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_NOT_FOUND,
			    "The data file '%s' is not there or no regular file", name);
	return NULL;
}

struct file *image_extra_file(const struct image *img, unsigned index)
{
	const GPtrArray *files = img->core->extra_files;

	return files && index < files->len ? g_ptr_array_index(files, index) : NULL;
}

struct file *image_open_data_file(struct image *img, const char *name, bool given, GError **error)
{
	struct file_options fo;
	struct stat st;
	g_autofree char *path = NULL;
	struct file *file;

	if (img->flags & IMAGE_NO_DATA_FILES) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_REFUSED,
			    "The data file '%s' is not to be opened", name);
		return NULL;
	}
	path = find_data_file(img, name, given, &st, error);
	if (!path)
		return NULL;
	if (stat_same_file(&st, file_stat(img->file))) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_INVALID,
			    "The data file '%s' is the image itself", name);
		return NULL;
	}
	open_file_options(&img->core->options, &fo);
	if (!gate_is_open(img->gate))
		fo.flags |= FILE_REGULAR_ONLY;
	file = file_open(path, &fo, error);
	if (!file)
		return NULL;
	if (!same_file(file, &st, error)) {
		file_unref(file);
		return NULL;
	}
	if (!img->core->extra_files)
		img->core->extra_files = g_ptr_array_new_with_free_func((GDestroyNotify)file_unref);
	g_ptr_array_add(img->core->extra_files, file_ref(file));
	return file;
}
