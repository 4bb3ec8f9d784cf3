/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * control/commit: a line that is empty, or "[rate=BYTES] [base=NAME]", starts a commit, which goes
 * on beside everything else; "cancel" ends it. What is read is how it stands, "key: value" a line;
 * poll(2) tells of news. The write returns when the copying has begun, so what refuses a commit is
 * the write's error.
 */
#include "config.h"

#include <errno.h>
#include <string.h>

#include "fs/control.h"
#include "fs/data.h"
#include "fs/kernel.h"
#include "fs/open.h"
#include "fs/session.h"
#include "fs/status.h"
#include "image/commit.h"
#include "image/throttle.h"

#define FILE_NAME "commit"
#define RATE	  "rate="
#define BASE	  "base="
/* Pieces of the copy under way; each that is more lets a program's request wait longer. */
#define COROUTINES 4

enum state { STATE_NONE, STATE_RUNNING, STATE_DONE, STATE_CANCELLED, STATE_FAILED };
static const char *const state_names[] = {"none", "running", "done", "cancelled", "failed"};

/* The commit that runs, or ran last; of a writable mount's one loop. */
static struct {
	enum state state;
	bool begun;	/* the copying */
	bool cancel;	/* somebody wants it to end */
	bool cancelled; /* and it knows */
	int err;	/* positive, of a failure */
	unsigned percent;
	char *base, *message;
	struct co_queue waiters; /* for the copying to begin, for the end */
} job;
static bool no_more; /* the mount ends */

struct commit {
	struct tree *tree;
	unsigned depth; /* of the base below the image */
	struct throttle throttle;
};

static struct image *layer_at(struct tree *t, unsigned depth)
{
	struct image *img = tree_image(t);

	while (depth--)
		img = img->backing;
	return img;
}

/* ---- the job ---- */

static void begun(void *arg)
{
	job.begun = true;
	co_queue_wake_all(&job.waiters);
}

/* Later rounds are short ones; 100 is for what is finished. */
static void progressed(void *arg, uint64_t done, uint64_t total)
{
	unsigned percent = total ? (unsigned)((double)done * 100 / (double)total) : 0;

	status_job_progress(done, total);
	percent = MIN(percent, 99);
	if (percent > job.percent) {
		job.percent = percent;
		control_changed(FILE_NAME);
	}
}

static bool is_cancelled(void *arg)
{
	job.cancelled = job.cancelled || job.cancel;
	return job.cancelled;
}

static void set_end(enum state state, char *message)
{
	job.state = state;
	g_free(job.message);
	job.message = message;
}

static void note_success(const struct commit *c)
{
	const char *top = tree_image(c->tree)->filename;

	job.percent = 100;
	set_end(STATE_DONE,
		c->depth == 1 ? g_strdup_printf("'%s' was committed and is empty now", top)
			      : g_strdup_printf("'%s' was committed; it keeps its bytes, as the "
						"images below it down to the base do",
						top));
	status_job_end(STATUS_JOB_DONE, NULL);
}

static void note_failure(const struct commit *c, const GError *error)
{
	const char *top = tree_image(c->tree)->filename;

	if (job.cancelled) {
		set_end(STATE_CANCELLED,
			g_strdup_printf("cancelled: '%s' has all its bytes still, and hides what "
					"the base got",
					top));
		status_job_end(STATUS_JOB_CANCELLED, NULL);
		return;
	}
	set_end(STATE_FAILED, g_strdup(error->message));
	job.err = control_errno(error);
	status_job_end(STATUS_JOB_FAILED, error->message);
	/* A refusal is told by the write that it is the answer to. */
	if (job.begun)
		status_error(job.err, FILE_NAME, error->message);
}

/* Of the disk itself no byte is another; but the layers' files show what the base got. */
static void tell_kernel(const struct commit *c)
{
	data_changed();
	for (unsigned depth = 1; depth <= c->depth; depth++)
		kernel_disk_changed(DISK_LAYER_0 + depth);
}

static void run(void *arg)
{
	struct commit *c = arg;
	const struct commit_job commit = {
		.top = tree_image(c->tree),
		.base = layer_at(c->tree, c->depth),
		.empty = c->depth == 1,
		.live = true,
		.coroutines = COROUTINES,
		.throttle = c->throttle.rate ? &c->throttle : NULL,
		.begun = begun,
		.progress = progressed,
		.cancelled = is_cancelled,
	};
	g_autoptr(GError) error = NULL;
	bool ok = image_commit(&commit, &error);

	/* Before anybody sees that it has ended, and looks at what the base got. */
	if (job.begun)
		tell_kernel(c);
	open_name_holders(&error, commit.base);
	if (ok)
		note_success(c);
	else
		note_failure(c, error);
	co_queue_wake_all(&job.waiters);
	control_changed(FILE_NAME);
	g_free(c);
}

/* ---- commands ---- */

static int may_start(struct tree *t, GError **error)
{
	struct image *top = tree_image(t);

	if (no_more)
		return control_refuse(error, ESHUTDOWN, "the mount ends");
	if (job.state == STATE_RUNNING)
		return control_refuse(error, EBUSY, "a commit runs already");
	if (tree_is_scratch(t))
		return control_refuse(error, EOPNOTSUPP,
				      "what is written to a scratch mount is thrown away: mount "
				      "with -o overlay=FILE to keep it");
	if (!top->backing)
		return control_refuse(error, EOPNOTSUPP, "'%s' has no backing file", top->filename);
	return 0;
}

static void reset(struct image *base)
{
	g_free(job.base);
	g_clear_pointer(&job.message, g_free);
	job.base = g_strdup(base->filename);
	job.state = STATE_RUNNING;
	job.begun = job.cancel = job.cancelled = false;
	job.err = 0;
	job.percent = 0;
}

static int start(struct tree *t, unsigned depth, uint64_t rate, GError **error)
{
	struct commit *c;

	if (!status_job_begin(FILE_NAME))
		return control_refuse(error, EBUSY, "another job runs");
	c = g_new(struct commit, 1);
	*c = (struct commit){t, depth, {.rate = rate}};
	reset(layer_at(t, depth));
	control_changed(FILE_NAME);
	worker_start_aside(worker_self(), run, c);
	while (job.state == STATE_RUNNING && !job.begun)
		co_queue_wait(&job.waiters);
	if (job.state != STATE_FAILED || job.begun)
		return 0;
	return control_refuse(error, job.err, "%s", job.message);
}

/* Takes a word "rate=BYTES" off the line, if one stands in front; *rate: bytes a second, 0: as
 * fast as it goes. */
static int take_rate(char **line, uint64_t *rate, GError **error)
{
	char *word;

	*rate = 0;
	if (!g_str_has_prefix(*line, RATE))
		return 0;
	word = control_word(line, false, "rate", error);
	return word && units_parse(word + strlen(RATE), "rate", 1, INT64_MAX, rate, error)
		       ? 0
		       : -EINVAL;
}

/* How far below the image the one is that the line names: nothing is right below, 1. */
static int take_base(struct tree *t, char *line, unsigned *depth, GError **error)
{
	*depth = 1;
	if (!*line)
		return 0;
	if (!g_str_has_prefix(line, BASE))
		return control_refuse(error, EINVAL,
				      "'%s' is neither an empty line nor base=NAME nor cancel",
				      line);
	line += strlen(BASE);
	line = control_word(&line, true, "name of the base", error);
	if (!line)
		return -EINVAL;
	*depth = image_find_layer(tree_image(t), line);
	if (*depth)
		return 0;
	return control_refuse(error, ENOENT,
			      "no image below '%s' is '%s', or has it recorded as its backing file",
			      tree_image(t)->filename, line);
}

/* Returns when it has ended, which it may have done by itself just before. */
static int cancel(GError **error)
{
	if (job.state != STATE_RUNNING)
		return control_refuse(error, ESRCH, "no commit runs");
	job.cancel = true;
	while (job.state == STATE_RUNNING)
		co_queue_wait(&job.waiters);
	return 0;
}

int control_commit_command(struct tree *t, struct control_open *o, char *line, GError **error)
{
	unsigned depth;
	uint64_t rate;
	int ret;

	if (!strcmp(line, "cancel"))
		return cancel(error);
	ret = take_rate(&line, &rate, error);
	if (!ret)
		ret = take_base(t, line, &depth, error);
	if (!ret)
		ret = may_start(t, error);
	if (ret)
		return ret;
	/* What was written before is to be in the base, and may make the disk longer first. */
	kernel_settle();
	return start(t, depth, rate, error);
}

static void show(GString *out, const char *key, const char *value)
{
	if (value)
		g_string_append_printf(out, "%s: %s\n", key, value);
}

int control_commit_show(struct tree *t, struct control_open *o, GString *out, GError **error)
{
	g_autofree char *message = job.message ? g_strdup(job.message) : NULL;
	char percent[12];

	g_snprintf(percent, sizeof(percent), "%u", job.percent);
	show(out, "state", state_names[job.state]);
	show(out, "percent", job.state == STATE_NONE ? NULL : percent);
	show(out, "base", job.base);
	show(out, "message", message ? g_strdelimit(message, "\n", ' ') : NULL);
	return 0;
}

void control_commit_end(void)
{
	no_more = true;
	job.cancel = true;
}

void control_commit_clear(void)
{
	g_clear_pointer(&job.base, g_free);
	g_clear_pointer(&job.message, g_free);
	memset(&job, 0, sizeof(job));
	no_more = false;
}
