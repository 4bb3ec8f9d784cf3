/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "fs/mounting.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "fs/handshake.h"
#include "fs/log.h"
#include "image/image.h"
#include "io/sanitizers.h"

#ifdef BUILT_WITH_ASAN
#include <sanitizer/lsan_interface.h>
#endif

/* libfuse's last words before the mount stands: the cause of a failure. */
static char *fuse_words;
static bool mounted;

static void fuse_log_line(enum fuse_log_level level, const char *format, va_list args)
	G_GNUC_PRINTF(2, 0);
static void fuse_log_line(enum fuse_log_level level, const char *format, va_list args)
{
	char *line = g_strdup_vprintf(format, args);

	g_strchomp(line);
	if (!mounted && level <= FUSE_LOG_WARNING) {
		g_free(fuse_words);
		fuse_words = line;
		return;
	}
	if (level == FUSE_LOG_DEBUG)
		fprintf(stderr, "%s\n", line);
	else
		log_message("%s", line);
	g_free(line);
}

static void add_option(char **all, const char *key, const char *value)
{
	g_autofree char *word = g_strconcat(key, value, NULL);

	fuse_opt_add_opt_escaped(all, word);
}

static char *fuse_options(const struct mount_options *o)
{
	char *all = NULL;
	g_autofree char *real = realpath(o->image, NULL);

	add_option(&all, "fsname=", o->fsname ? o->fsname : real ? real : o->image);
	add_option(&all, "subtype=", o->subtype ? o->subtype : "imgfs");
	fuse_opt_add_opt(&all, o->mode == MODE_RO ? "ro" : "rw");
	fuse_opt_add_opt(&all, "default_permissions");
	if (o->allow_other || o->allow_root)
		fuse_opt_add_opt(&all, o->allow_other ? "allow_other" : "allow_root");
	if (o->auto_unmount)
		fuse_opt_add_opt(&all, "auto_unmount");
	if (o->kernel->len)
		fuse_opt_add_opt(&all, o->kernel->str + 1);
	return all;
}

bool mounting_failed(GError **error, const struct mount_options *o, const char *why)
{
	g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_FAILED, "%s: cannot mount on %s: %s", o->image,
		    o->mountpoint, fuse_words ? fuse_words : why);
	return false;
}

/* A read from the descriptor must not wait: other requests are served by the same thread. */
static int set_nonblocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? -errno : 0;
}

static struct fuse_session *make_session(const struct mount_options *o,
					 const struct fuse_lowlevel_ops *ops, size_t ops_size,
					 void *userdata)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	struct fuse_session *fuse;
	char *words = fuse_options(o);

	fuse_opt_add_arg(&args, "imgfs");
	fuse_opt_add_arg(&args, "-o");
	fuse_opt_add_arg(&args, words);
	if (o->debug)
		fuse_opt_add_arg(&args, "-d");
	free(words);
	fuse = fuse_session_new(&args, ops, ops_size, userdata);
	fuse_opt_free_args(&args);
	return fuse;
}

/*
 * libfuse keeps the path until it unmounts, and frees it only then. A mount that a signal has ended
 * must not be unmounted once more, for another one may be there by now; so the path goes with the
 * process, and a leak checker is not to count it.
 */
static int mount_session(struct fuse_session *fuse, const char *mountpoint)
{
	int ret;

#ifdef BUILT_WITH_ASAN
	__lsan_disable();
#endif
	ret = fuse_session_mount(fuse, mountpoint);
#ifdef BUILT_WITH_ASAN
	__lsan_enable();
#endif
	return ret;
}

struct fuse_session *mounting_begin(const struct mount_options *o,
				    const struct fuse_lowlevel_ops *ops, size_t ops_size,
				    void *userdata, GError **error)
{
	struct fuse_session *fuse;
	int ret;

	fuse_set_log_func(fuse_log_line);
	fuse = make_session(o, ops, ops_size, userdata);
	if (!fuse) {
		mounting_failed(error, o, "libfuse refuses the options");
		return NULL;
	}
	if (mount_session(fuse, o->mountpoint) < 0) {
		mounting_failed(error, o, "see the message above");
		goto no_mount;
	}
	ret = set_nonblocking(fuse_session_fd(fuse));
	if (ret == 0 && o->mode != MODE_RO)
		ret = handshake_watch(fuse);
	if (ret < 0) {
		mounting_failed(error, o, g_strerror(-ret));
		goto no_use;
	}
	mounted = true;
	return fuse;
no_use:
	fuse_session_unmount(fuse);
no_mount:
	fuse_session_destroy(fuse);
	return NULL;
}

void mounting_end(struct fuse_session *fuse, bool gone)
{
	/* libfuse would say that it cannot unmount what is gone already. */
	if (!gone)
		fuse_session_unmount(fuse);
	fuse_session_destroy(fuse);
}

/* false: neither a directory nor a regular file, or not there. */
bool mounting_judge(const struct mount_options *o, bool *single_file, GError **error)
{
	struct stat st;
	const char *why = NULL;

	if (stat(o->mountpoint, &st) < 0)
		why = errno == ENOTCONN ? "a mount whose program is gone is there (fusermount3 -u "
					  "removes it)"
					: g_strerror(errno);
	else if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))
		why = "neither a directory nor a regular file";
	if (why) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE, "mount point %s: %s",
			    o->mountpoint, why);
		return false;
	}
	*single_file = S_ISREG(st.st_mode);
	return true;
}

void mounting_clear(void)
{
	g_clear_pointer(&fuse_words, g_free);
}
