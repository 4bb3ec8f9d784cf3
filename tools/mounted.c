/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * /proc/self/mountinfo lists the mounts; a mount of ours tells in an attribute of its root which
 * files it has open. Only mounts that are ours by their type or source are touched, and each by a
 * thread of its own, because the program behind a mount may be stopped: then the thread stays where
 * it is, and ends with the process.
 */
#include "config.h"

#include "tools/mounted.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define ATTRIBUTE  "user.imgfs.chain"
#define CHAIN_TEXT 65536 /* bytes of an attribute's value, at most */
#define PATIENCE   2	 /* seconds */

/* ---- asking one mount ---- */

struct question {
	int refs; /* atomic */
	char *at;
	unsigned id; /* of the mount; what is mounted over it is not asked */
	pthread_mutex_t lock;
	pthread_cond_t answered;
	bool done;
	char *chain; /* NULL: it is not ours, or gone */
	bool single_file, closed;
};

static void question_put(struct question *q)
{
	if (!g_atomic_int_dec_and_test(&q->refs))
		return;
	pthread_mutex_destroy(&q->lock);
	pthread_cond_destroy(&q->answered);
	g_free(q->at);
	g_free(q->chain);
	g_free(q);
}

/* What the kernel knows by itself: no request to the mount. */
static bool look_at(int fd, unsigned id, bool *single_file)
{
	struct statx st;

	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE | STATX_MNT_ID, &st) < 0)
		return false;
	*single_file = S_ISREG(st.stx_mode);
	return !(st.stx_mask & STATX_MNT_ID) || st.stx_mnt_id == id;
}

static char *read_chain(int fd)
{
	g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", fd);
	char *text = g_malloc(CHAIN_TEXT + 1);
	ssize_t len = getxattr(path, ATTRIBUTE, text, CHAIN_TEXT);

	if (len < 0) {
		g_free(text);
		return NULL;
	}
	text[len] = '\0';
	return text;
}

static void *ask(void *arg)
{
	struct question *q = arg;
	int fd = open(q->at, O_PATH | O_CLOEXEC | O_NOFOLLOW);
	bool single_file = false, closed;
	char *chain = NULL;

	if (fd >= 0 && look_at(fd, q->id, &single_file))
		chain = read_chain(fd);
	/* A mount without allow_other is its user's alone; root is not let in either. */
	closed = !chain && errno == EACCES;
	if (fd >= 0)
		close(fd);
	pthread_mutex_lock(&q->lock);
	q->chain = chain;
	q->closed = closed;
	q->single_file = single_file;
	q->done = true;
	pthread_cond_signal(&q->answered);
	pthread_mutex_unlock(&q->lock);
	question_put(q);
	return NULL;
}

/* Waits by the clock that nobody sets. */
static void init_answered(pthread_cond_t *cond)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(cond, &attr);
	pthread_condattr_destroy(&attr);
}

/* Its chain as text, NULL: there is none. *m: at and answers, and how the mountpoint looks. */
static char *chain_of(struct mounted *m, unsigned id)
{
	struct question *q = g_new0(struct question, 1);
	struct timespec end;
	GThread *thread;
	char *chain;

	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += PATIENCE;
	q->refs = 2;
	q->at = g_strdup(m->at);
	q->id = id;
	pthread_mutex_init(&q->lock, NULL);
	init_answered(&q->answered);
	thread = g_thread_try_new("ask", ask, q, NULL);
	if (thread)
		g_thread_unref(thread);
	else
		ask(q);
	pthread_mutex_lock(&q->lock);
	while (!q->done && pthread_cond_timedwait(&q->answered, &q->lock, &end) == 0)
		;
	m->answers = q->done && !q->closed;
	m->closed = q->closed;
	m->single_file = q->single_file;
	chain = g_steal_pointer(&q->chain);
	pthread_mutex_unlock(&q->lock);
	question_put(q);
	return chain;
}

/* "rw 2049:131+2049:132 2049:77", with a data file beside the top: is the file in it? */
static bool has_file(struct mounted *m, const char *chain, const struct stat *file)
{
	g_autofree char *wanted =
		g_strdup_printf("%ju:%ju", (uintmax_t)file->st_dev, (uintmax_t)file->st_ino);
	g_auto(GStrv) words = g_strsplit(chain, " ", -1);

	m->writable = words[0] && strcmp(words[0], "rw") == 0;
	for (unsigned i = 1; words[0] && words[i]; i++) {
		g_auto(GStrv) files = g_strsplit(words[i], "+", -1);

		if (g_strv_contains((const char *const *)files, wanted)) {
			m->depth = i - 1;
			m->data_file = strcmp(files[0], wanted) != 0;
			return true;
		}
	}
	return false;
}

/* ---- the list of mounts ---- */

struct mount {
	unsigned id;
	char *root, *at, *type, *source, *options; /* in its line */
};

/* Blanks and backslashes stand as three octal digits. */
static void unescape(char *text)
{
	char *out = text;

	for (; *text; text++) {
		if (text[0] == '\\' && strspn(text + 1, "01234567") >= 3) {
			*out++ = (char)((text[1] - '0') << 6 | (text[2] - '0') << 3 |
					(text[3] - '0'));
			text += 3;
		} else {
			*out++ = *text;
		}
	}
	*out = '\0';
}

/* "36 35 0:47 / /mnt rw,nosuid shared:7 - fuse.imgfs /disk.qcow2 rw,user_id=0" */
static bool parse_line(char *line, struct mount *m)
{
	char *rest = strstr(line, " - ");
	char *words[5];

	if (!rest)
		return false;
	*rest = '\0';
	rest += 3;
	for (unsigned i = 0; i < G_N_ELEMENTS(words); i++)
		if (!(words[i] = strsep(&line, " ")))
			return false;
	m->id = (unsigned)strtoul(words[0], NULL, 10);
	m->root = words[3];
	m->at = words[4];
	m->type = strsep(&rest, " ");
	m->source = strsep(&rest, " ");
	m->options = rest;
	if (!m->source || !m->options)
		return false;
	unescape(m->root);
	unescape(m->at);
	unescape(m->source);
	return true;
}

/* Who mounts can say what he likes of his mount: he must be one of those who may. */
static bool is_trusted(const struct mount *m, const struct stat *file)
{
	g_auto(GStrv) words = g_strsplit(m->options, ",", -1);
	guint64 user;

	for (unsigned i = 0; words[i]; i++)
		if (g_str_has_prefix(words[i], "user_id=") &&
		    g_ascii_string_to_unsigned(words[i] + strlen("user_id="), 10, 0, UINT32_MAX,
					       &user, NULL))
			return user == 0 || user == geteuid() || user == file->st_uid;
	return false;
}

static bool is_ours(const struct mount *m, const char *real)
{
	if (strcmp(m->root, "/") != 0)
		return false;
	return strcmp(m->type, "fuse.imgfs") == 0 ||
	       ((strcmp(m->type, "fuse") == 0 || g_str_has_prefix(m->type, "fuse.")) &&
		strcmp(m->source, real) == 0);
}

/* NULL: it has not got the file. */
static struct mounted *ask_mount(const struct mount *mount, const struct stat *file,
				 const char *real)
{
	struct mounted *m = g_new0(struct mounted, 1);
	g_autofree char *chain = NULL;

	m->at = g_strdup(mount->at);
	chain = chain_of(m, mount->id);
	/* One that does not answer is named only if it says otherwise that it has the file. */
	if (m->answers ? chain && has_file(m, chain, file) : strcmp(mount->source, real) == 0)
		return m;
	mounted_free(m);
	return NULL;
}

struct mounted *mounted_find(const struct stat *file, const char *path)
{
	g_autofree char *text = NULL, *real = realpath(path, NULL);
	struct mounted *found = NULL;
	char *next, *line;

	if (!g_file_get_contents("/proc/self/mountinfo", &text, NULL, NULL))
		return NULL;
	next = text;
	while ((line = strsep(&next, "\n"))) {
		struct mounted *m = NULL;
		struct mount mount;

		if (parse_line(line, &mount) && is_ours(&mount, real ? real : path) &&
		    is_trusted(&mount, file))
			m = ask_mount(&mount, file, real ? real : path);
		if (m && m->answers && m->writable) {
			mounted_free(found);
			return m;
		}
		if (m && !found)
			found = g_steal_pointer(&m);
		mounted_free(m);
	}
	return found;
}

void mounted_free(struct mounted *m)
{
	if (!m)
		return;
	g_free(m->at);
	g_free(m);
}
