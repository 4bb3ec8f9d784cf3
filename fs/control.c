/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "fs/control.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <string.h>

#include "fs/events.h"
#include "fs/log.h"
#include "fs/session.h"
#include "fs/status.h"

#define READ_MAX (1u << 20)

static int show_status(struct tree *t, struct control_open *o, GString *out, GError **error)
{
	status_show(t, out);
	return 0;
}

static const struct control_file files[] = {
	{
		.name = "snapshot",
		.command = control_snapshot_command,
		.show = control_snapshot_show,
	},
	{
		.name = "resize",
		.command = control_resize_command,
		.show = control_resize_show,
	},
	{
		.name = "commit",
		.command = control_commit_command,
		.show = control_commit_show,
		.takes_empty = true,
		.polls = true,
	},
	{
		.name = "hold",
		.show = control_hold_show,
		.closed = control_hold_end,
	},
	{
		.name = "status",
		.show = show_status,
	},
	{
		.name = "events",
	},
};

/* How often each file was said to have changed; atomic. */
static unsigned changes[G_N_ELEMENTS(files)];
/* Open files that can be polled for such a change. */
static pthread_mutex_t opens_lock = PTHREAD_MUTEX_INITIALIZER;
static GQueue opens = G_QUEUE_INIT;
/* Commands run one after another; a writable mount has one loop. */
static struct co_mutex commands;
static bool finished; /* no more are begun */

unsigned control_count(void)
{
	return G_N_ELEMENTS(files);
}

const char *control_name(unsigned index)
{
	return files[index].name;
}

/* ---- errors ---- */

/*
 * The sentence of an error that a system call had has the system's words for it, at or near its
 * end; these are what a writer can tell apart.
 */
static int errno_of_words(const char *sentence)
{
	static const int known[] = {ENOSPC, EFBIG, EDQUOT, ENOMEM, EACCES, EPERM, EROFS, EBUSY};

	for (unsigned i = 0; i < G_N_ELEMENTS(known); i++)
		if (g_strrstr(sentence, g_strerror(known[i])))
			return known[i];
	return EIO;
}

static int errno_of_file(const GError *error)
{
	switch (error->code) {
	case G_FILE_ERROR_AGAIN: /* a lock that another process has */
		return EBUSY;
	case G_FILE_ERROR_ROFS:
		return EROFS;
	case G_FILE_ERROR_ACCES:
		return EACCES;
	case G_FILE_ERROR_PERM:
		return EPERM;
	default:
		return errno_of_words(error->message);
	}
}

int control_errno(const GError *error)
{
	if (error->domain == G_FILE_ERROR)
		return errno_of_file(error);
	if (error->domain != IMAGE_ERROR)
		return EIO;
	switch (error->code) {
	case IMAGE_ERROR_UNSUPPORTED:
		return EOPNOTSUPP;
	case IMAGE_ERROR_REFUSED:
		return EPERM;
	case IMAGE_ERROR_LOCKED:
	case IMAGE_ERROR_BUSY:
		return EBUSY;
	case IMAGE_ERROR_NOT_FOUND:
		return ENOENT;
	case IMAGE_ERROR_USAGE:
		return EINVAL;
	default:
		return errno_of_words(error->message);
	}
}

int control_refuse(GError **error, int err, const char *format, ...)
{
	g_autofree char *sentence = NULL;
	va_list args;

	va_start(args, format);
	sentence = g_strdup_vprintf(format, args);
	va_end(args);
	g_set_error_literal(error, IMAGE_ERROR, IMAGE_ERROR_FAILED, sentence);
	return -err;
}

/* A failure is told with what its maker called it. */
static int tell_failure(const char *source, int ret, GError *error)
{
	const char *sentence = error ? error->message : g_strerror(-ret);

	status_error(-ret, source, sentence);
	g_clear_error(&error);
	return ret;
}

int control_run(struct tree *t, const char *source, control_fn *fn, void *arg)
{
	GError *error = NULL;
	int ret;

	if (!tree_is_writable(t)) {
		ret = control_refuse(&error, EROFS, STATUS_READ_ONLY);
	} else {
		co_mutex_lock(&commands);
		ret = finished ? control_refuse(&error, ESHUTDOWN, "the mount ends")
			       : fn(t, arg, &error);
		co_mutex_unlock(&commands);
	}
	return ret ? tell_failure(source, ret, error) : 0;
}

void control_finish(void)
{
	finished = true;
	co_mutex_lock(&commands);
	co_mutex_unlock(&commands);
}

/* ---- words of a line ---- */

static void skip_blanks(char **p)
{
	while (**p == ' ' || **p == '\t')
		(*p)++;
}

static char *quoted_word(char **rest, const char *what, GError **error)
{
	char *in = *rest + 1, *out = *rest, *word = out;

	while (*in && *in != '"') {
		if (*in == '\\' && (in[1] == '"' || in[1] == '\\'))
			in++;
		*out++ = *in++;
	}
	if (!*in || (in[1] && in[1] != ' ' && in[1] != '\t')) {
		control_refuse(error, EINVAL,
			       *in ? "the quoted %s ends inside a word"
				   : "the %s lacks its closing quote",
			       what);
		return NULL;
	}
	*out = '\0';
	*rest = in + 1;
	skip_blanks(rest);
	return word;
}

char *control_word(char **rest, bool whole, const char *what, GError **error)
{
	char *word, *end;

	skip_blanks(rest);
	word = *rest;
	if (*word == '"')
		word = quoted_word(rest, what, error);
	else if (whole)
		*rest += strlen(*rest);
	else {
		end = word + strcspn(word, " \t");
		*rest = end;
		skip_blanks(rest);
		*end = '\0';
	}
	if (word && !*word) {
		control_refuse(error, EINVAL, "the %s is missing", what);
		return NULL;
	}
	return word;
}

/* ---- lines ---- */

struct line_call {
	struct control_open *o;
	char *line;
};

static int run_line(struct tree *t, void *arg, GError **error)
{
	struct line_call *call = arg;

	return call->o->file->command(t, call->o, call->line, error);
}

static int refuse_line(struct control_open *o, const char *sentence)
{
	status_error(EINVAL, o->file->name, sentence);
	return -EINVAL;
}

static bool has_control_bytes(const char *line)
{
	for (; *line; line++)
		if (((unsigned char)*line < 0x20 && *line != '\t') || *line == 0x7f)
			return true;
	return false;
}

/* The line that is complete now. */
static int take_line(struct tree *t, struct control_open *o)
{
	g_autofree char *line = g_strndup(o->line->str, o->line->len);
	size_t len = o->line->len;
	struct line_call call = {o, line};

	g_string_truncate(o->line, 0);
	if (strlen(line) != len || !g_utf8_validate(line, -1, NULL))
		return refuse_line(o, "the line is not text");
	g_strstrip(line);
	if (has_control_bytes(line))
		return refuse_line(o, "the line has control characters");
	if (!*line && !o->file->takes_empty)
		return 0;
	return control_run(t, o->file->name, run_line, &call);
}

/* Up to the line's end goes to the line; *used bytes. */
static int take_piece(struct tree *t, struct control_open *o, const char *data, size_t len,
		      size_t *used)
{
	const char *end = memchr(data, '\n', len);
	size_t n = end ? (size_t)(end - data) : len;

	*used = end ? n + 1 : n;
	if (o->line->len + n > CONTROL_LINE_MAX)
		return refuse_line(o, "the line is longer than 4096 bytes");
	g_string_append_len(o->line, data, (gssize)n);
	return end ? take_line(t, o) : 0;
}

/* What stands behind a line that failed is not carried out. */
static void note_failed(struct control_open *o, const char *data, size_t len, size_t done, int ret)
{
	g_string_truncate(o->line, 0);
	g_clear_pointer(&o->failed, g_bytes_unref);
	o->failed = g_bytes_new(data, len);
	o->failed_done = done;
	o->failed_ret = ret;
}

/*
 * What comes behind a line that failed may have been meant to happen only after it, and a shell's
 * printf writes each line by itself: it fails likewise. Programs that buffer often try once more
 * when they are closed: such a second write of the same bytes goes on at the line that failed, and
 * does nothing twice. *done: bytes of it that are not to be carried out.
 */
static int look_back(struct control_open *o, const char *data, size_t len, size_t *done)
{
	g_autoptr(GBytes) now = NULL;

	*done = 0;
	if (!o->failed)
		return 0;
	now = g_bytes_new_static(data, len);
	if (!g_bytes_equal(now, o->failed))
		return o->failed_ret;
	*done = o->failed_done;
	g_clear_pointer(&o->failed, g_bytes_unref);
	return 0;
}

static int write_lines(struct tree *t, struct control_open *o, const char *data, size_t len)
{
	size_t done;
	int ret = look_back(o, data, len, &done);

	while (!ret && done < len) {
		size_t used;

		ret = take_piece(t, o, data + done, len - done, &used);
		if (ret) {
			note_failed(o, data, len, done, ret);
			return ret;
		}
		done += used;
	}
	return ret;
}

/* The last line has no end: the file is closed. */
static int finish_line(struct tree *t, struct control_open *o)
{
	return o->line->len ? take_line(t, o) : 0;
}

/* ---- requests ---- */

struct request {
	fuse_req_t req;
	struct control_open *o;
	struct tree *tree;
	struct fuse_file_info fi;
	uint64_t offset;
	size_t size;
	void (*run)(struct request *r);
	char data[];
};

static void request_main(void *arg)
{
	struct request *r = arg;

	r->run(r);
	g_free(r);
}

static struct request *request_new(fuse_req_t req, const struct fuse_file_info *fi,
				   const char *data, size_t len, void (*run)(struct request *r))
{
	struct request *r = g_malloc0(sizeof(*r) + len);

	r->req = req;
	r->run = run;
	r->fi = *fi;
	r->o = (struct control_open *)(uintptr_t)fi->fh;
	r->tree = worker_self()->tree;
	r->size = len;
	if (len)
		memcpy(r->data, data, len);
	return r;
}

/*
 * Beside the others: a command may wait for writes that the kernel has yet to send, so however many
 * wait, these must be received.
 */
static void request_start(struct request *r)
{
	worker_start_aside(worker_self(), request_main, r);
}

static unsigned *changes_of(const struct control_open *o)
{
	return &changes[o->file - files];
}

static void open_free(struct control_open *o)
{
	pthread_mutex_lock(&opens_lock);
	g_queue_remove(&opens, o);
	pthread_mutex_unlock(&opens_lock);
	if (o->events)
		events_close(o->events);
	if (o->poll)
		fuse_pollhandle_destroy(o->poll);
	if (o->text)
		g_string_free(o->text, TRUE);
	g_clear_pointer(&o->failed, g_bytes_unref);
	g_string_free(o->line, TRUE);
	pthread_mutex_destroy(&o->lock);
	g_free(o);
}

static struct control_open *open_new(const struct control_file *file)
{
	struct control_open *o = g_new0(struct control_open, 1);

	o->file = file;
	o->line = g_string_new(NULL);
	pthread_mutex_init(&o->lock, NULL);
	if (!file->show)
		o->events = events_open();
	o->seen = __atomic_load_n(changes_of(o), __ATOMIC_ACQUIRE) - 1;
	pthread_mutex_lock(&opens_lock);
	g_queue_push_tail(&opens, o);
	pthread_mutex_unlock(&opens_lock);
	return o;
}

void control_op_open(fuse_req_t req, uint64_t node, struct fuse_file_info *fi)
{
	const struct control_file *file = &files[node_leaf(node) - LEAF_CONTROL_0];
	bool writes = (fi->flags & O_ACCMODE) != O_RDONLY;
	struct control_open *o;

	if (writes && (!file->command || !tree_is_writable(worker_self()->tree))) {
		fuse_reply_err(req, file->command ? EROFS : EACCES);
		return;
	}
	o = open_new(file);
	fi->direct_io = 1;
	fi->fh = (uintptr_t)o;
	/* Interrupted: there will be no release. */
	if (fuse_reply_open(req, fi) == -ENOENT)
		open_free(o);
}

/* Is there a text that this read goes on in? With the lock. */
static bool has_text(const struct request *r)
{
	return r->o->text && r->offset && r->offset != r->o->text_start;
}

/* With the lock. */
static void drop_text(struct control_open *o, uint64_t start)
{
	if (o->text)
		g_string_free(o->text, TRUE);
	o->text = NULL;
	o->text_start = start;
}

/* Text is made by a read from the start, or by the first one after a write. */
static int make_text(struct request *r)
{
	struct control_open *o = r->o;
	GString *text = g_string_new(NULL);
	unsigned seen = __atomic_load_n(changes_of(o), __ATOMIC_ACQUIRE);
	GError *error = NULL;
	int ret = o->file->show(r->tree, o, text, &error);

	if (ret) {
		g_string_free(text, TRUE);
		return tell_failure(o->file->name, ret, error);
	}
	pthread_mutex_lock(&o->lock);
	drop_text(o, r->offset);
	o->text = text;
	o->seen = seen;
	pthread_mutex_unlock(&o->lock);
	return 0;
}

static void run_read(struct request *r)
{
	struct control_open *o = r->o;
	g_autofree char *bytes = NULL;
	size_t len = 0;
	bool made;
	int ret;

	pthread_mutex_lock(&o->lock);
	o->reader = r->fi.lock_owner;
	made = has_text(r);
	pthread_mutex_unlock(&o->lock);
	ret = made ? 0 : make_text(r);
	if (ret) {
		fuse_reply_err(r->req, -ret);
		return;
	}
	pthread_mutex_lock(&o->lock);
	if (o->text) {
		uint64_t at = r->offset >= o->text_start ? r->offset - o->text_start : 0;

		at = MIN(at, o->text->len);
		len = MIN(r->size, o->text->len - at);
		bytes = g_memdup2(o->text->str + at, len);
	}
	pthread_mutex_unlock(&o->lock);
	/* Last: with the answer the file may be closed, on another loop. */
	fuse_reply_buf(r->req, bytes, len);
}

void control_op_read(fuse_req_t req, uint64_t offset, size_t size, struct fuse_file_info *fi)
{
	struct request *r = request_new(req, fi, NULL, 0, run_read);

	if (r->o->events) {
		/* Who walks a tree follows no links: cp -r, tar and grep -r are not to wait. */
		events_reply_read(r->o->events, req, MIN(size, READ_MAX),
				  fi->flags & O_NOFOLLOW   ? EVENTS_END
				  : fi->flags & O_NONBLOCK ? EVENTS_EAGAIN
							   : EVENTS_WAIT);
		g_free(r);
		return;
	}
	r->offset = offset;
	r->size = MIN(size, READ_MAX);
	request_start(r);
}

static void run_write(struct request *r)
{
	struct control_open *o = r->o;
	int ret;

	co_mutex_lock(&o->writing);
	o->writer = r->fi.lock_owner;
	ret = write_lines(r->tree, o, r->data, r->size);
	co_mutex_unlock(&o->writing);
	pthread_mutex_lock(&o->lock);
	drop_text(o, r->offset + (ret ? 0 : r->size));
	pthread_mutex_unlock(&o->lock);
	if (ret)
		fuse_reply_err(r->req, -ret);
	else
		fuse_reply_write(r->req, r->size);
}

void control_op_write(fuse_req_t req, const char *data, size_t size, uint64_t offset,
		      struct fuse_file_info *fi)
{
	struct request *r = request_new(req, fi, data, size, run_write);

	r->offset = offset;
	request_start(r);
}

/* A shell that reads from a file makes a descriptor for that and closes it afterwards. */
static bool has_open(pid_t pid, const char *name)
{
	g_autofree char *path = g_strdup_printf("/proc/%ld/fd", (long)pid);
	g_autofree char *end = g_strdup_printf("/control/%s", name);
	GDir *dir = g_dir_open(path, 0, NULL);
	const char *fd;
	bool found = false;

	while (dir && !found && (fd = g_dir_read_name(dir))) {
		g_autofree char *link = g_build_filename(path, fd, NULL);
		g_autofree char *to = g_file_read_link(link, NULL);

		found = to && g_str_has_suffix(to, end);
	}
	if (dir)
		g_dir_close(dir);
	return found;
}

/* Another process that has the file too, such as a child, does not end the writer's line. */
static void run_flush(struct request *r)
{
	int ret = 0;

	co_mutex_lock(&r->o->writing);
	if (r->o->writer == r->fi.lock_owner)
		ret = finish_line(r->tree, r->o);
	co_mutex_unlock(&r->o->writing);
	if (r->o->file->closed && r->o->reader == r->fi.lock_owner &&
	    !has_open(fuse_req_ctx(r->req)->pid, r->o->file->name))
		r->o->file->closed(r->tree, r->o);
	fuse_reply_err(r->req, -ret);
}

void control_op_flush(fuse_req_t req, struct fuse_file_info *fi)
{
	request_start(request_new(req, fi, NULL, 0, run_flush));
}

static void run_release(struct request *r)
{
	finish_line(r->tree, r->o);
	if (r->o->file->closed)
		r->o->file->closed(r->tree, r->o);
	open_free(r->o);
	fuse_reply_err(r->req, 0);
}

void control_op_release(fuse_req_t req, struct fuse_file_info *fi)
{
	request_start(request_new(req, fi, NULL, 0, run_release));
}

/* ---- poll ---- */

static unsigned poll_events(struct control_open *o)
{
	unsigned events = o->file->command ? POLLOUT | POLLWRNORM : 0;

	if (!o->file->polls || o->seen != __atomic_load_n(changes_of(o), __ATOMIC_ACQUIRE))
		events |= POLLIN | POLLRDNORM;
	return events;
}

void control_op_poll(fuse_req_t req, struct fuse_file_info *fi, struct fuse_pollhandle *ph)
{
	struct control_open *o = (struct control_open *)(uintptr_t)fi->fh;
	unsigned events;

	if (o->events) {
		events_reply_poll(o->events, req, ph);
		return;
	}
	pthread_mutex_lock(&o->lock);
	if (ph) {
		if (o->poll)
			fuse_pollhandle_destroy(o->poll);
		o->poll = ph;
	}
	events = poll_events(o);
	pthread_mutex_unlock(&o->lock);
	fuse_reply_poll(req, events);
}

static void notify(struct control_open *o)
{
	pthread_mutex_lock(&o->lock);
	if (o->poll) {
		fuse_lowlevel_notify_poll(o->poll);
		fuse_pollhandle_destroy(o->poll);
		o->poll = NULL;
	}
	pthread_mutex_unlock(&o->lock);
}

void control_changed(const char *name)
{
	for (unsigned i = 0; i < G_N_ELEMENTS(files); i++)
		if (!strcmp(files[i].name, name))
			__atomic_add_fetch(&changes[i], 1, __ATOMIC_ACQ_REL);
	pthread_mutex_lock(&opens_lock);
	for (GList *l = opens.head; l; l = l->next) {
		struct control_open *o = l->data;

		if (!strcmp(o->file->name, name))
			notify(o);
	}
	pthread_mutex_unlock(&opens_lock);
}
