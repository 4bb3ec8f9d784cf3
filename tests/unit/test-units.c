/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sizes as words: every case was tried on qemu-img 7.2. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "image/units.h"

static void good(const char *text, uint64_t expected)
{
	g_autoptr(GError) error = NULL;
	uint64_t value = 4711;

	if (!units_parse(text, "image size", 0, INT64_MAX, &value, &error))
		fail_msg("'%s' refused: %s", text, error->message);
	assert_int_equal(value, expected);
}

static void bad(const char *text, const char *part)
{
	g_autoptr(GError) error = NULL;
	uint64_t value = 4711;

	if (units_parse(text, "image size", 0, INT64_MAX, &value, &error))
		fail_msg("'%s' accepted", text);
	assert_non_null(strstr(error->message, part));
	assert_int_equal(value, 4711);
}

static void test_parse(void **state)
{
	good("0", 0);
	good("1b", 1);
	good("1B", 1);
	good("1.5k", 1536);
	good("1.5K", 1536);
	good("0.1k", 102);
	good("1.0000001k", 1024);
	good("1.k", 1024);
	good("1.0", 1);
	good("010", 10);
	good("0x100", 256);
	good("0x1k", 1024);
	good(" 1k", 1024);
	good("+1k", 1024);
	good("3M", 3 << 20);
	good("7E", 8070450532247928832u);
	good("7.9E", 9108079886394091136u);
	good("9223372036854775807", INT64_MAX);
}

static void test_refuse(void **state)
{
	static const char *const words[] = {"",	   "1.1",  "1e3", "1KiB", "10MB", ".5k",
					    "-1",  "1 k",  "nan", "inf",  "0b1",  "0x",
					    "0xg", "1,5k", "k",	  "+",	  " ",	  "1.5e1k"};

	for (size_t i = 0; i < G_N_ELEMENTS(words); i++)
		bad(words[i], "You may use k, M, G");
	bad("9223372036854775808", "Must be between 0 and 9223372036854775807.");
	bad("18446744073709551616", "Must be between");
	bad("16E", "Must be between");
	bad("8E", "Must be between");
	bad("15.999999999999999999999E", "Must be between");
}

static void shows(uint64_t bytes, const char *expected)
{
	g_autofree char *text = units_format(bytes);

	assert_string_equal(text, expected);
}

static void test_format(void **state)
{
	shows(0, "0 B");
	shows(512, "512 B");
	shows(197120, "192 KiB");
	shows(197632, "193 KiB");
	shows(1022976, "999 KiB");
	shows(1024000, "0.977 MiB");
	shows(1048064, "1 MiB");
	shows(1047552, "0.999 MiB");
	shows(1125899906842624000, "0.977 EiB");
	shows(1ULL << 30, "1 GiB");
	shows(UINT64_MAX, "16 EiB");
}

static void test_bool(void **state)
{
	g_autoptr(GError) error = NULL;
	bool value = false;

	assert_true(units_parse_bool("on", "x", &value, NULL) && value);
	assert_true(units_parse_bool("false", "x", &value, NULL) && !value);
	assert_false(units_parse_bool("ON!", "lazy", &value, &error));
	assert_string_equal(error->message, "Parameter 'lazy' expects 'on' or 'off'");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_refuse),
		cmocka_unit_test(test_format),
		cmocka_unit_test(test_bool),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
