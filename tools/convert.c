/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* imgtool convert: from any chain or snapshot to a new image, or into one that is there. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "image/copy.h"
#include "image/throttle.h"
#include "tools/target.h"

static const struct opt options[] = {
	OPT_FORMAT,
	{'O', NULL, "FMT", "format of the target (default: raw)"},
	{'o', NULL, "OPTIONS", "the target's options: name=value,...; -o help lists them"},
	{'l', NULL, "SNAPSHOT", "convert this snapshot: ID, name, or snapshot.id=,snapshot.name="},
	{'S', NULL, "SIZE", "zeroes this long become a hole (default: 4k; 0: none do)"},
	{'n', NULL, NULL, "the target is there: do not create it"},
	{OPT_TARGET_IS_ZERO, "target-is-zero", NULL, "with -n: it reads as zeroes already"},
	{OPT_TARGET_IMAGE_OPTS, "target-image-opts", NULL,
	 "with -n: the target is an option string"},
	{'m', NULL, "N", "how many pieces at a time, 1 to 16 (default: 8)"},
	{'W', NULL, NULL, "write them in any order"},
	{'C', NULL, NULL, "try to copy inside the kernel"},
	{OPT_SALVAGE, "salvage", NULL, "what cannot be read becomes zeroes"},
	{'t', NULL, "CACHE", "cache mode of the target (default: unsafe)"},
	{'T', NULL, "CACHE", "cache mode of the sources (default: writeback)"},
	{'p', NULL, NULL, "show progress"},
	OPT_QUIET,
	{'c', NULL, NULL, "compress, on all processors (not for raw)"},
	{'B', NULL, "FILE", "backing file of the target (not for raw)"},
	{'b', NULL, "FILE", "the same as -B"},
	{'F', NULL, "FMT", "format of that backing file"},
	{'r', NULL, "RATE", "bytes a second at most (default: no limit)"},
	{OPT_BITMAPS, "bitmaps", NULL, "copy bitmaps too (not for raw)"},
	{OPT_SKIP_BROKEN, "skip-broken-bitmaps", NULL, "with --bitmaps: leave out broken ones"},
	OPTS_OPEN,
	{0},
};

struct convert {
	struct args *args;
	struct image **sources;
	unsigned n;
	uint64_t total, before; /* bytes: of all sources; of those that are done */
	struct target target;
	const struct format *format;
	struct options *create_options;
	struct progress progress;
	struct throttle throttle;
	uint32_t sparse;
	unsigned coroutines;
	bool quiet;
	bool to_pipe;
	char *temporary; /* where the image is made that goes to a pipe; NULL: nowhere */
	bool has_base;	 /* the target has a backing file that the source's own layer stands on */
};

static uint64_t sectors_up(uint64_t bytes)
{
	return (bytes + 511) & ~G_GUINT64_CONSTANT(511);
}

/* ---- the command line ------------------------------------------------------------------------ */

static bool refuse(const char *sentence)
{
	tool_error("%s", sentence);
	return false;
}

static bool check_switches(const struct args *a)
{
	if (opt_given(a, 'C') && opt_given(a, 'S'))
		return refuse("Cannot enable copy offloading when -S is used");
	if (opt_given(a, 'C') && opt_given(a, 'c'))
		return refuse("Cannot enable copy offloading when -c is used");
	if (opt_given(a, 'C') && opt_given(a, OPT_SALVAGE))
		return refuse("Cannot use copy offloading in salvaging mode");
	if (opt_given(a, 'n') && opt_given(a, OPT_TARGET_IS_ZERO) && opt_given(a, 'B'))
		return refuse("--target-is-zero makes no sense with a backing file (-B)");
	if (opt_given(a, OPT_SKIP_BROKEN) && !opt_given(a, OPT_BITMAPS))
		return refuse("Use of --skip-broken-bitmaps requires --bitmaps");
	if (opt_given(a, OPT_TARGET_IS_ZERO) && !opt_given(a, 'n'))
		return refuse("--target-is-zero requires use of -n flag");
	if (opt_given(a, OPT_TARGET_IMAGE_OPTS) && !opt_given(a, 'n'))
		return refuse("--target-image-opts requires use of -n flag");
	if (opt_given(a, OPT_TARGET_IMAGE_OPTS) && opt_given(a, 'O'))
		return refuse("--image-opts and --format are mutually exclusive");
	if (opt_given(a, 'n') && opt_given(a, 'o'))
		return refuse("-o has no effect when skipping image creation");
	return true;
}

static const char *backing_of(const struct args *a)
{
	return opt_given(a, 'B') ? opt_value(a, 'B') : opt_value(a, 'b');
}

/* What the target's format would have to be able to. */
static bool check_abilities(const struct args *a, const struct format *format)
{
	if (!format->has_backing && backing_of(a)) {
		tool_error("Backing file not supported for file format '%s'", format->name);
		return false;
	}
	if (!format->has_compression && opt_given(a, 'c'))
		return refuse("Compression not supported for this file format");
	if (!format->bitmap_add && opt_given(a, OPT_BITMAPS)) {
		tool_error("Format driver '%s' does not support bitmaps", format->name);
		return false;
	}
	return true;
}

static bool parse_sparse(const struct args *a, uint32_t *sparse)
{
	const char *word = opt_value(a, 'S');
	uint64_t value = COPY_SPARSE_DEFAULT;
	GError *error = NULL;

	if (word &&
	    !units_parse(word, "buffer size for sparse output", 0, INT64_MAX, &value, &error)) {
		tool_say(error, NULL);
		return false;
	}
	if (value % 512 || value > COPY_SPARSE_MAX)
		return refuse("Invalid buffer size for sparse output specified. Valid sizes are "
			      "multiples of 512 up to 16777216. Select 0 to disable sparse "
			      "detection (fully allocates output).");
	*sparse = value;
	return true;
}

static bool parse_coroutines(const struct args *a, unsigned *n)
{
	const char *word = opt_value(a, 'm');
	guint64 value = COPY_COROUTINES_DEFAULT;

	if (word && !g_ascii_string_to_unsigned(word, 10, 1, COPY_COROUTINES_MAX, &value, NULL))
		return refuse("Invalid number of coroutines. Allowed number of coroutines is "
			      "between 1 and 16");
	*n = value;
	return true;
}

static bool check_cache_word(const char *word, const char *wrong)
{
	enum cache_mode mode;

	if (!word || cache_mode_parse(word, &mode))
		return true;
	tool_error("%s: %s", wrong, word);
	return false;
}

static bool is_pipe(const char *name)
{
	return strcmp(name, "-") == 0;
}

/* What cannot be when standard output is the target, or input a source. */
static bool check_pipes(struct convert *c)
{
	const struct args *a = c->args;
	unsigned inputs = 0;

	for (int i = 0; i < a->n - 1 && !opt_given(a, OPT_IMAGE_OPTS); i++)
		inputs += is_pipe(a->operands[i]);
	if (inputs > 1)
		return refuse("Standard input (-) can be read only once");
	c->to_pipe = is_pipe(a->operands[a->n - 1]) && !opt_given(a, OPT_TARGET_IMAGE_OPTS);
	if (!c->to_pipe)
		return true;
	if (opt_given(a, 'n'))
		return refuse("-n makes no sense when the image goes to standard output (-)");
	if (opt_given(a, 'p') && !c->quiet)
		return refuse("-p prints to standard output, where the image goes (-)");
	if (isatty(STDOUT_FILENO))
		return refuse("Standard output (-) is a terminal: the image is not written to it");
	return true;
}

static bool parse(struct convert *c)
{
	const struct args *a = c->args;

	if (!check_switches(a) || !parse_sparse(a, &c->sparse) ||
	    !parse_coroutines(a, &c->coroutines) || !tool_check_common(c->args) ||
	    !check_cache_word(opt_value(a, 't'), "Invalid cache option") ||
	    !check_cache_word(opt_value(a, 'T'), "Invalid source cache option"))
		return false;
	if (!tool_rate(a, &c->throttle))
		return false;
	if (a->n < 2)
		return refuse("Must specify image file name");
	if (opt_given(a, 'l') && a->n > 2)
		return refuse("No support for concatenating multiple snapshot");
	if (opt_given(a, OPT_BITMAPS) && a->n > 2)
		return refuse("Copying bitmaps only possible with single source");
	c->quiet = opt_given(a, 'q');
	return check_pipes(c);
}

/* ---- sources and target ------------------------------------------------------------------------
 */

static bool open_sources(struct convert *c)
{
	struct tool_source s = {.format = opt_value(c->args, 'f'),
				.flags = IMAGE_NO_SHARE_WRITE | IMAGE_NO_READ_AHEAD,
				.cache = opt_value(c->args, 'T'),
				.with_image_opts = opt_given(c->args, OPT_IMAGE_OPTS)};
	const char *snapshot = opt_value(c->args, 'l');

	if (opt_given(c->args, 'U'))
		s.flags = IMAGE_NO_READ_AHEAD;
	c->sources = g_new0(struct image *, c->args->n);
	for (int i = 0; i < c->args->n - 1; i++) {
		const char *name = c->args->operands[i];
		struct image *img = is_pipe(name) && !s.with_image_opts
					    ? tool_open_stdin(c->args, &s)
					    : tool_open(c->args, name, &s);

		if (img && snapshot)
			img = tool_view(img, snapshot);
		if (!img)
			return false;
		c->sources[c->n++] = img;
		c->total += sectors_up(img->size);
	}
	return true;
}

/* Options that contradict one another, or what the command is to do. */
static bool check_create_options(const struct convert *c)
{
	const struct options *o = c->create_options;
	const char *preallocation = options_peek(o, "preallocation");
	const char *compat = options_peek(o, "compat");
	bool compress = opt_given(c->args, 'c');

	if (compress && preallocation && strcmp(preallocation, "off") != 0)
		return refuse("Compression and preallocation not supported at the same time");
	if (compress && options_peek(o, "data_file"))
		return refuse("Compression and an external data file not supported at the same "
			      "time");
	if (opt_given(c->args, OPT_BITMAPS) && compat &&
	    (!strcmp(compat, "0.10") || !strcmp(compat, "v2"))) {
		tool_error("Format driver '%s' does not support bitmaps", c->format->name);
		return false;
	}
	return true;
}

static bool make_create_options(struct convert *c)
{
	const char *target = c->args->operands[c->args->n - 1];
	g_autofree char *size = g_strdup_printf("%" G_GUINT64_FORMAT, c->total);
	GError *error = NULL;

	c->create_options = tool_option_list(c->args);
	if (!c->create_options)
		return false;
	if (!options_validate(c->create_options, c->format->create_options, &error)) {
		tool_say(error, NULL);
		return false;
	}
	/* One image keeps its size to the byte; several are joined sector by sector. */
	if (c->n == 1) {
		g_free(size);
		size = g_strdup_printf("%" G_GUINT64_FORMAT, c->sources[0]->size);
	}
	options_set(c->create_options, "size", size);
	if (backing_of(c->args))
		options_set(c->create_options, "backing_file", backing_of(c->args));
	if (opt_given(c->args, 'F'))
		options_set(c->create_options, "backing_fmt", opt_value(c->args, 'F'));
	c->has_base = options_peek(c->create_options, "backing_file");
	return check_create_options(c) &&
	       tool_settle_backing(c->args, target, c->create_options, false);
}

static bool check_target(struct convert *c)
{
	const struct image *img = c->target.img;

	if (img->size < (c->n == 1 ? c->sources[0]->size : c->total))
		return refuse("output file is smaller than input file");
	if (opt_given(c->args, 'c') && !img->codec)
		return refuse("Compression not supported for this file format");
	if (opt_given(c->args, OPT_TARGET_IS_ZERO) && img->backing_name)
		return refuse("--target-is-zero is wrong for an image with a backing file");
	return true;
}

static bool check_joined(const struct convert *c)
{
	if (c->n > 1 && c->has_base)
		return refuse("Having a backing file for the target makes no sense when "
			      "concatenating multiple input images");
	return true;
}

/* Names that the new image keeps, and that would mean something else where it is made first. */
static bool check_kept_names(const struct convert *c)
{
	const char *backing = options_peek(c->create_options, "backing_file");

	if (options_peek(c->create_options, "data_file"))
		return refuse("An image with a data file cannot go to standard output (-)");
	if (backing && !g_path_is_absolute(backing))
		return refuse("The name of a backing file must be absolute when the image goes to "
			      "standard output (-)");
	return true;
}

/* A raw disk goes out as it is copied; what has tables is made in a temporary file before. */
static bool open_pipe(struct convert *c)
{
	struct tool_source s = {.format = c->format->name, .flags = IMAGE_RDWR, .cache = "unsafe"};
	struct image_open_options o = {.format = s.format, .flags = IMAGE_RDWR};
	struct file *f;
	GError *error = NULL;

	if (!make_create_options(c) || !check_joined(c) || !check_kept_names(c))
		return false;
	if (c->format->reserve) {
		c->temporary = file_temporary(&error);
		if (!c->temporary) {
			tool_say(error, NULL);
			return false;
		}
		c->target = (struct target){.name = c->temporary, .create = true};
		return target_open(c->args, &c->target, c->format, c->create_options, &s);
	}
	f = file_new_pipe("-", STDOUT_FILENO, c->n == 1 ? c->sources[0]->size : c->total);
	c->target = (struct target){.name = "-"};
	c->target.img = image_open_file(f, &o, &error);
	file_unref(f);
	c->sparse = 0; /* every byte must come, and in its turn */
	if (!c->target.img)
		tool_say(error, NULL);
	return c->target.img;
}

/* The finished image, out of its temporary file. */
static bool send_temporary(struct convert *c)
{
	struct tool_source s = {.format = "raw"};
	struct image_open_options o = {.format = "raw", .flags = IMAGE_RDWR};
	struct copy_job job = {.coroutines = COPY_COROUTINES_DEFAULT, .cancelled = tool_cancelled};
	GError *error = NULL;
	struct file *f;

	job.source = tool_open(c->args, c->temporary, &s);
	if (!job.source)
		return false;
	job.len = job.source->size;
	f = file_new_pipe("-", STDOUT_FILENO, job.len);
	job.target = image_open_file(f, &o, &error);
	file_unref(f);
	if (job.target)
		image_copy(&job, &error);
	image_unref(job.target);
	image_unref(job.source);
	if (error)
		tool_say(error, "Standard output: ");
	return !error;
}

static bool open_target(struct convert *c)
{
	struct tool_source s = {
		.format = opt_given(c->args, 'n') ? opt_value(c->args, 'O') : c->format->name,
		.flags = IMAGE_RDWR,
		.cache = opt_value(c->args, 't') ? opt_value(c->args, 't') : "unsafe",
		.with_image_opts = opt_given(c->args, OPT_TARGET_IMAGE_OPTS),
	};

	if (c->to_pipe)
		return open_pipe(c);
	c->target = (struct target){.name = c->args->operands[c->args->n - 1],
				    .create = !opt_given(c->args, 'n')};
	if (!s.format && !s.with_image_opts)
		s.format = c->format->name;
	if (!s.with_image_opts && target_is_source(c->target.name, c->sources, c->n))
		return false;
	c->has_base = backing_of(c->args);
	if ((c->target.create && !make_create_options(c)) || !check_joined(c))
		return false;
	if (!target_open(c->args, &c->target, c->format, c->create_options, &s))
		return false;
	if (check_target(c))
		return true;
	target_abandon(&c->target);
	return false;
}

/* ---- bitmaps ------------------------------------------------------------------------------- */

static void on_bitmap_warning(void *arg, const char *sentence)
{
	fprintf(stderr, "%s: warning: %s\n", tool_name, sentence);
}

/* Told before hours of copying. */
static bool check_bitmaps(struct convert *c)
{
	struct image *source = c->sources[0];
	g_autoptr(GPtrArray) list = NULL;
	GError *error = NULL;

	if (!opt_given(c->args, OPT_BITMAPS))
		return true;
	if (!image_may_have_bitmaps(source))
		return refuse("Source lacks bitmap support");
	list = image_bitmaps(source, &error);
	if (!list) {
		tool_say(error, NULL);
		return false;
	}
	for (guint i = 0; i < list->len && !opt_given(c->args, OPT_SKIP_BROKEN); i++) {
		const struct bitmap_info *b = g_ptr_array_index(list, i);

		if (b->inconsistent) {
			tool_error("Cannot copy inconsistent bitmap '%s'\nUse "
				   "--skip-broken-bitmaps, or use '%s bitmap --remove'",
				   b->name, tool_name);
			return false;
		}
	}
	return true;
}

static bool copy_bitmaps(struct convert *c, GError **error)
{
	return !opt_given(c->args, OPT_BITMAPS) ||
	       image_bitmaps_copy(c->sources[0], c->target.img, opt_given(c->args, OPT_SKIP_BROKEN),
				  on_bitmap_warning, NULL, error);
}

/* ---- copying -----------------------------------------------------------------------------------
 */

static void on_progress(void *arg, uint64_t done)
{
	struct convert *c = arg;

	progress_update(&c->progress, c->before + done, c->total);
}

static void on_salvaged(void *arg, uint64_t offset, uint64_t len, const char *why)
{
	struct convert *c = arg;

	if (!c->quiet)
		fprintf(stderr,
			"%s: warning: error while reading offset %" G_GUINT64_FORMAT ": %s\n",
			tool_name, offset, why);
}

static bool copy_all(struct convert *c, GError **error)
{
	const struct args *a = c->args;
	struct copy_job job = {
		.target = c->target.img,
		.sparse = c->sparse,
		/* A regular file that was just made reads as zeroes; with preallocation it
		 * does too, and keeps its space because nothing is punched. */
		.target_is_zero = c->target.is_zero || opt_given(a, OPT_TARGET_IS_ZERO),
		.coroutines = c->coroutines,
		.out_of_order = opt_given(a, 'W') && !opt_given(a, 'c') && !c->to_pipe,
		.salvage = opt_given(a, OPT_SALVAGE),
		.offload = opt_given(a, 'C'),
		.encode = opt_given(a, 'c'),
		/* What the source's own backing file has is in the target's, too. */
		.base = c->has_base ? c->sources[0]->backing : NULL,
		.throttle = &c->throttle,
		.progress = on_progress,
		.salvaged = on_salvaged,
		.cancelled = tool_cancelled,
		.arg = c,
	};

	for (unsigned i = 0; i < c->n; i++) {
		job.source = c->sources[i];
		job.len = c->sources[i]->size;
		job.target_start = c->before;
		if (job.len && !image_copy(&job, error))
			return false;
		c->before += sectors_up(job.len);
	}
	return true;
}

static bool convert(struct convert *c)
{
	const char *word = opt_value(c->args, 'O');
	GError *error = NULL;

	c->format = target_format(word ? word : "raw");
	if (!c->format || !check_abilities(c->args, c->format))
		return false;
	if (tool_wants_option_help(c->args))
		return tool_print_option_help(c->format, true) == 0;
	if (!open_sources(c) || !check_bitmaps(c) || !open_target(c))
		return false;
	progress_begin(&c->progress, opt_given(c->args, 'p') && !c->quiet, 1);
	if (copy_all(c, &error) && copy_bitmaps(c, &error))
		progress_update(&c->progress, 1, 1);
	progress_end(&c->progress);
	return target_close(&c->target, error) && (!c->temporary || send_temporary(c));
}

static int run(struct args *args)
{
	struct convert c = {.args = args};
	bool ok = parse(&c) && convert(&c);

	for (unsigned i = 0; i < c.n; i++)
		image_unref(c.sources[i]);
	g_free(c.sources);
	options_free(c.create_options);
	if (c.temporary) {
		unlink(c.temporary);
		g_free(c.temporary);
	}
	return ok ? 0 : 1;
}

const struct command command_convert = {
	.name = "convert",
	.run = run,
	.options = options,
	.operands = "FILE... TARGET",
	.summary = "Copy images, or a snapshot of one, into a new image",
	.examples = {"convert -c -O qcow2 disk.raw disk.qcow2",
		     "convert -p -l before disk.qcow2 old.raw",
		     "convert -n -O raw disk.qcow2 /dev/vg/disk"},
};
