/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Option sets: words, JSON, taking out, validation, help. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "image/format.h"
#include "image/option.h"

static void expect(const struct options *o, const char *key, const char *value)
{
	const char *found = options_peek(o, key);

	if (!found || strcmp(found, value) != 0)
		fail_msg("%s is %s, not %s", key, found ? found : "missing", value);
}

/* Parses text, which must fail with these words in the sentence. */
static void refuse(const char *text, const char *implied, const char *words)
{
	struct options *o = options_new();
	GError *error = NULL;

	assert_false(options_parse(o, text, implied, &error));
	if (!strstr(error->message, words))
		fail_msg("'%s': %s", text, error->message);
	g_error_free(error);
	options_free(o);
}

static void refuse_json(const char *text, const char *words)
{
	struct options *o = options_new();
	GError *error = NULL;

	if (options_parse_json(o, text, &error))
		fail_msg("accepted: %s", text);
	if (!strstr(error->message, words))
		fail_msg("'%s': %s", text, error->message);
	assert_int_equal(error->code, IMAGE_ERROR_USAGE);
	g_error_free(error);
	options_free(o);
}

static void test_words(void **state)
{
	struct options *o = options_new();

	assert_true(options_parse(o, "a=1,b=x,,y,c,a=2,d=", NULL, NULL));
	expect(o, "a", "2"); /* the last wins */
	expect(o, "b", "x,y");
	expect(o, "c", "on");
	expect(o, "d", "");
	assert_null(options_peek(o, "y"));
	options_free(o);

	o = options_new();
	assert_true(options_parse(o, "disk,,1.raw,b=c=d", "file", NULL));
	expect(o, "file", "disk,1.raw");
	expect(o, "b", "c=d");
	options_free(o);

	o = options_new();
	assert_true(options_parse(o, "", "file", NULL));
	assert_true(options_is_empty(o));
	options_free(o);

	refuse("a=1,=2", NULL, "without a name");
	g_autoptr(GString) many = g_string_new(NULL);
	for (unsigned i = 0; i < 2000; i++)
		g_string_append_printf(many, "k%u=1,", i);
	refuse(many->str, NULL, "More than");
}

static void test_json(void **state)
{
	struct options *o = options_new();

	assert_true(
		options_parse_json(o,
				   "{\"driver\":\"qcow2\",\"size\":-7,\"on\":true,\"off\":false,"
				   "\"none\":null,\"real\":0.5,\"file\":{\"filename\":\"a,b\","
				   "\"deep\":{\"x\":\"y\"}},\"list\":[\"p\",{\"q\":1}]}",
				   NULL));
	expect(o, "driver", "qcow2");
	expect(o, "size", "-7");
	expect(o, "on", "on");
	expect(o, "off", "off");
	expect(o, "none", "");
	expect(o, "real", "0.5");
	expect(o, "file.filename", "a,b");
	expect(o, "file.deep.x", "y");
	expect(o, "list.0", "p");
	expect(o, "list.1.q", "1");
	options_free(o);

	refuse_json("{", "Could not parse");
	refuse_json("{\"a\":1} x", "Could not parse");
	refuse_json("{\"a\":1,\"a\":2}", "Could not parse");
	refuse_json("{\"a\":{\"b\":1},\"a.b\":2}", "given twice");
	refuse_json("[1]", "not an object");
	refuse_json("\"text\"", "not an object");

	g_autoptr(GString) deep = g_string_new(NULL);
	for (unsigned i = 0; i < 100; i++)
		g_string_append(deep, "{\"a\":");
	g_string_append_c(deep, '1');
	for (unsigned i = 0; i < 100; i++)
		g_string_append_c(deep, '}');
	refuse_json(deep->str, "too deep");

	g_autofree char *long_text = g_strnfill(70000, ' ');
	refuse_json(long_text, "longer than");
}

static void test_taking(void **state)
{
	struct options *o = options_new(), *copy, *group;
	GError *error = NULL;
	uint64_t size = 5;
	bool on = false;
	char *text;

	assert_true(options_parse(o, "a=x,size=4k,on,file.name=n,file.x.y=z,filed=1,bad=maybe",
				  NULL, NULL));
	copy = options_copy(o);
	text = options_take_string(o, "a");
	assert_string_equal(text, "x");
	g_free(text);
	assert_null(options_take_string(o, "a"));
	assert_true(options_take_size(o, "size", &size, NULL));
	assert_int_equal(size, 4096);
	assert_true(options_take_size(o, "size", &size, NULL)); /* gone: keeps the default */
	assert_int_equal(size, 4096);
	assert_true(options_take_bool(o, "on", &on, NULL));
	assert_true(on);
	assert_false(options_take_bool(o, "bad", &on, &error));
	assert_non_null(strstr(error->message, "bad"));
	g_clear_error(&error);

	group = options_take_group(o, "file");
	assert_non_null(group);
	expect(group, "name", "n");
	expect(group, "x.y", "z");
	assert_null(options_take_group(o, "file"));
	options_free(group);

	/* What is left is what nobody knew. */
	assert_false(options_refuse_rest(o, NULL, &error));
	assert_string_equal(error->message, "Invalid parameter 'filed'");
	g_clear_error(&error);
	assert_false(options_refuse_rest(o, "file", &error));
	assert_string_equal(error->message, "file: Invalid parameter 'filed'");
	g_clear_error(&error);
	g_free(options_take_string(o, "filed"));
	assert_true(options_refuse_rest(o, NULL, NULL));
	expect(copy, "a", "x"); /* a copy shares nothing */
	options_free(copy);
	options_free(o);
	options_free(NULL);
}

static const struct option_desc table[] = {
	{.name = "size", .type = OPTION_SIZE, .help = "how large"},
	{.name = "name", .type = OPTION_STRING, .help = "of what"},
	{.name = "lazy", .type = OPTION_BOOL, .help = "later"},
	{.name = "bits", .type = OPTION_NUMBER, .help = "how many"},
	{.name = NULL},
};

/* One option against the table; NULL: valid. */
static void validate(const char *text, const char *words)
{
	struct options *o = options_new();
	GError *error = NULL;

	assert_true(options_parse(o, text, NULL, NULL));
	if (options_validate(o, table, &error) != !words)
		fail_msg("%s: %s", text, error ? error->message : "accepted");
	if (words && !strstr(error->message, words))
		fail_msg("%s: %s", text, error->message);
	g_clear_error(&error);
	options_free(o);
}

static void test_validation(void **state)
{
	validate("size=1G,name=,lazy=off,bits=0", NULL);
	validate("size=0", NULL);
	validate("size=-1", "size");
	validate("size=x", "Parameter 'size' expects a non-negative number");
	validate("size=9E", "out of range");
	validate("lazy=perhaps", "lazy");
	validate("bits=1k", "Parameter 'bits' expects a number");
	validate("bits=-1", "Parameter 'bits' expects a number");
	validate("name=a,other=1", "Invalid parameter 'other'");
}

static void test_help(void **state)
{
	g_autofree char *text = option_table_help(table, true);

	assert_string_equal(text, "  bits=<num>             - how many\n"
				  "  lazy=<bool (on/off)>   - later\n"
				  "  name=<str>             - of what\n"
				  "  size=<size>            - how large\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_words),  cmocka_unit_test(test_json),
		cmocka_unit_test(test_taking), cmocka_unit_test(test_validation),
		cmocka_unit_test(test_help),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
