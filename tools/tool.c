/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Messages, and what every command does to open what it is given. */
#include "tools/tool.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "image/create.h"
#include "image/throttle.h"
#include "tools/through.h"

static void say_lines(const char *text, bool every_line)
{
	g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

	fflush(stdout);
	for (unsigned i = 0; lines[i]; i++)
		fprintf(stderr, "%s%s%s\n", i == 0 || every_line ? tool_name : "",
			i == 0 || every_line ? ": " : "", lines[i]);
}

void tool_error(const char *format, ...)
{
	g_autofree char *text = NULL;
	va_list ap;

	va_start(ap, format);
	text = g_strdup_vprintf(format, ap);
	va_end(ap);
	say_lines(text, false);
}

void tool_say(GError *error, const char *prefix)
{
	/* The sentence about size suffixes is two of qemu-img's, each with its name. */
	bool usage = g_error_matches(error, IMAGE_ERROR, IMAGE_ERROR_USAGE) &&
		     strstr(error->message, "You may use k, M");
	g_autofree char *text = g_strconcat(prefix ? prefix : "", error->message, NULL);

	say_lines(text, usage);
	g_error_free(error);
}

int tool_usage(const struct args *args, const char *format, ...)
{
	g_autofree char *text = NULL;
	va_list ap;

	va_start(ap, format);
	text = g_strdup_vprintf(format, ap);
	va_end(ap);
	say_lines(text, false);
	fprintf(stderr, "Try '%s --help' for more information\n", tool_name);
	return args && args->command->usage_status ? args->command->usage_status : 1;
}

static void warn(void *arg, const char *sentence)
{
	fprintf(stderr, "%s: warning: %s\n", tool_name, sentence);
}

int tool_close(struct image *img, int status)
{
	for (struct image *layer = img; status == 0 && layer; layer = layer->backing) {
		int ret = image_settle(layer);

		if (ret < 0) {
			tool_error("Could not flush '%s': %s", layer->filename,
				   image_cause(layer, ret));
			status = 1;
		}
	}
	image_unref(img);
	return status;
}

struct gate *tool_gate(struct args *args)
{
	GError *error = NULL;
	const char *word;

	if (args->gate)
		return args->gate;
	args->gate = gate_new(tool_is_qemu ? GATE_ANY : GATE_DEFAULT);
	for (unsigned i = 0; (word = opt_nth(args, OPT_REFERENCES, i)); i++) {
		if (!gate_allow(args->gate, word, &error)) {
			tool_say(error, NULL);
			return NULL;
		}
	}
	return args->gate;
}

bool tool_check_common(struct args *args)
{
	if (opt_given(args, OPT_IMAGE_OPTS) && opt_given(args, 'f')) {
		tool_error("--image-opts and --format are mutually exclusive");
		return false;
	}
	return true;
}

static bool parse_cache(const struct tool_source *s, enum cache_mode *mode)
{
	*mode = CACHE_WRITEBACK;
	if (!s->cache || cache_mode_parse(s->cache, mode))
		return true;
	tool_error("%s: %s", s->cache_wrong ? s->cache_wrong : "Invalid cache option", s->cache);
	return false;
}

static struct image *open_option_string(const char *text, const struct image_open_options *o,
					GError **error)
{
	struct options *options = options_new();
	struct image *img;

	if (!strchr(text, '=')) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE,
			    "Could not open '%s': --image-opts needs driver=...,file.filename=...",
			    text);
		options_free(options);
		return NULL;
	}
	if (!options_parse(options, text, NULL, error)) {
		options_free(options);
		return NULL;
	}
	img = image_open_with_options(options, o, error);
	if (!img && !g_str_has_prefix((*error)->message, "Could not open"))
		g_prefix_error(error, "Could not open '%s': ", text);
	return img;
}

/* Whoever may write the disk's first bytes decides what its format is taken for next time. */
static void warn_of_raw(const struct image *img, const char *name)
{
	if (strcmp(img->format->name, "raw") != 0 || g_str_has_prefix(name, "json:"))
		return;
	fflush(stdout);
	fprintf(stderr,
		"WARNING: Image format was not specified for '%s' and probing guessed raw.\n"
		"         Automatically detecting the format is dangerous for raw images, write "
		"operations on block 0 will be restricted.\n"
		"         Specify the 'raw' format explicitly to remove the restrictions.\n",
		name);
}

static struct image *open_named(const char *name, const struct tool_source *s,
				const struct image_open_options *o, GError **error)
{
	return s->with_image_opts ? open_option_string(name, o, error) : image_open(name, o, error);
}

/* Somebody has locked it: a mount of ours? NULL and *error, or without it when it was sent. */
static struct image *open_mounted(struct args *args, const char *name, const struct tool_source *s,
				  const struct image_open_options *o, GError **error)
{
	struct image_open_options shared = *o;
	bool writing = o->flags & IMAGE_RDWR;
	struct image *look;
	enum through how;

	if (!g_error_matches(*error, G_FILE_ERROR, G_FILE_ERROR_AGAIN))
		return NULL;
	shared.flags =
		(o->flags & ~(unsigned)(IMAGE_RDWR | IMAGE_NO_SHARE_WRITE)) | IMAGE_FORCE_SHARE;
	shared.writable_depth = 0;
	shared.warn = NULL;
	look = open_named(name, s, &shared, NULL);
	if (!look)
		return NULL;
	how = through_find(args, look, writing, o->writable_depth, error);
	image_unref(look);
	if (how != THROUGH_HELD)
		return NULL;
	g_clear_error(error);
	shared.warn = o->warn;
	return open_named(name, s, &shared, error);
}

struct image *tool_open(struct args *args, const char *name, const struct tool_source *s)
{
	struct image_open_options o = {
		.format = s->format,
		.flags = s->flags,
		.aio = s->aio,
		.writable_depth = s->writable_depth,
		.gate = tool_gate(args),
		.warn = warn,
	};
	struct image *img;
	GError *error = NULL;

	/* -U is about what is read: convert's target is locked all the same. */
	if (opt_given(args, 'U') && !(s->flags & IMAGE_RDWR))
		o.flags |= IMAGE_FORCE_SHARE;
	if (!o.gate || !parse_cache(s, &o.cache))
		return NULL;
	img = open_named(name, s, &o, &error);
	if (!img)
		img = open_mounted(args, name, s, &o, &error);
	if (!img && error)
		tool_say(error, NULL);
	else if (!img)
		return NULL;
	else if ((s->flags & IMAGE_RDWR) && !s->format && !s->with_image_opts)
		warn_of_raw(img, name);
	return img;
}

struct image *tool_open_stdin(struct args *args, const struct tool_source *s)
{
	struct image_open_options o = {
		.format = s->format,
		.flags = s->flags,
		.gate = tool_gate(args),
		.warn = warn,
	};
	GError *error = NULL;
	struct file *f = o.gate ? file_from_pipe("-", STDIN_FILENO, &error) : NULL;
	struct image *img = f ? image_open_file(f, &o, &error) : NULL;

	file_unref(f);
	if (error)
		tool_say(error, "Standard input: ");
	return img;
}

struct image *tool_open_operand(struct args *args, unsigned flags, const char *cache)
{
	struct tool_source s = {
		.format = opt_value(args, 'f'),
		.flags = flags,
		.cache = cache,
		.cache_wrong = "Invalid source cache option",
		.with_image_opts = opt_given(args, OPT_IMAGE_OPTS),
	};

	return tool_check_common(args) ? tool_open(args, args->operands[0], &s) : NULL;
}

bool tool_chain_has(const struct image *img, const struct stat *st)
{
	for (; img; img = img->backing)
		if (file_fd(img->file) >= 0 && stat_same_file(file_stat(img->file), st))
			return true;
	return false;
}

bool tool_output_is_json(const struct args *args, bool *json)
{
	const char *word = opt_value(args, OPT_OUTPUT);

	*json = word && strcmp(word, "json") == 0;
	if (!word || *json || strcmp(word, "human") == 0)
		return true;
	tool_error("--output must be used with human or json as argument.");
	return false;
}

bool tool_size(const char *text, const char *what, uint64_t min, uint64_t max, uint64_t *value)
{
	GError *error = NULL;

	if (units_parse(text, what, min, max, value, &error))
		return true;
	tool_say(error, NULL);
	return false;
}

bool tool_rate(const struct args *args, struct throttle *t)
{
	const char *text = opt_value(args, 'r');

	return !text || tool_size(text, "rate limit", 0, INT64_MAX, &t->rate);
}

struct image *tool_view(struct image *img, const char *param)
{
	GError *error = NULL;
	GPtrArray *list = image_snapshots(img, &error);
	struct image *view = NULL;
	int index = -1;

	if (list)
		index = image_find_snapshot_param(list, param, &error);
	if (list && index < 0) {
		g_clear_error(&error);
		g_set_error(&error, IMAGE_ERROR, IMAGE_ERROR_NOT_FOUND,
			    "Failed to load snapshot: Can't find snapshot");
	}
	if (index >= 0)
		view = image_view(img, index, &error);
	if (!view)
		tool_say(error, NULL);
	if (list)
		g_ptr_array_unref(list);
	image_unref(img);
	return view;
}

static unsigned trailing_commas(const char *text)
{
	size_t len = strlen(text);
	unsigned n = 0;

	while (n < len && text[len - 1 - n] == ',')
		n++;
	return n;
}

struct options *tool_option_list(const struct args *args)
{
	struct options *o = options_new();
	GError *error = NULL;
	const char *text;

	for (unsigned i = 0; (text = opt_nth(args, 'o', i)); i++) {
		if (*text == '\0' || *text == ',' || trailing_commas(text) % 2) {
			tool_error("Invalid option list: %s", text);
			options_free(o);
			return NULL;
		}
		if (!options_parse(o, text, NULL, &error)) {
			tool_say(error, NULL);
			options_free(o);
			return NULL;
		}
	}
	return o;
}

bool tool_wants_option_help(const struct args *args)
{
	const char *text;

	for (unsigned i = 0; (text = opt_nth(args, 'o', i)); i++) {
		g_auto(GStrv) words = g_strsplit(text, ",", -1);

		if (g_strv_contains((const char *const *)words, "help") ||
		    g_strv_contains((const char *const *)words, "?"))
			return true;
	}
	return false;
}

/* The backing file as a new image would see it; NULL after saying why. */
static struct image *open_backing(struct args *args, const char *name, const struct options *o)
{
	struct image_open_options open = {
		.format = options_peek(o, "backing_fmt"),
		.gate = tool_gate(args),
		.warn = warn,
	};
	struct image *img;
	GError *error = NULL;

	if (!open.gate)
		return NULL;
	img = image_open_beside(name, options_peek(o, "backing_file"), &open, &error);
	if (!img) {
		g_autofree char *path = image_path_beside(name, options_peek(o, "backing_file"));

		through_explain(args, path, &error);
		tool_error("%s: %s\nCould not open backing image.", name, error->message);
		g_error_free(error);
	}
	return img;
}

static bool check_backing_format(const char *name, const struct options *o, bool unsafe)
{
	const char *word = options_peek(o, "backing_fmt");

	if (!word || image_find_format(word, NULL))
		return true;
	tool_error("%s: Unknown driver '%s'%s", name, word,
		   unsafe ? "" : "\nCould not open backing image.");
	return false;
}

bool tool_settle_backing(struct args *args, const char *name, struct options *o, bool unsafe)
{
	struct image *img;

	if (!options_peek(o, "backing_file"))
		return true;
	if (!check_backing_format(name, o, unsafe))
		return false;
	if (unsafe) {
		if (!options_peek(o, "backing_fmt"))
			fprintf(stderr,
				"%s: warning: %s: Backing file specified without backing format, "
				"and with -u it is not looked at: no format is recorded\n",
				tool_name, name);
		return true;
	}
	img = open_backing(args, name, o);
	if (!img)
		return false;
	if (!options_peek(o, "backing_fmt")) {
		fprintf(stderr,
			"%s: warning: %s: Backing file specified without backing format: the "
			"detected format %s is recorded\n",
			tool_name, name, img->format->name);
		options_set(o, "backing_fmt", img->format->name);
	}
	if (!options_peek(o, "size")) {
		g_autofree char *size = g_strdup_printf("%" G_GUINT64_FORMAT,
							(uint64_t)((img->size + 511) & ~511ull));

		options_set(o, "size", size);
	}
	image_unref(img);
	return true;
}

int tool_print_option_help(const struct format *format, bool with_file)
{
	g_autofree char *text = NULL;

	if (!format->create_options) {
		tool_error("Format driver '%s' does not support image creation", format->name);
		return 1;
	}
	text = option_table_help(format->create_options, with_file);
	if (with_file)
		printf("Supported options:\n%s", text);
	else
		printf("Supported %s options:\n%s\n"
		       "The protocol level may support further options.\n"
		       "Specify the target filename to include those options.\n",
		       format->name, text);
	return 0;
}

void tool_print_formatting(const char *filename, const struct format *format,
			   const struct options *o)
{
	g_autofree char *name = report_escape(filename, -1);

	printf("Formatting '%s', fmt=%s", name, format->name);
	for (const struct option_desc *d = format->create_options; d->name; d++) {
		const char *given = options_peek(o, d->name);
		const char *value = given ? given : d->default_text;
		uint64_t bytes;

		if (!value)
			continue;
		if (d->type == OPTION_SIZE &&
		    units_parse(value, d->name, 0, INT64_MAX, &bytes, NULL))
			printf(" %s=%" G_GUINT64_FORMAT, d->name, bytes);
		else
			printf(" %s=%s", d->name, value);
	}
	printf("\n");
	fflush(stdout);
}
