/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "tools/through.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tools/mounted.h"

#define TEXT_MAX    (64u << 20) /* bytes that a control file may say */
#define PATIENCE_MS 1000	/* news may be missed, for so long */

static char *control_path(const struct mounted *m, const char *file)
{
	return g_build_filename(m->at, "control", file, NULL);
}

static bool set_error(GError **error, const char *format, ...) G_GNUC_PRINTF(2, 3);
static bool set_error(GError **error, const char *format, ...)
{
	va_list ap;

	if (!error)
		return false;
	g_clear_error(error);
	va_start(ap, format);
	*error = g_error_new_valist(IMAGE_ERROR, IMAGE_ERROR_LOCKED, format, ap);
	va_end(ap);
	return false;
}

static void say_how(const struct args *args, const char *name, const struct mounted *m,
		    const char *what)
{
	if (opt_given(args, 'q'))
		return;
	fflush(stdout);
	fprintf(stderr, "%s: '%s' is mounted on '%s': %s\n", tool_name, name, m->at, what);
}

/* ---- what is refused ---- */

static enum through refuse(const struct args *args, const char *name, const struct mounted *m,
			   bool writing, GError **error)
{
	const char *command = args->command->name;

	if (m->closed)
		set_error(error,
			  "'%s' is mounted on '%s' by a user who lets nobody else in: unmount it "
			  "first",
			  name, m->at);
	else if (!m->answers)
		set_error(error, "'%s' is mounted on '%s', which does not answer", name, m->at);
	else if (m->depth)
		set_error(error,
			  "'%s' lies below the image that is mounted on '%s': unmount that first",
			  name, m->at);
	else if (m->data_file)
		set_error(error,
			  "'%s' is the data file of the image that is mounted on '%s': unmount "
			  "that first",
			  name, m->at);
	else if (!m->writable)
		set_error(error, "'%s' is mounted read-only on '%s': unmount it first", name,
			  m->at);
	else if (m->single_file)
		set_error(error,
			  "'%s' is mounted on '%s', which is a single file and takes no commands: "
			  "unmount it first",
			  name, m->at);
	else if (writing)
		set_error(error,
			  "'%s' is mounted on '%s', and %s cannot be done through the mount: "
			  "unmount it first",
			  name, m->at, command);
	else
		set_error(error,
			  "'%s' is mounted for writing on '%s', and %s does not read it meanwhile: "
			  "read '%s/disk.raw' instead, or unmount it first",
			  name, m->at, command, m->at);
	return THROUGH_REFUSED;
}

void through_explain(const struct args *args, const char *name, GError **error)
{
	struct mounted *m;
	struct stat st;

	if (!g_error_matches(*error, G_FILE_ERROR, G_FILE_ERROR_AGAIN) ||
	    file_lookup(name, &st) < 0)
		return;
	m = mounted_find(&st, name);
	if (m)
		refuse(args, name, m, true, error);
	mounted_free(m);
}

/* ---- holding ---- */

struct held {
	struct mounted *mount;
	char *name; /* of the image */
	int fd;
};

static void held_free(void *arg)
{
	struct held *h = arg;

	close(h->fd);
	mounted_free(h->mount);
	g_free(h->name);
	g_free(h);
}

/* The reading is what makes the hold this process's own, whoever inherits the descriptor. */
static bool still_held(int fd)
{
	char buf[16];
	ssize_t n;

	do
		n = pread(fd, buf, sizeof(buf), 0);
	while (n < 0 && errno == EINTR);
	return n > 0;
}

static bool is_held(const struct args *args, const struct mounted *m)
{
	for (guint i = 0; args->holds && i < args->holds->len; i++)
		if (strcmp(((struct held *)g_ptr_array_index(args->holds, i))->mount->at, m->at) ==
		    0)
			return true;
	return false;
}

/* Takes m over. */
static enum through hold(struct args *args, const char *name, struct mounted *m, GError **error)
{
	g_autofree char *path = control_path(m, "hold");
	struct held *h;
	int fd;

	if (is_held(args, m)) {
		mounted_free(m);
		return THROUGH_HELD;
	}
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || !still_held(fd)) {
		set_error(error, "'%s' is mounted on '%s', which does not hold it still: %s", name,
			  m->at, g_strerror(errno));
		if (fd >= 0)
			close(fd);
		mounted_free(m);
		return THROUGH_REFUSED;
	}
	say_how(args, name, m, "it holds the image still");
	h = g_new(struct held, 1);
	*h = (struct held){m, g_strdup(name), fd};
	if (!args->holds)
		args->holds = g_ptr_array_new_with_free_func(held_free);
	g_ptr_array_add(args->holds, h);
	return THROUGH_HELD;
}

/* ---- finding ---- */

/* Every layer that somebody writes to must be held by the mount that does. */
static enum through find_to_read(struct args *args, struct image *look, GError **error)
{
	enum through how = THROUGH_NOTHING;

	for (struct image *layer = look; layer && how != THROUGH_REFUSED; layer = layer->backing) {
		struct mounted *m;

		if (!image_is_locked(layer, false))
			continue;
		m = mounted_find(file_stat(layer->file), layer->filename);
		if (!m || (m->answers && !m->writable)) {
			/* Whoever writes, it is none of ours. */
			mounted_free(m);
			return THROUGH_NOTHING;
		}
		if (args->command->mounted_read == MOUNTED_HELD && m->answers && !m->single_file) {
			how = hold(args, layer->filename, m, error);
			continue;
		}
		/* A base that a commit writes to is no disk that can be read on the mount. */
		how = refuse(args, layer->filename, m, false, error);
		mounted_free(m);
	}
	return how;
}

/* The first layer that is in the way; only the image itself can be given to its mount. */
static enum through find_to_write(struct args *args, struct image *look, unsigned writable_depth,
				  GError **error)
{
	unsigned depth = 0;

	for (struct image *layer = look; layer; layer = layer->backing, depth++) {
		bool writing = depth == 0 || depth == writable_depth;
		enum through how = THROUGH_SENT;
		struct mounted *m;

		if (!image_is_locked(layer, writing))
			continue;
		m = mounted_find(file_stat(layer->file), layer->filename);
		if (!m)
			return THROUGH_NOTHING;
		if (depth || args->command->mounted_write != MOUNTED_SENT || !m->answers ||
		    !m->writable || m->single_file || m->depth || m->data_file)
			how = refuse(args, layer->filename, m, true, error);
		if (how == THROUGH_SENT) {
			g_clear_error(error);
			args->mount = m;
			args->mounted_name = g_strdup(layer->filename);
			args->mounted_format = layer->format->name;
		} else {
			mounted_free(m);
		}
		return how;
	}
	return THROUGH_NOTHING;
}

enum through through_find(struct args *args, struct image *look, bool writing,
			  unsigned writable_depth, GError **error)
{
	if (writing || args->command->mounted_read == MOUNTED_SENT)
		return find_to_write(args, look, writable_depth, error);
	return find_to_read(args, look, error);
}

/* ---- control files ---- */

static bool read_all(int fd, GString *text)
{
	while (text->len < TEXT_MAX) {
		char buf[4096];
		ssize_t n = read(fd, buf, sizeof(buf));

		if (n == 0)
			return true;
		if (n > 0)
			g_string_append_len(text, buf, n);
		else if (errno != EINTR)
			return false;
	}
	errno = EFBIG;
	return false;
}

static bool cannot(const struct args *args, const char *doing, GError **error)
{
	return set_error(error, "'%s' is mounted on '%s', and its control files cannot be %s: %s",
			 args->mounted_name, args->mount->at, doing, g_strerror(errno));
}

char *through_read(struct args *args, const char *file, GError **error)
{
	g_autofree char *path = control_path(args->mount, file);
	GString *text = g_string_new(NULL);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	bool ok = fd >= 0 && read_all(fd, text);

	if (!ok)
		cannot(args, "read", error);
	if (fd >= 0)
		close(fd);
	return g_string_free(text, !ok);
}

bool through_follow(struct args *args, const char *file, bool (*look)(void *arg, char *text),
		    void *arg, GError **error)
{
	g_autofree char *path = control_path(args->mount, file);
	struct pollfd news = {.fd = open(path, O_RDONLY | O_CLOEXEC), .events = POLLIN};
	bool more = true, ok = news.fd >= 0;

	while (ok && more) {
		g_autoptr(GString) text = g_string_new(NULL);

		ok = lseek(news.fd, 0, SEEK_SET) == 0 && read_all(news.fd, text);
		more = ok && look(arg, text->str);
		if (more)
			poll(&news, 1, PATIENCE_MS);
	}
	if (!ok)
		cannot(args, "read", error);
	if (news.fd >= 0)
		close(news.fd);
	return ok;
}

/*
 * A string of control/status, at the path of one or two keys; the caller frees it. NULL: it has
 * none, or *error: it cannot be read.
 */
static char *status_string(struct args *args, const char *key, const char *below, GError **error)
{
	g_autofree char *text = through_read(args, "status", error);
	json_t *root = text ? json_loads(text, 0, NULL) : NULL, *value;
	char *found;

	value = json_object_get(root, key);
	if (below)
		value = json_object_get(value, below);
	found = g_strdup(json_string_value(value));
	json_decref(root);
	return found;
}

/* -f may name another format than the mount has: then not the same is meant. */
static bool is_same_format(struct args *args, GError **error)
{
	g_autoptr(GError) unread = NULL;
	g_autofree char *format = status_string(args, "format", NULL, &unread);

	if (unread)
		return set_error(error, "%s", unread->message);
	if (!format)
		return set_error(error, "'%s' is mounted on '%s', which does not say how it is",
				 args->mounted_name, args->mount->at);
	if (strcmp(format, args->mounted_format) == 0)
		return true;
	return set_error(error, "'%s' is mounted on '%s' as %s, not as %s", args->mounted_name,
			 args->mount->at, format, args->mounted_format);
}

static bool write_line(int fd, const char *line)
{
	/* In one piece: a part of a line is carried out when the file is closed. */
	ssize_t n = write(fd, line, strlen(line));

	if (n >= 0 && (size_t)n != strlen(line))
		errno = EIO;
	return n >= 0 && (size_t)n == strlen(line);
}

bool through_send(struct args *args, const char *file, const char *line, GError **error)
{
	g_autofree char *path = control_path(args->mount, file), *sentence = NULL;
	int fd, err = 0;

	if (!is_same_format(args, error))
		return false;
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return cannot(args, "written", error);
	if (!args->mount_said)
		say_how(args, args->mounted_name, args->mount, "the mount carries it out");
	args->mount_said = true;
	if (!write_line(fd, line))
		err = errno;
	/* What was said of the line itself is the cause, not what closing says. */
	if (close(fd) < 0 && !err)
		err = errno;
	if (!err)
		return true;
	sentence = status_string(args, "last_error", "message", NULL);
	return set_error(error, "%s", sentence ? sentence : g_strerror(err));
}

char *through_quote(const char *name, GError **error)
{
	GString *quoted = g_string_new("\"");

	for (const char *p = name; *p; p++) {
		if ((unsigned char)*p < 0x20 || *p == 0x7f) {
			set_error(error, "a mount takes no name that has control characters");
			g_string_free(quoted, TRUE);
			return NULL;
		}
		if (*p == '"' || *p == '\\')
			g_string_append_c(quoted, '\\');
		g_string_append_c(quoted, *p);
	}
	g_string_append_c(quoted, '"');
	return g_string_free(quoted, FALSE);
}

/* ---- the end ---- */

int through_end(struct args *args, int status)
{
	for (guint i = 0; args->holds && i < args->holds->len; i++) {
		const struct held *h = g_ptr_array_index(args->holds, i);

		if (still_held(h->fd))
			continue;
		tool_error("'%s' may have been written to while it was read, because '%s' holds an "
			   "image for a minute at most: try again",
			   h->name, h->mount->at);
		status = 1;
	}
	g_clear_pointer(&args->holds, g_ptr_array_unref);
	mounted_free(args->mount);
	args->mount = NULL;
	g_clear_pointer(&args->mounted_name, g_free);
	return status;
}
