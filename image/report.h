/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Rows that print as text or as JSON: one sequence of calls, two renderings in
 * the shapes of qemu-img (JSON indented by 4; text nested by 4, key dashes as
 * spaces). Streams: nothing is kept, so maps of millions of rows cost no memory.
 * Strings that are not UTF-8, and control bytes, are escaped, so JSON always
 * parses and a terminal is never driven by an image.
 */
#ifndef IMGFS_IMAGE_REPORT_H
#define IMGFS_IMAGE_REPORT_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum report_style {
	REPORT_TEXT,	     /* "    key name: value" */
	REPORT_JSON,	     /* indented */
	REPORT_JSON_COMPACT, /* one object a line inside an array, as `map` prints */
};

struct report;

/* Writes into out. The caller keeps out. depth: how far text is indented at first. */
struct report *report_new(GString *out, enum report_style style, unsigned depth);
/* Like it, but out goes to stream whenever it is large; false from
 * report_free when a write failed (errno is set). */
struct report *report_new_stream(FILE *stream, enum report_style style, unsigned depth);
bool report_free(struct report *r);
enum report_style report_style(const struct report *r);

/* key is NULL inside an array and for the outermost value. In text an array
 * entry is headed "[0]:" and so on. */
void report_begin_object(struct report *r, const char *key);
void report_end_object(struct report *r);
void report_begin_array(struct report *r, const char *key);
void report_end_array(struct report *r);
void report_string(struct report *r, const char *key, const char *value);
void report_int(struct report *r, const char *key, int64_t value);
void report_uint(struct report *r, const char *key, uint64_t value);
void report_bool(struct report *r, const char *key, bool value);
void report_null(struct report *r, const char *key);

/* Any bytes as a terminal may see them: invalid UTF-8 and control bytes become
 * \xNN, backslash \\ only where the text would be ambiguous. */
char *report_escape(const char *bytes, gssize len);

#endif
