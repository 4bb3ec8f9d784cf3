/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The option table of a command: parsing, and the help made of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tools/opt.h"

static const struct opt options[] = {
	{'f', "format", "FMT", "format"},
	{'q', NULL, NULL, "quiet"},
	{'o', NULL, "OPTIONS", "options"},
	{OPT_OUTPUT, "output", "human|json", "how"},
	{0},
};
static const struct command command = {.name = "info",
				       .options = options,
				       .operands = "FILE",
				       .summary = "Tell",
				       .examples = {"info a", "info b"}};

/* words end with NULL. */
static enum opt_result parse(struct args *args, char **wrong, const char **words)
{
	int n = 0;

	while (words[n])
		n++;
	*wrong = NULL;
	return opt_parse(&command, n, (char **)words, args, wrong);
}

static void test_values_and_operands(void **state)
{
	const char *words[] = {"info", "-f", "raw",  "file", "-qo",    "a=1", "--output=json",
			       "-o",   "b",  "-fqc", "--",   "-other", NULL};
	struct args args;
	char *wrong;

	assert_int_equal(parse(&args, &wrong, words), OPT_OK);
	assert_string_equal(opt_value(&args, 'f'), "qc");
	assert_true(opt_given(&args, 'q'));
	assert_string_equal(opt_nth(&args, 'o', 0), "a=1");
	assert_string_equal(opt_nth(&args, 'o', 1), "b");
	assert_null(opt_nth(&args, 'o', 2));
	assert_string_equal(opt_value(&args, OPT_OUTPUT), "json");
	assert_int_equal(args.n, 2);
	assert_string_equal(args.operands[0], "file");
	assert_string_equal(args.operands[1], "-other");
	opt_clear(&args);
}

static void refuses(const char *word, const char *sentence)
{
	const char *words[] = {"info", word, NULL};
	struct args args;
	char *wrong;

	assert_int_equal(parse(&args, &wrong, words), OPT_WRONG);
	assert_string_equal(wrong, sentence);
	g_free(wrong);
	opt_clear(&args);
}

static void test_wrong(void **state)
{
	refuses("-Z", "unrecognized option '-Z'");
	refuses("-qZ", "unrecognized option '-Z'");
	refuses("--bogus", "unrecognized option '--bogus'");
	refuses("--output", "missing argument for option '--output'");
	refuses("-f", "missing argument for option '-f'");
}

static void test_help(void **state)
{
	const char *words[] = {"info", "--help", NULL};
	g_autofree char *text = opt_help(&command, "imgtool");
	struct args args;
	char *wrong;

	assert_int_equal(parse(&args, &wrong, words), OPT_WANTS_HELP);
	opt_clear(&args);
	assert_non_null(g_strstr_len(text, -1, "usage: imgtool info [options] FILE\n"));
	assert_non_null(g_strstr_len(text, -1, "  -f, --format=FMT"));
	assert_non_null(g_strstr_len(text, -1, "  imgtool info b\n"));
}

static void test_nearest(void **state)
{
	const struct command list[] = {{.name = "info"}, {.name = "convert"}, {.name = "dd"}, {0}};

	assert_string_equal(opt_nearest("inof", list), "info");
	assert_string_equal(opt_nearest("convrt", list), "convert");
	assert_null(opt_nearest("xyzzy", list));
	assert_null(opt_nearest("q", list));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_values_and_operands),
		cmocka_unit_test(test_wrong),
		cmocka_unit_test(test_help),
		cmocka_unit_test(test_nearest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
