/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The rows of `map`: one walk, joined as qemu-img joins, printed as they come. */
#include <string.h>

#include "image/image.h"
#include "image/inspect.h"

struct row {
	uint64_t start, len, host;
	struct file *file; /* NULL: no place that could be read as it is */
	unsigned depth;
	bool present, zero, data;
};

/* Asks the host for the holes of its file: there is a place, but only zeroes in it. */
static int ask_host(struct extent *e, bool *zero)
{
	uint64_t run = e->len;
	bool is_data = true;
	int ret;

	*zero = e->kind == EXTENT_HOLE || e->kind == EXTENT_ZERO;
	if (e->kind != EXTENT_DATA || !(e->flags & EXTENT_MAYBE_SPARSE) || e->cryptor)
		return 0;
	ret = file_extent(e->file, e->host, e->len, &is_data, &run);
	if (ret < 0)
		return ret;
	e->len = run;
	*zero = !is_data;
	return 0;
}

static bool has_place(const struct extent *e)
{
	if (e->cryptor)
		return false;
	return e->kind == EXTENT_DATA || (e->flags & EXTENT_HAS_HOST);
}

static void row_from_extent(const struct extent *e, bool zero, struct row *row)
{
	*row = (struct row){
		.start = e->start,
		.len = e->len,
		.depth = e->depth,
		.present = e->kind != EXTENT_HOLE,
		.zero = zero,
		.data = e->kind == EXTENT_DATA || e->kind == EXTENT_CODED,
		.file = has_place(e) ? e->file : NULL,
		.host = has_place(e) ? e->host : 0,
	};
}

static bool row_continues(const struct row *a, const struct row *b)
{
	return a->depth == b->depth && a->present == b->present && a->zero == b->zero &&
	       a->data == b->data && a->file == b->file &&
	       (!a->file || a->host + a->len == b->host);
}

typedef void row_fn(void *arg, const struct row *row);

static int walk(struct image *img, uint64_t start, uint64_t len, row_fn *emit, void *arg)
{
	uint64_t offset = start, end;
	struct row row = {.start = start};

	end = start >= img->size ? start : start + MIN(len, img->size - start);
	while (offset < end) {
		struct extent e;
		struct row next;
		bool zero = false;
		int ret = image_map_run(img, offset, end - offset, NULL, &e);

		if (ret == 0)
			ret = ask_host(&e, &zero);
		if (ret < 0)
			return ret;
		row_from_extent(&e, zero, &next);
		if (row.len && row_continues(&row, &next)) {
			row.len += next.len;
		} else {
			if (row.len)
				emit(arg, &row);
			row = next;
		}
		offset += e.len;
	}
	/* Of an empty range qemu-img prints one row of length 0. */
	emit(arg, &row);
	return 0;
}

static void emit_json(void *arg, const struct row *row)
{
	struct report *r = arg;

	report_begin_object(r, NULL);
	report_uint(r, "start", row->start);
	report_uint(r, "length", row->len);
	report_uint(r, "depth", row->depth);
	report_bool(r, "present", row->present);
	report_bool(r, "zero", row->zero);
	report_bool(r, "data", row->data);
	if (row->file)
		report_uint(r, "offset", row->host);
	report_end_object(r);
}

int image_map_json(struct image *img, uint64_t start, uint64_t len, struct report *r)
{
	int ret;

	report_begin_array(r, NULL);
	ret = walk(img, start, len, emit_json, r);
	report_end_array(r);
	return ret;
}

struct text_sink {
	FILE *stream;
	bool hidden;
};

static void emit_text(void *arg, const struct row *row)
{
	struct text_sink *sink = arg;
	g_autofree char *name = NULL;

	if (!row->data || row->zero)
		return;
	if (!row->file) {
		sink->hidden = true;
		return;
	}
	name = report_escape(file_name(row->file), -1);
	fprintf(sink->stream,
		"%#-16" G_GINT64_MODIFIER "x%#-16" G_GINT64_MODIFIER "x%#-16" G_GINT64_MODIFIER
		"x%s\n",
		row->start, row->len, row->host, name);
}

int image_map_text(struct image *img, uint64_t start, uint64_t len, FILE *stream, bool *hidden)
{
	struct text_sink sink = {.stream = stream};
	int ret;

	fprintf(stream, "%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File");
	ret = walk(img, start, len, emit_text, &sink);
	*hidden = sink.hidden;
	return ret;
}
