/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One sequence of calls, three renderings. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "image/report.h"

static void emit_rows(struct report *r)
{
	report_begin_object(r, NULL);
	report_string(r, "compression-type", "zlib");
	report_bool(r, "lazy-refcounts", false);
	report_begin_array(r, "bitmaps");
	report_begin_object(r, NULL);
	report_begin_array(r, "flags");
	report_string(r, NULL, "auto");
	report_end_array(r);
	report_uint(r, "granularity", 65536);
	report_end_object(r);
	report_end_array(r);
	report_int(r, "icount", -1);
	report_end_object(r);
}

static void renders(enum report_style style, unsigned depth, const char *expected)
{
	g_autoptr(GString) out = g_string_new(NULL);
	struct report *r = report_new(out, style, depth);

	emit_rows(r);
	assert_true(report_free(r));
	assert_string_equal(out->str, expected);
}

static void test_styles(void **state)
{
	renders(REPORT_TEXT, 1,
		"    compression type: zlib\n"
		"    lazy refcounts: false\n"
		"    bitmaps:\n"
		"        [0]:\n"
		"            flags:\n"
		"                [0]: auto\n"
		"            granularity: 65536\n"
		"    icount: -1\n");
	renders(REPORT_JSON, 0,
		"{\n"
		"    \"compression-type\": \"zlib\",\n"
		"    \"lazy-refcounts\": false,\n"
		"    \"bitmaps\": [\n"
		"        {\n"
		"            \"flags\": [\n"
		"                \"auto\"\n"
		"            ],\n"
		"            \"granularity\": 65536\n"
		"        }\n"
		"    ],\n"
		"    \"icount\": -1\n"
		"}\n");
	renders(REPORT_JSON_COMPACT, 0,
		"{ \"compression-type\": \"zlib\", \"lazy-refcounts\": false, \"bitmaps\": "
		"[{ \"flags\": [\"auto\"], \"granularity\": 65536}], \"icount\": -1}\n");
}

static void test_compact_rows(void **state)
{
	g_autoptr(GString) out = g_string_new(NULL);
	struct report *r = report_new(out, REPORT_JSON_COMPACT, 0);

	report_begin_array(r, NULL);
	for (int i = 0; i < 2; i++) {
		report_begin_object(r, NULL);
		report_uint(r, "start", i);
		report_end_object(r);
	}
	report_end_array(r);
	assert_true(report_free(r));
	assert_string_equal(out->str, "[{ \"start\": 0},\n{ \"start\": 1}]\n");
}

static void test_hostile_strings(void **state)
{
	g_autoptr(GString) out = g_string_new(NULL);
	struct report *r = report_new(out, REPORT_JSON, 0);

	report_begin_array(r, NULL);
	report_string(r, NULL, "a\"b\\c\n\x1b[31m\x7f");
	report_string(r, NULL, "\xff\xc3\xa4");
	report_string(r, NULL, "\xc2\x9b");
	report_end_array(r);
	assert_true(report_free(r));
	assert_string_equal(out->str, "[\n"
				      "    \"a\\\"b\\\\c\\n\\u001b[31m\\u007f\",\n"
				      "    \"\\\\xff\xc3\xa4\",\n"
				      "    \"\\u009b\"\n"
				      "]\n");
}

static void escapes(const char *in, const char *expected)
{
	g_autofree char *s = report_escape(in, -1);

	assert_string_equal(s, expected);
}

static void test_escape(void **state)
{
	escapes("plain \xc3\xa4", "plain \xc3\xa4");
	escapes("\x1b]0;x\x07", "\\x1b]0;x\\x07");
	escapes("\xed\xa0\x80", "\\xed\\xa0\\x80"); /* a surrogate is not UTF-8 */
	escapes("C:\\dir", "C:\\dir");
	escapes("\\x41", "\\\\x41");
	escapes("\\\xff", "\\\\\\xff");
	escapes("\xc3", "\\xc3");
	escapes("\xc2\x85", "\\xc2\\x85");
}

static void test_full_device_is_told(void **state)
{
	FILE *full = fopen("/dev/full", "w");
	struct report *r;

	if (!full)
		skip();
	setvbuf(full, NULL, _IONBF, 0);
	r = report_new_stream(full, REPORT_JSON_COMPACT, 0);
	report_begin_array(r, NULL);
	for (int i = 0; i < 100000; i++)
		report_uint(r, NULL, i);
	report_end_array(r);
	assert_false(report_free(r));
	assert_int_equal(errno, ENOSPC);
	fclose(full);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_styles),
		cmocka_unit_test(test_compact_rows),
		cmocka_unit_test(test_hostile_strings),
		cmocka_unit_test(test_escape),
		cmocka_unit_test(test_full_device_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
