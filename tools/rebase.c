/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* imgtool rebase */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "image/copy.h"
#include "image/create.h"
#include "image/rebase.h"
#include "tools/through.h"
#include "tools/tool.h"

static const struct opt options[] = {
	OPT_FORMAT,
	{'b', NULL, "BACKING", "the new backing file, as it is to be recorded; '': none"},
	{'F', NULL, "FMT", "its format (default: found out, and recorded)"},
	{'B', NULL, "FMT", "the same as -F"},
	{'u', NULL, NULL, "unsafe: change the names only, whatever the disk holds then"},
	{'c', NULL, NULL, "compress what is copied into the image"},
	{'p', NULL, NULL, "show progress"},
	{'t', NULL, "CACHE", "cache mode of the image (default: writeback)"},
	{'T', NULL, "CACHE", "cache mode of the new backing file (default: writeback)"},
	OPT_QUIET,
	OPTS_OPEN,
	{0},
};

struct request {
	struct args *args;
	const char *filename, *name; /* name: "" for none */
	const char *format;	     /* of it; NULL: not given */
	bool unsafe;
};

/* The image cannot lie below itself; and its own lock would be in the way, with other words. */
static bool check_loop(const struct request *r, const struct image *target)
{
	struct stat st;

	/* Not a plain name, or not there: opening it will say so. */
	if (file_lookup(r->filename, &st) < 0 || !tool_chain_has(target, &st))
		return true;
	tool_error("'%s' cannot be put above '%s': that is the image itself, or has it as a "
		   "backing file",
		   r->filename, r->name);
	return false;
}

static void warn(void *arg, const char *sentence)
{
	(void)arg;
	tool_error("warning: %s", sentence);
}

/* The format that is recorded when none was given is the one that was found. */
static void settle_format(struct request *r, const struct image *target)
{
	if (r->format)
		return;
	tool_error("warning: %s: Backing file specified without backing format: the detected "
		   "format %s is recorded",
		   r->filename, target->format->name);
	r->format = target->format->name;
}

/* *target stays NULL where none is wanted. */
static bool open_target(struct request *r, struct image **target)
{
	struct image_open_options o = {
		.format = r->format,
		.flags = opt_given(r->args, 'U') ? IMAGE_FORCE_SHARE : 0,
		.gate = tool_gate(r->args),
		.warn = warn,
	};
	const char *cache = opt_value(r->args, 'T');
	GError *error = NULL;

	*target = NULL;
	if (cache && !cache_mode_parse(cache, &o.cache)) {
		tool_error("Invalid source cache option: %s", cache);
		return false;
	}
	if (r->format && !image_find_format(r->format, NULL)) {
		tool_error("Invalid format name: '%s'", r->format);
		return false;
	}
	if (!o.gate || r->unsafe || !*r->name)
		return o.gate != NULL;
	*target = image_open_beside(r->filename, r->name, &o, &error);
	if (!*target) {
		g_autofree char *path = image_path_beside(r->filename, r->name);

		through_explain(r->args, path, &error);
		g_prefix_error(&error, "Could not open new backing file '%s': ", r->name);
		tool_say(error, NULL);
		return false;
	}
	settle_format(r, *target);
	return check_loop(r, *target);
}

static struct image *open_top(const struct request *r)
{
	struct tool_source s = {
		.format = opt_value(r->args, 'f'),
		.flags = IMAGE_RDWR | (r->unsafe ? IMAGE_NO_BACKING : 0),
		.cache = opt_value(r->args, 't'),
		.with_image_opts = opt_given(r->args, OPT_IMAGE_OPTS),
	};

	return tool_open(r->args, r->args->operands[0], &s);
}

/* What the snapshots leave to the backing file will be read from another one. */
static void warn_of_snapshots(struct image *top, const char *name)
{
	g_autoptr(GPtrArray) list = image_snapshots(top, NULL);

	if (!list || !list->len || (!top->backing_name && !*name))
		return;
	tool_error("warning: '%s' has %u internal snapshot%s: the disk stays the same, but where a "
		   "snapshot has no clusters of its own it now shows %s",
		   top->filename, list->len, list->len == 1 ? "" : "s",
		   *name ? "the new backing file" : "zeroes");
}

static bool rebase(const struct request *r, struct image *top, struct image *target)
{
	struct progress progress;
	struct rebase_job job = {
		.top = top,
		.target = target,
		.name = r->name,
		.format = *r->name ? r->format : NULL,
		.compress = opt_given(r->args, 'c'),
		.coroutines = COPY_COROUTINES_DEFAULT,
		.progress = tool_progressed,
		.cancelled = tool_cancelled,
		.arg = &progress,
	};
	GError *error = NULL;
	bool ok;

	progress_begin(&progress, opt_given(r->args, 'p') && !opt_given(r->args, 'q'), 2);
	ok = r->unsafe ? image_set_backing(top, job.name, job.format, &error)
		       : image_rebase(&job, &error);
	if (ok)
		progress_update(&progress, 1, 1);
	progress_end(&progress);
	if (!ok)
		tool_say(error, NULL);
	else
		warn_of_snapshots(top, r->name);
	return ok;
}

static int carry_out(struct request *r)
{
	struct image *target, *top = NULL;
	int status = 1;

	if (open_target(r, &target))
		top = open_top(r);
	if (top) {
		tool_catch_signals();
		status = rebase(r, top, target) ? 0 : 1;
		status = tool_close(top, status);
	}
	image_unref(target);
	return status;
}

static int run(struct args *args)
{
	struct request r = {
		.args = args,
		.name = opt_value(args, 'b'),
		.format = opt_value(args, opt_given(args, 'F') ? 'F' : 'B'),
		.unsafe = opt_given(args, 'u'),
	};

	if (args->n != 1)
		return tool_usage(args, "Expecting one image file name");
	if (!r.unsafe && !r.name)
		return tool_usage(args, "Must specify backing file (-b) or use unsafe mode (-u)");
	if (!tool_check_common(args))
		return 1;
	r.filename = args->operands[0];
	r.name = r.name ? r.name : "";
	return carry_out(&r);
}

const struct command command_rebase = {
	.name = "rebase",
	.run = run,
	.options = options,
	.operands = "FILE",
	.summary = "Give an image another backing file",
	.examples = {"rebase -b new.qcow2 -F qcow2 overlay.qcow2", "rebase -b '' overlay.qcow2",
		     "rebase -u -b moved/base.raw -F raw overlay.qcow2"},
};
