/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* imgtool commit */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/commit.h"
#include "image/copy.h"
#include "image/throttle.h"
#include "tools/through.h"
#include "tools/tool.h"

static const struct opt options[] = {
	OPT_FORMAT,
	{'b', NULL, "BASE",
	 "the image of the chain to write into (default: right below); implies -d"},
	{'d', NULL, NULL, "do not empty the overlay"},
	{'p', NULL, NULL, "show progress"},
	{'r', NULL, "RATE", "read and write no more than so many bytes a second"},
	{'t', NULL, "CACHE", "cache mode of what is written (default: writeback)"},
	OPT_QUIET,
	OPTS_WRITE,
	{0},
};

static struct image *open_chain(struct args *args, unsigned flags, unsigned depth)
{
	struct tool_source s = {
		.format = opt_value(args, 'f'),
		.flags = flags,
		.cache = opt_value(args, 't'),
		.writable_depth = depth,
		.with_image_opts = opt_given(args, OPT_IMAGE_OPTS),
	};

	return tool_open(args, args->operands[0], &s);
}

/* How far below the overlay the base is; 0 after saying that there is none. */
static unsigned find_base(struct args *args)
{
	const char *name = opt_value(args, 'b');
	struct image *img = open_chain(args, 0, 0);
	unsigned depth = 0;

	if (!img)
		return 0;
	if (!img->backing)
		tool_error("Image does not have a backing file");
	else if (!name)
		depth = 1;
	else if ((depth = image_find_layer(img, name)) == 0)
		tool_error("Did not find '%s' in the backing chain of '%s'", name,
			   args->operands[0]);
	image_unref(img);
	return depth;
}

/* Opened again, now for writing: is the image so far below still there? */
static struct image *layer_at(struct image *top, unsigned depth)
{
	while (top && depth--)
		top = top->backing;
	return top;
}

static bool commit(struct args *args, struct image *top, unsigned depth)
{
	bool quiet = opt_given(args, 'q');
	struct throttle throttle = {0};
	struct progress progress;
	struct commit_job job = {
		.top = top,
		.base = layer_at(top, depth),
		.empty = !opt_given(args, 'b') && !opt_given(args, 'd'),
		.coroutines = COPY_COROUTINES_DEFAULT,
		.throttle = &throttle,
		.progress = tool_progressed,
		.cancelled = tool_cancelled,
		.arg = &progress,
	};
	GError *error = NULL;
	bool ok;

	if (!tool_rate(args, &throttle))
		return false;
	if (!job.base || !(job.base->flags & IMAGE_RDWR)) {
		tool_error("The backing chain of '%s' was changed by somebody else", top->filename);
		return false;
	}
	progress_begin(&progress, opt_given(args, 'p') && !quiet, 1);
	ok = image_commit(&job, &error);
	if (ok)
		progress_update(&progress, 1, 1);
	progress_end(&progress);
	if (!ok)
		tool_say(error, NULL);
	return ok;
}

/* ---- through a mount ------------------------------------------------------------------------- */

struct follower {
	struct args *args;
	struct progress progress;
	bool cancelled; /* by us */
	char *state, *message;
};

/* The value of "key: value" in text. NULL: there is none. Caller frees. */
static char *value_of(const char *text, const char *key)
{
	g_autofree char *start = g_strconcat(key, ": ", NULL);
	g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

	for (unsigned i = 0; lines[i]; i++)
		if (g_str_has_prefix(lines[i], start))
			return g_strdup(lines[i] + strlen(start));
	return NULL;
}

static bool follow(void *arg, char *text)
{
	struct follower *f = arg;
	g_autofree char *percent = value_of(text, "percent");
	guint64 done = 0;

	g_free(f->state);
	g_free(f->message);
	f->state = value_of(text, "state");
	f->message = value_of(text, "message");
	if (percent && g_ascii_string_to_unsigned(percent, 10, 0, 100, &done, NULL))
		progress_update(&f->progress, done, 100);
	if (!f->state || strcmp(f->state, "running") != 0)
		return false;
	if (tool_interrupted() && !f->cancelled) {
		/* Refused when it has ended meanwhile: how, is what is read next. */
		through_send(f->args, "commit", "cancel\n", NULL);
		f->cancelled = true;
	}
	return true;
}

/* "[rate=BYTES] [base=NAME]". The mount does not know which folder a name is relative to. */
static char *commit_line(const struct args *args, const struct throttle *t, GError **error)
{
	const char *name = opt_value(args, 'b');
	g_autofree char *real = name ? realpath(name, NULL) : NULL, *base = NULL;
	g_autofree char *rate =
		t->rate ? g_strdup_printf("rate=%" G_GUINT64_FORMAT " ", t->rate) : NULL;

	if (name && !(base = through_quote(real ? real : name, error)))
		return NULL;
	return g_strconcat(rate ? rate : "", base ? "base=" : "", base ? base : "", "\n", NULL);
}

static bool commit_mounted(struct args *args, GError **error)
{
	struct follower f = {.args = args};
	struct throttle throttle = {0};
	g_autofree char *line = NULL;
	bool ok;

	if (opt_given(args, 'd')) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_UNSUPPORTED,
			    "'%s' is mounted, and the mount empties what it has committed: leave "
			    "out -d, or unmount it first",
			    args->mounted_name);
		return false;
	}
	if (!tool_rate(args, &throttle))
		return false;
	line = commit_line(args, &throttle, error);
	if (!line || !through_send(args, "commit", line, error))
		return false;
	progress_begin(&f.progress, opt_given(args, 'p') && !opt_given(args, 'q'), 1);
	ok = through_follow(args, "commit", follow, &f, error);
	progress_end(&f.progress);
	if (ok && g_strcmp0(f.state, "done") != 0) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_FAILED, "%s",
			    f.message ? f.message : "the mount does not say how it went");
		ok = false;
	}
	g_free(f.state);
	g_free(f.message);
	return ok;
}

static int run_mounted(struct args *args)
{
	GError *error = NULL;
	bool ok = commit_mounted(args, &error);

	if (error)
		tool_say(error, NULL);
	else if (ok && !opt_given(args, 'q'))
		printf("Image committed.\n");
	return ok ? 0 : 1;
}

static int run(struct args *args)
{
	struct image *top;
	unsigned depth;
	int status;

	if (args->n != 1)
		return tool_usage(args, "Expecting one image file name");
	if (!tool_check_common(args))
		return 1;
	depth = find_base(args);
	if (!depth)
		return args->mount ? run_mounted(args) : 1;
	/* With -d or -b nothing is written to the overlay: a read-only one will do. */
	top = open_chain(args, IMAGE_RDWR, depth);
	if (!top)
		return args->mount ? run_mounted(args) : 1;
	tool_catch_signals();
	status = commit(args, top, depth) ? 0 : 1;
	status = tool_close(top, status);
	if (status == 0 && !opt_given(args, 'q'))
		printf("Image committed.\n");
	return status;
}

const struct command command_commit = {
	.name = "commit",
	.run = run,
	.options = options,
	.mounted_read = MOUNTED_SENT,
	.mounted_write = MOUNTED_SENT,
	.operands = "FILE",
	.summary = "Write what an overlay holds into its backing file",
	.examples = {"commit overlay.qcow2", "commit -d -p overlay.qcow2",
		     "commit -b base.qcow2 top.qcow2"},
};
