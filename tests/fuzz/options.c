/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Words of the command line and names out of images: options, json:{}, sizes, names, escapes. */
#include "config.h"

#include "tests/fuzz/fuzz.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "formats/formats.h"
#include "fs/names.h"
#include "image/core.h"

#define CHECK(x)                                                                                   \
	do {                                                                                       \
		if (!(x))                                                                          \
			abort();                                                                   \
	} while (0)

static const struct option_desc table[] = {
	{"size", OPTION_SIZE, "a size", NULL},
	{"compat", OPTION_STRING, "a word", "1.1"},
	{"lazy", OPTION_BOOL, "yes or no", "off"},
	{"n.m", OPTION_NUMBER, "a number", NULL},
	{NULL},
};

static void take_apart(struct options *o)
{
	struct options *copy = options_copy(o), *group = options_take_group(copy, "file");
	char *word = options_take_string(copy, "compat");
	uint64_t size = 0;
	bool on = false;

	options_validate(o, table, NULL);
	options_take_size(copy, "size", &size, NULL);
	options_take_bool(copy, "lazy", &on, NULL);
	CHECK(options_is_empty(copy) == options_refuse_rest(copy, NULL, NULL));
	g_free(word);
	options_free(group);
	options_free(copy);
}

static void options(const char *text, bool json)
{
	struct options *o = options_new();
	g_autoptr(GError) error = NULL;
	bool ok = json ? options_parse_json(o, text, &error)
		       : options_parse(o, text, "filename", &error);

	CHECK(ok == !error);
	if (ok)
		take_apart(o);
	options_free(o);
}

static void open_options(const char *text, bool json)
{
	struct options *o = options_new();
	struct open_spec spec;
	g_autoptr(GError) error = NULL;

	if (!(json ? options_parse_json(o, text, NULL) : options_parse(o, text, NULL, NULL))) {
		options_free(o);
		return;
	}
	open_spec_init(&spec, NULL);
	if (open_spec_parse(&spec, o, &error))
		CHECK(spec.path);
	else
		CHECK(error);
	open_spec_clear(&spec);
}

static void sizes(const char *text)
{
	g_autoptr(GError) error = NULL;
	uint64_t bytes = 0;
	bool on = false;

	if (units_parse(text, "size", 7, INT64_MAX, &bytes, &error)) {
		g_autofree char *shown = units_format(bytes);

		CHECK(bytes >= 7 && bytes <= INT64_MAX && strlen(shown) < 12);
	} else {
		CHECK(error);
	}
	units_parse_bool(text, "word", &on, NULL);
}

static void names(const char *text)
{
	g_autofree char *beside = filename_beside("some/dir/x.qcow2", text);
	g_autofree char *name = name_escape(text, NAME_LEN_MAX);
	const char *rest;

	filename_classify(text, &rest);
	CHECK(rest >= text && rest <= text + strlen(text) && beside);
	CHECK(strlen(name) <= NAME_LEN_MAX && !strchr(name, '/') && strcmp(name, ".") != 0 &&
	      strcmp(name, "..") != 0 && g_utf8_validate(name, -1, NULL));
	for (const char *c = name; *c; c++)
		CHECK((unsigned char)*c >= 0x20 && *c != 0x7f);
}

/* Whatever bytes: JSON parses, and a terminal is not driven. */
static void reports(const char *text, size_t len)
{
	g_autofree char *shown = report_escape(text, len);
	g_autoptr(GString) out = g_string_new(NULL);
	struct report *r = report_new(out, REPORT_JSON, 0);
	json_error_t why;
	json_t *j;

	report_begin_object(r, NULL);
	report_string(r, "name", text);
	report_begin_array(r, "list");
	report_string(r, NULL, text);
	report_end_array(r);
	report_end_object(r);
	report_free(r);
	j = json_loads(out->str, 0, &why);
	CHECK(j);
	json_decref(j);
	CHECK(g_utf8_validate(shown, -1, NULL));
	for (const char *c = shown; *c; c++)
		CHECK((unsigned char)*c >= 0x20 && *c != 0x7f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static bool ready;
	g_autofree char *text = NULL;

	if (size < 1)
		return 0;
	if (!ready)
		image_set_formats(formats_table);
	ready = true;
	text = g_strndup((const char *)data + 1, size - 1);
	switch (data[0]) {
	case 'o':
		options(text, false);
		open_options(text, false);
		break;
	case 'j':
		options(text, true);
		open_options(text, true);
		break;
	case 's':
		sizes(text);
		break;
	case 'n':
		names(text);
		break;
	default:
		reports(text, size - 1);
	}
	return 0;
}
