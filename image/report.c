/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Rows as text or JSON. The writer keeps no more than the place where it is (a
 * small stack) and at most STREAM_CHUNK bytes of output.
 */
#include "image/report.h"

#include <errno.h>
#include <string.h>

#define REPORT_DEPTH 32		/* deeper nesting is a programming error */
#define STREAM_CHUNK (1u << 16) /* bytes held before they go to the stream */

struct level {
	bool is_array;
	unsigned text_indent; /* of the rows inside, in steps of four columns */
	uint64_t count;	      /* entries so far */
};

struct report {
	GString *out;
	FILE *stream; /* NULL: out is the caller's and keeps everything */
	enum report_style style;
	unsigned depth, text_depth;
	struct level levels[REPORT_DEPTH];
	int write_errno;
};

struct report *report_new(GString *out, enum report_style style, unsigned depth)
{
	struct report *r = g_new0(struct report, 1);

	r->out = out;
	r->style = style;
	r->text_depth = depth;
	return r;
}

struct report *report_new_stream(FILE *stream, enum report_style style, unsigned depth)
{
	struct report *r = report_new(g_string_sized_new(2 * STREAM_CHUNK), style, depth);

	r->stream = stream;
	return r;
}

static void drain(struct report *r)
{
	if (!r->write_errno && fwrite(r->out->str, 1, r->out->len, r->stream) != r->out->len)
		r->write_errno = errno ? errno : EIO;
	g_string_truncate(r->out, 0);
}

static void drain_if_large(struct report *r)
{
	if (r->stream && r->out->len >= STREAM_CHUNK)
		drain(r);
}

bool report_free(struct report *r)
{
	int err = 0;

	if (r->stream) {
		drain(r);
		err = r->write_errno;
		g_string_free(r->out, TRUE);
	}
	g_free(r);
	errno = err;
	return err == 0;
}

enum report_style report_style(const struct report *r)
{
	return r->style;
}

/* How many bytes at p are one character that is safe to show; 0 when none is. C1
 * controls are well-formed UTF-8, but a terminal obeys them. */
static size_t printable(const char *p, const char *end)
{
	gunichar c = g_utf8_get_char_validated(p, end - p);

	if (c == (gunichar)-1 || c == (gunichar)-2 || c < 0x20 || (c >= 0x7f && c < 0xa0))
		return 0;
	return g_utf8_next_char(p) - p;
}

char *report_escape(const char *bytes, gssize len)
{
	const char *p = bytes, *end = bytes + (len < 0 ? strlen(bytes) : (size_t)len);
	GString *s = g_string_sized_new(end - p + 1);

	while (p < end) {
		size_t n = printable(p, end);

		if (n == 0) {
			g_string_append_printf(s, "\\x%02x", (unsigned char)*p++);
			continue;
		}
		/* A backslash is doubled where it would be taken for one of ours. */
		if (*p == '\\' && p + 1 < end &&
		    (p[1] == 'x' || p[1] == '\\' || printable(p + 1, end) == 0))
			g_string_append_c(s, '\\');
		g_string_append_len(s, p, n);
		p += n;
	}
	return g_string_free(s, FALSE);
}

static void append_json_string(GString *out, const char *value)
{
	g_autofree char *escaped = NULL;
	const char *p = value;

	/* JSON has no way to say a byte that is not text; \xNN in the string does. */
	if (!g_utf8_validate(value, -1, NULL))
		p = escaped = report_escape(value, -1);
	g_string_append_c(out, '"');
	while (*p) {
		gunichar c = g_utf8_get_char(p);
		const char *next = g_utf8_next_char(p);

		if (c == '"' || c == '\\')
			g_string_append_printf(out, "\\%c", (char)c);
		else if (c == '\n')
			g_string_append(out, "\\n");
		else if (c == '\t')
			g_string_append(out, "\\t");
		else if (c < 0x20 || (c >= 0x7f && c < 0xa0))
			g_string_append_printf(out, "\\u%04x", c);
		else
			g_string_append_len(out, p, next - p);
		p = next;
	}
	g_string_append_c(out, '"');
}

static struct level *inner(struct report *r)
{
	return r->depth ? &r->levels[r->depth - 1] : NULL;
}

static void indent(struct report *r, unsigned steps)
{
	for (unsigned i = 0; i < steps; i++)
		g_string_append(r->out, "    ");
}

/* "compression-type" is "compression type" for people. */
static void append_text_key(struct report *r, const struct level *l, const char *key)
{
	if (l && l->is_array) {
		g_string_append_printf(r->out, "[%" G_GUINT64_FORMAT "]:", l->count);
		return;
	}
	for (const char *p = key ? key : ""; *p; p++)
		g_string_append_c(r->out, *p == '-' ? ' ' : *p);
	if (key)
		g_string_append_c(r->out, ':');
}

/* Everything that stands before a value: separator, line, indentation, key. */
static void begin_value(struct report *r, const char *key)
{
	struct level *l = inner(r);

	drain_if_large(r);
	switch (r->style) {
	case REPORT_TEXT:
		if (l || key) {
			indent(r, r->text_depth);
			append_text_key(r, l, key);
		}
		break;
	case REPORT_JSON:
		if (l) {
			g_string_append(r->out, l->count ? ",\n" : "\n");
			indent(r, r->depth);
		}
		break;
	case REPORT_JSON_COMPACT:
		if (l && l->is_array)
			g_string_append(r->out, l->count ? ",\n" : "");
		else if (l)
			g_string_append(r->out, l->count ? ", " : " ");
		break;
	}
	if (r->style != REPORT_TEXT && key) {
		append_json_string(r->out, key);
		g_string_append(r->out, ": ");
	}
	if (l)
		l->count++;
}

static void end_value(struct report *r)
{
	if (r->style == REPORT_TEXT || r->depth == 0)
		g_string_append_c(r->out, '\n');
}

static void begin_level(struct report *r, const char *key, bool is_array)
{
	bool headed = r->depth > 0 || key;

	g_assert(r->depth < REPORT_DEPTH);
	begin_value(r, key);
	if (r->style != REPORT_TEXT) {
		g_string_append_c(r->out, is_array ? '[' : '{');
	} else if (headed) {
		/* The outermost value of a text has no heading, so nothing to nest under. */
		g_string_append_c(r->out, '\n');
		r->text_depth++;
	}
	r->levels[r->depth++] = (struct level){.is_array = is_array, .text_indent = headed};
}

static void end_level(struct report *r)
{
	struct level *l = inner(r);

	g_assert(l);
	r->depth--;
	if (r->style == REPORT_TEXT) {
		r->text_depth -= l->text_indent;
		return;
	}
	if (r->style == REPORT_JSON) {
		g_string_append_c(r->out, '\n');
		indent(r, r->depth);
	}
	g_string_append_c(r->out, l->is_array ? ']' : '}');
	end_value(r);
}

void report_begin_object(struct report *r, const char *key)
{
	begin_level(r, key, false);
}

void report_end_object(struct report *r)
{
	end_level(r);
}

void report_begin_array(struct report *r, const char *key)
{
	begin_level(r, key, true);
}

void report_end_array(struct report *r)
{
	end_level(r);
}

/* A scalar in text stands after its key and one space. */
static void begin_scalar(struct report *r, const char *key)
{
	bool headed = inner(r) || key;

	begin_value(r, key);
	if (r->style == REPORT_TEXT && headed)
		g_string_append_c(r->out, ' ');
}

static void plain_scalar(struct report *r, const char *key, const char *word)
{
	begin_scalar(r, key);
	g_string_append(r->out, word);
	end_value(r);
}

void report_string(struct report *r, const char *key, const char *value)
{
	begin_scalar(r, key);
	if (r->style == REPORT_TEXT) {
		g_autofree char *escaped = report_escape(value, -1);

		g_string_append(r->out, escaped);
	} else {
		append_json_string(r->out, value);
	}
	end_value(r);
}

void report_int(struct report *r, const char *key, int64_t value)
{
	char word[32];

	g_snprintf(word, sizeof(word), "%" G_GINT64_FORMAT, value);
	plain_scalar(r, key, word);
}

void report_uint(struct report *r, const char *key, uint64_t value)
{
	char word[32];

	g_snprintf(word, sizeof(word), "%" G_GUINT64_FORMAT, value);
	plain_scalar(r, key, word);
}

void report_bool(struct report *r, const char *key, bool value)
{
	plain_scalar(r, key, value ? "true" : "false");
}

void report_null(struct report *r, const char *key)
{
	plain_scalar(r, key, "null");
}
