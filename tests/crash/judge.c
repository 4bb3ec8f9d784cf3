/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What judges of power cuts share: reading, checking and repairing what is left. */
#include "config.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "io/loop.h"
#include "tests/crash/crash.h"

int run_in_loop(int (*fn)(void *arg), void *arg)
{
	struct loop *loop = loop_new(NULL);
	int ret;

	g_assert(loop);
	ret = loop_run(loop, fn, arg);
	loop_free(loop);
	return ret;
}

static void fail(GError **error, const char *format, ...) G_GNUC_PRINTF(2, 3);
static void fail(GError **error, const char *format, ...)
{
	g_autofree char *text = NULL;
	va_list ap;

	va_start(ap, format);
	text = g_strdup_vprintf(format, ap);
	va_end(ap);
	g_set_error_literal(error, IMAGE_ERROR, IMAGE_ERROR_FAILED, text);
}

/* The exit status, -1 if it did not end so; what it printed in *output, which may be NULL. */
static int shell_status(const char *command, char **output)
{
	const char *argv[] = {"/bin/sh", "-c", command, NULL};
	g_autofree char *both = g_strdup_printf("{ %s\n} 2>&1", command);
	int status;

	argv[2] = both;
	if (!g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_DEFAULT, NULL, NULL, output, NULL,
			  &status, NULL))
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

bool shell(GError **error, const char *format, ...)
{
	g_autofree char *command = NULL, *output = NULL;
	va_list ap;
	int status;

	va_start(ap, format);
	command = g_strdup_vprintf(format, ap);
	va_end(ap);
	status = shell_status(command, &output);
	if (status != 0)
		fail(error, "%s: status %d: %s", command, status, output ? output : "");
	return status == 0;
}

bool have_qemu(void)
{
	g_autofree char *img = g_find_program_in_path("qemu-img");
	g_autofree char *io = g_find_program_in_path("qemu-io");

	return img && io;
}

/* ---- contents -------------------------------------------------------------------------------- */

struct look {
	const char *name, *snapshot;
	struct disk *d;
	char **snapshots;
	unsigned flags;
	enum check_repair repair;
	struct check_result result;
	GString *findings;
	bool dirty;
	GError **error;
};

static struct image *open_look(const struct look *l)
{
	struct image_open_options o = {.flags = l->flags};

	/* Nothing but the test itself made these files: no probing of what a guest wrote. */
	o.format = g_str_has_suffix(l->name, ".raw") ? "raw" : "qcow2";
	return image_open(l->name, &o, l->error);
}

void disk_clear(struct disk *d)
{
	g_clear_pointer(&d->bytes, g_free);
	d->size = 0;
}

static struct image *view_of(struct image *img, const char *snapshot, GError **error)
{
	GPtrArray *list = image_snapshots(img, error);
	int index = list ? image_find_snapshot(list, snapshot, error) : -1;
	struct image *view = index >= 0 ? image_view(img, index, error) : NULL;

	if (list)
		g_ptr_array_unref(list);
	image_unref(img);
	return view;
}

static int read_disk(void *arg)
{
	struct look *l = arg;
	struct image *img = open_look(l);
	int ret;

	if (img && l->snapshot)
		img = view_of(img, l->snapshot, l->error);
	if (!img)
		return -1;
	l->d->size = img->size;
	l->d->bytes = g_malloc(img->size + 1);
	ret = image_read(img, 0, l->d->bytes, img->size);
	if (ret < 0) {
		fail(l->error, "reading %s: %s", l->name,
		     image_fault_text(img) ? image_fault_text(img) : g_strerror(-ret));
		disk_clear(l->d);
	}
	image_unref(img);
	codec_cache_clear();
	return ret;
}

bool disk_read(const char *name, const char *snapshot, struct disk *d, GError **error)
{
	struct look l = {.name = name, .snapshot = snapshot, .d = d, .error = error};

	disk_clear(d);
	return run_in_loop(read_disk, &l) == 0;
}

bool disk_equal(const struct disk *a, const struct disk *b, uint64_t *where)
{
	uint64_t n = MIN(a->size, b->size), i = 0;

	*where = n;
	if (a->size == b->size && memcmp(a->bytes, b->bytes, n) == 0)
		return true;
	while (i < n && a->bytes[i] == b->bytes[i])
		i++;
	*where = i;
	return false;
}

bool disk_same(const struct disk *a, const char *name, const char *snapshot, const char *when,
	       GError **error)
{
	struct disk b = {0};
	uint64_t where = 0;
	bool ok = disk_read(name, snapshot, &b, error);

	if (ok && !disk_equal(a, &b, &where)) {
		fail(error, "%s differs from byte %zu on, %s", snapshot ? snapshot : name,
		     (size_t)where, when);
		ok = false;
	}
	disk_clear(&b);
	return ok;
}

static int list_snapshots(void *arg)
{
	struct look *l = arg;
	struct image *img = open_look(l);
	GPtrArray *list = img ? image_snapshots(img, l->error) : NULL;

	if (list) {
		l->snapshots = g_new0(char *, list->len + 1);
		for (guint i = 0; i < list->len; i++)
			l->snapshots[i] =
				g_strdup(((struct snapshot *)g_ptr_array_index(list, i))->name);
		g_ptr_array_unref(list);
	}
	image_unref(img);
	return list ? 0 : -1;
}

char **disk_snapshots(const char *name, GError **error)
{
	struct look l = {.name = name, .error = error};

	run_in_loop(list_snapshots, &l);
	return l.snapshots;
}

/* ---- checks ---------------------------------------------------------------------------------- */

static void note_finding(void *arg, const char *sentence)
{
	GString *s = arg;

	if (s->len < 2000)
		g_string_append_printf(s, "\n  %s", sentence);
}

static int check(void *arg)
{
	struct look *l = arg;
	struct check_options co = {.repair = l->repair, .tell = note_finding, .arg = l->findings};
	struct image *img = open_look(l);
	bool ok;

	if (!img)
		return -1;
	l->dirty = img->dirty;
	memset(&l->result, 0, sizeof(l->result));
	ok = image_check(img, &co, &l->result, l->error);
	if (ok && l->repair && image_flush(img) < 0) {
		fail(l->error, "%s: flushing after the repair failed", l->name);
		ok = false;
	}
	image_unref(img);
	return ok ? 0 : -1;
}

/* false: it could not be checked. */
static bool look_and_check(struct look *l)
{
	l->flags = IMAGE_FOR_CHECK | IMAGE_NO_BACKING | (l->repair ? IMAGE_RDWR : 0);
	if (!l->findings)
		l->findings = g_string_new(NULL);
	g_string_truncate(l->findings, 0);
	return run_in_loop(check, l) == 0;
}

bool judge_check(const char *name, GError **error)
{
	struct look l = {.name = name, .error = error};
	bool ok = look_and_check(&l);

	if (ok && !l.dirty && (l.result.corruptions || l.result.check_errors)) {
		fail(error, "%s: %" PRIu64 " corruptions, %" PRIu64 " errors:%s", name,
		     l.result.corruptions, l.result.check_errors, l.findings->str);
		ok = false;
	}
	g_string_free(l.findings, TRUE);
	return ok;
}

bool judge_repair(const char *name, GError **error)
{
	struct look l = {.name = name, .error = error, .repair = CHECK_REPAIR_ALL};
	bool ok = look_and_check(&l);

	l.repair = CHECK_REPAIR_NONE;
	ok = ok && look_and_check(&l);
	if (ok && (l.dirty || l.result.corruptions || l.result.check_errors || l.result.leaks)) {
		fail(error,
		     "%s after the repair: %s%" PRIu64 " corruptions, %" PRIu64 " errors, %" PRIu64
		     " leaks:%s",
		     name, l.dirty ? "dirty, " : "", l.result.corruptions, l.result.check_errors,
		     l.result.leaks, l.findings->str);
		ok = false;
	}
	g_string_free(l.findings, TRUE);
	return ok;
}

static int find_dirty(void *arg)
{
	struct look *l = arg;
	struct image *img = open_look(l);

	l->dirty = img && img->dirty;
	image_unref(img);
	return 0;
}

/* Clean or leaking. An image that says that its counts are wrong needs all of them made anew. */
bool judge_by_qemu(const char *name, GError **error)
{
	struct look l = {.name = name, .flags = IMAGE_NO_BACKING};
	g_autofree char *command = g_strdup_printf("qemu-img check %s", name), *output = NULL;
	int status = shell_status(command, &output);

	if (status == 0 || status == 3)
		return true;
	run_in_loop(find_dirty, &l);
	if (l.dirty && shell(NULL,
			     "cp %s repaired.tmp && { qemu-img check -q -r all repaired.tmp; "
			     "qemu-img check -q repaired.tmp; }",
			     name))
		return true;
	fail(error, "%s: status %d: %s", command, status, output ? output : "");
	return false;
}
