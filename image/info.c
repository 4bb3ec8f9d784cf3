/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What `info` tells of one layer. */
#include "image/inspect.h"

#include <string.h>
#include <time.h>

#include "image/core.h"

/* Snapshot times are shown in local time, as qemu-img does. */
static char *format_date(int64_t seconds)
{
	time_t t = (time_t)seconds;
	struct tm tm;
	char text[64];

	if (!localtime_r(&t, &tm) || strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &tm) == 0)
		return g_strdup("?");
	return g_strdup(text);
}

static char *format_clock(uint64_t nanoseconds)
{
	uint64_t seconds = nanoseconds / G_GUINT64_CONSTANT(1000000000);

	return g_strdup_printf("%02" G_GUINT64_FORMAT ":%02u:%02u.%03u", seconds / 3600,
			       (unsigned)(seconds / 60 % 60), (unsigned)(seconds % 60),
			       (unsigned)(nanoseconds / 1000000 % 1000));
}

static void append_row(GString *out, const char *id, const char *tag, const char *vm_size,
		       const char *date, const char *clock, const char *icount)
{
	g_string_append_printf(out, "%-9s %-16s %8s %19s %12s %10s\n", id, tag, vm_size, date,
			       clock, icount);
}

static void append_snapshot(GString *out, const struct snapshot *s)
{
	g_autofree char *id = report_escape(s->id, -1), *name = report_escape(s->name, -1);
	g_autofree char *size = units_format(s->vm_state_size), *date = format_date(s->date_sec);
	g_autofree char *clock = format_clock(s->vm_clock_nsec), *icount = NULL;

	if (s->icount != UINT64_MAX)
		icount = g_strdup_printf("%" G_GUINT64_FORMAT, s->icount);
	append_row(out, id, name, size, date, clock, icount ? icount : "");
}

void snapshot_table_text(GPtrArray *list, GString *out, size_t limit)
{
	size_t before = out->len;

	g_string_append(out, "Snapshot list:\n");
	append_row(out, "ID", "TAG", "VM SIZE", "DATE", "VM CLOCK", "ICOUNT");
	for (guint i = 0; i < list->len; i++) {
		if (out->len - before > limit) {
			g_string_append_printf(out, "... and %u more snapshots\n", list->len - i);
			break;
		}
		append_snapshot(out, g_ptr_array_index(list, i));
	}
}

void snapshot_rows(const struct snapshot *s, struct report *r)
{
	report_string(r, "id", s->id);
	report_string(r, "name", s->name);
	report_uint(r, "vm-state-size", s->vm_state_size);
	report_int(r, "date-sec", s->date_sec);
	report_uint(r, "date-nsec", s->date_nsec);
	report_uint(r, "vm-clock-sec", s->vm_clock_nsec / G_GUINT64_CONSTANT(1000000000));
	report_uint(r, "vm-clock-nsec", s->vm_clock_nsec % G_GUINT64_CONSTANT(1000000000));
	if (s->icount != UINT64_MAX)
		report_uint(r, "icount", s->icount);
}

static void report_snapshot(struct report *r, const struct snapshot *s)
{
	report_begin_object(r, NULL);
	snapshot_rows(s, r);
	report_end_object(r);
}

static void report_backing(struct image *img, struct report *r)
{
	g_autofree char *full = image_backing_path(img);

	if (!img->backing_name)
		return;
	report_string(r, "backing-filename", img->backing_name);
	if (full)
		report_string(r, "full-backing-filename", full);
	if (img->backing_format)
		report_string(r, "backing-filename-format", img->backing_format);
}

static bool report_specific(struct image *img, struct report *r, GError **error)
{
	bool ok;

	if (!img->format->describe)
		return true;
	report_begin_object(r, "format-specific");
	report_string(r, "type", img->format->name);
	report_begin_object(r, "data");
	ok = img->format->describe(img, r, error);
	report_end_object(r);
	report_end_object(r);
	return ok;
}

bool image_info_rows(struct image *img, struct report *r, GError **error)
{
	g_autoptr(GPtrArray) snapshots = image_snapshots(img, error);
	int64_t allocated = image_allocated(img);

	if (!snapshots)
		return false;
	report_string(r, "filename", img->filename);
	report_string(r, "format", img->format->name);
	report_uint(r, "virtual-size", img->size);
	if (allocated >= 0)
		report_int(r, "actual-size", allocated);
	report_bool(r, "dirty-flag", img->dirty);
	if (img->cluster_size)
		report_uint(r, "cluster-size", img->cluster_size);
	if (img->encrypted)
		report_bool(r, "encrypted", true);
	if (img->compressed)
		report_bool(r, "compressed", true);
	report_backing(img, r);
	if (snapshots->len) {
		report_begin_array(r, "snapshots");
		for (guint i = 0; i < snapshots->len; i++)
			report_snapshot(r, g_ptr_array_index(snapshots, i));
		report_end_array(r);
	}
	return report_specific(img, r, error);
}

bool image_info_json(struct image *img, struct report *r, GError **error)
{
	bool ok;

	report_begin_object(r, NULL);
	ok = image_info_rows(img, r, error);
	report_end_object(r);
	return ok;
}

static void append_field(GString *out, const char *key, const char *value)
{
	g_autofree char *escaped = report_escape(value, -1);

	g_string_append_printf(out, "%s: %s\n", key, escaped);
}

static void append_backing(struct image *img, GString *out)
{
	g_autofree char *full = image_backing_path(img), *name = NULL;

	if (!img->backing_name)
		return;
	name = report_escape(img->backing_name, -1);
	g_string_append_printf(out, "backing file: %s", name);
	if (!full) {
		g_string_append(out, " (cannot determine actual path)");
	} else if (strcmp(full, img->backing_name) != 0) {
		g_autofree char *shown = report_escape(full, -1);

		g_string_append_printf(out, " (actual path: %s)", shown);
	}
	g_string_append_c(out, '\n');
	if (img->backing_format)
		append_field(out, "backing file format", img->backing_format);
}

static void append_sizes(struct image *img, GString *out)
{
	int64_t allocated = image_allocated(img);
	g_autofree char *size = units_format(img->size);
	g_autofree char *disk = allocated < 0 ? g_strdup("unavailable") : units_format(allocated);

	g_string_append_printf(out, "virtual size: %s (%" G_GUINT64_FORMAT " bytes)\n", size,
			       img->size);
	g_string_append_printf(out, "disk size: %s\n", disk);
}

bool image_info_text(struct image *img, GString *out, size_t limit, GError **error)
{
	g_autoptr(GPtrArray) snapshots = image_snapshots(img, error);
	bool ok = true;

	if (!snapshots)
		return false;
	append_field(out, "image", img->filename);
	append_field(out, "file format", img->format->name);
	append_sizes(img, out);
	if (img->encrypted)
		g_string_append(out, "encrypted: yes\n");
	if (img->cluster_size)
		g_string_append_printf(out, "cluster_size: %u\n", img->cluster_size);
	if (img->dirty)
		g_string_append(out, "cleanly shut down: no\n");
	append_backing(img, out);
	if (snapshots->len)
		snapshot_table_text(snapshots, out, limit);
	if (img->format->describe) {
		struct report *r;

		g_string_append(out, "Format specific information:\n");
		r = report_new(out, REPORT_TEXT, 1);
		ok = img->format->describe(img, r, error);
		report_free(r);
	}
	return ok;
}

/* ---- references ------------------------------------------------------------------------------ */

typedef void reference_fn(void *arg, const char *kind, const char *name, const char *format,
			  const char *path);

static void each_reference(struct image *img, reference_fn *fn, void *arg)
{
	g_auto(GStrv) files = img->format->references ? img->format->references(img) : NULL;
	const char *rest;

	for (unsigned i = 0; files && files[i]; i++) {
		g_autofree char *path = filename_classify(files[i], &rest) == FILENAME_PATH
						? filename_beside(img->filename, rest)
						: NULL;

		fn(arg, "data-file", files[i], "raw", path);
	}
	if (img->backing_name) {
		g_autofree char *path = filename_classify(img->backing_name, &rest) == FILENAME_PATH
						? filename_beside(img->filename, rest)
						: NULL;

		fn(arg, "backing-file", img->backing_name, img->backing_format, path);
	}
}

static void reference_json(void *arg, const char *kind, const char *name, const char *format,
			   const char *path)
{
	struct report *r = arg;

	report_begin_object(r, NULL);
	report_string(r, "kind", kind);
	report_string(r, "name", name);
	if (format)
		report_string(r, "format", format);
	if (path)
		report_string(r, "path", path);
	report_end_object(r);
}

void image_references_json(struct image *img, struct report *r)
{
	report_begin_object(r, NULL);
	report_string(r, "filename", img->filename);
	report_string(r, "format", img->format->name);
	report_begin_array(r, "references");
	each_reference(img, reference_json, r);
	report_end_array(r);
	report_end_object(r);
}

static void reference_text(void *arg, const char *kind, const char *name, const char *format,
			   const char *path)
{
	GString *out = arg;
	g_autofree char *shown = report_escape(name, -1), *format_shown = NULL;

	format_shown = report_escape(format ? format : "not recorded", -1);
	g_string_append_printf(out, "%s: %s (format: %s", kind, shown, format_shown);
	if (path && strcmp(path, name) != 0) {
		g_autofree char *path_shown = report_escape(path, -1);

		g_string_append_printf(out, ", path: %s", path_shown);
	}
	g_string_append(out, path ? ")\n" : ", not a path)\n");
}

void image_references_text(struct image *img, GString *out)
{
	append_field(out, "image", img->filename);
	each_reference(img, reference_text, out);
}
