/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Names of snapshots and layers as names of files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "fs/names.h"

static void escapes(void **state)
{
	static const struct {
		const char *bytes, *name;
	} cases[] = {
		{"plain name 1", "plain name 1"},
		{"grün \xf0\x9f\x90\xa7", "grün \xf0\x9f\x90\xa7"},
		{"a/b", "a%2Fb"},
		{".", "%2E"},
		{"..", "%2E%2E"},
		{"...", "..."},
		{".hidden", ".hidden"},
		{"line\nbreak\x7f", "line%0Abreak%7F"},
		{"\xc2\x9b", "%C2%9B"},	       /* a C1 control: CSI */
		{"bad\xff\xc3", "bad%FF%C3"},  /* no UTF-8 */
		{"\xc0\xaf", "%C0%AF"},	       /* overlong '/' */
		{"\xed\xa0\x80", "%ED%A0%80"}, /* a surrogate */
		{"50%", "50%"},
		{"a%2Fb", "a%252Fb"}, /* does not fall together with a/b */
		{"", ""},
	};

	for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autofree char *name = name_escape(cases[i].bytes, NAME_LEN_MAX);

		g_autofree char *back = name_unescape(name);

		assert_string_equal(name, cases[i].name);
		assert_non_null(back);
		assert_string_equal(back, cases[i].bytes);
	}
}

/* Files that would appear under another name than they were made. */
static void names_that_are_never_shown(void **state)
{
	static const char *const names[] = {
		"%41", "a%2fb", "line\nbreak", "%00", "bad\xff", "50%25", "%C3%A9", ".", "a/b",
	};

	for (unsigned i = 0; i < G_N_ELEMENTS(names); i++)
		assert_null(name_unescape(names[i]));
}

static void cut_after_a_whole_character(void **state)
{
	g_autofree char *a = name_escape("abc\xc3\xa9", 4), *b = name_escape("abc\xc3\xa9", 5);
	g_autofree char *c = name_escape("ab/", 4);

	assert_string_equal(a, "abc");
	assert_string_equal(b, "abc\xc3\xa9");
	assert_string_equal(c, "ab");
}

static GHashTable *set_new(void)
{
	return g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
}

static void duplicates_get_their_id(void **state)
{
	g_autoptr(GHashTable) taken = set_new();

	assert_string_equal(name_unique(taken, "s", "1", 0), "s");
	assert_string_equal(name_unique(taken, "s", "2", 1), "s-2");
	assert_string_equal(name_unique(taken, "s", "2", 2), "s-2-2");
	assert_string_equal(name_unique(taken, "s-2-4", "9", 3), "s-2-4");
	assert_string_equal(name_unique(taken, "s", "2", 4), "s-2-4-1");
	assert_string_equal(name_unique(taken, "", "7", 5), "-7");
	assert_string_equal(name_unique(taken, "", "", 6), "-");
	assert_string_equal(name_unique(taken, "x", "a/b", 7), "x");
	assert_string_equal(name_unique(taken, "x", "a/b", 8), "x-a%2Fb");
}

static void long_names_fit_and_differ(void **state)
{
	g_autoptr(GHashTable) taken = set_new();
	g_autofree char *fits = g_strnfill(255, 'x'), *over = g_strnfill(256, 'x');
	g_autofree char *slashes = g_strnfill(100, '/'), *huge = g_strnfill(65535, '\n');
	const char *first;

	assert_string_equal(name_unique(taken, fits, "1", 0), fits);
	first = name_unique(taken, over, "2", 1);
	assert_true(strlen(first) <= NAME_LEN_MAX && g_str_has_suffix(first, "-2"));
	assert_true(strlen(name_unique(taken, over, "2", 2)) <= NAME_LEN_MAX);
	assert_true(strlen(name_unique(taken, slashes, over, 3)) <= NAME_LEN_MAX);
	assert_true(strlen(name_unique(taken, huge, huge, 4)) <= NAME_LEN_MAX);
	assert_int_equal(g_hash_table_size(taken), 5);
}

/* An image with 65,536 snapshots of one name and ID must not take quadratic time. */
static void many_equal_names(void **state)
{
	g_autoptr(GHashTable) taken = set_new();

	for (unsigned i = 0; i < 65536; i++)
		assert_true(strlen(name_unique(taken, "same", "1", i)) <= NAME_LEN_MAX);
	assert_int_equal(g_hash_table_size(taken), 65536);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(escapes),
		cmocka_unit_test(names_that_are_never_shown),
		cmocka_unit_test(cut_after_a_whole_character),
		cmocka_unit_test(duplicates_get_their_id),
		cmocka_unit_test(long_names_fit_and_differ),
		cmocka_unit_test(many_equal_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
