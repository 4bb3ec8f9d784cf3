/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What an image's name means: paths, file:, json:{}, option strings with their backing.* parts. */
#include "config.h"

#include "tests/unit/in-loop.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "formats/formats.h"
#include "image/image.h"

static void create(const char *name, const struct format *format, const char *text)
{
	struct options *o = options_new();
	GError *error = NULL;

	assert_true(options_parse(o, text, NULL, NULL));
	if (!image_create(name, format, o, &error))
		fail_msg("%s: %s", name, error->message);
	options_free(o);
}

/* base.raw <- mid.qcow2 <- top.qcow2, and other.raw; the raw ones hold one letter each. */
static int make_files(void *arg)
{
	char letters[4096];

	memset(letters, 'b', sizeof(letters));
	assert_true(g_file_set_contents("base.raw", letters, sizeof(letters), NULL));
	memset(letters, 'o', sizeof(letters));
	memset(letters, 'w', 1024);
	assert_true(g_file_set_contents("other.raw", letters, sizeof(letters), NULL));
	create("mid.qcow2", &format_qcow2, "size=4096,backing_file=base.raw,backing_fmt=raw");
	create("top.qcow2", &format_qcow2, "size=4096,backing_file=mid.qcow2,backing_fmt=qcow2");
	return 0;
}

static int set_up(void **state)
{
	image_set_formats(formats_table);
	return in_loop(make_files, NULL);
}

static int tear_down(void **state)
{
	unlink("base.raw");
	unlink("other.raw");
	unlink("mid.qcow2");
	unlink("top.qcow2");
	return 0;
}

/* The formats of the chain, and the first byte that is read. */
static void expect(struct image *img, GError *error, const char *name, const char *formats,
		   char byte)
{
	g_autoptr(GString) found = g_string_new(NULL);
	char first = 0;

	if (!img)
		fail_msg("%s: %s", name, error->message);
	for (struct image *i = img; i; i = i->backing)
		g_string_append_printf(found, "%s%s", found->len ? " " : "", i->format->name);
	if (strcmp(found->str, formats) != 0)
		fail_msg("%s: the chain is %s", name, found->str);
	assert_int_equal(image_read(img, 0, &first, 1), 0);
	if (first != byte)
		fail_msg("%s: reads '%c'", name, first);
	image_unref(img);
}

static void opens(const char *name, const char *formats, char byte)
{
	GError *error = NULL;

	expect(image_open(name, NULL, &error), error, name, formats, byte);
}

static void refuses(const char *name, const char *words)
{
	GError *error = NULL;
	struct image *img = image_open(name, NULL, &error);

	if (img)
		fail_msg("opened: %s", name);
	if (!strstr(error->message, words))
		fail_msg("%s: %s", name, error->message);
	g_error_free(error);
}

static void opens_options(const char *text, const char *formats, char byte)
{
	struct options *o = options_new();
	GError *error = NULL;

	assert_true(options_parse(o, text, NULL, NULL));
	expect(image_open_with_options(o, NULL, &error), error, text, formats, byte);
}

static void refuses_options(const char *text, const char *words)
{
	struct options *o = options_new();
	GError *error = NULL;
	struct image *img;

	assert_true(options_parse(o, text, NULL, NULL));
	img = image_open_with_options(o, NULL, &error);
	if (img)
		fail_msg("opened: %s", text);
	if (!strstr(error->message, words))
		fail_msg("%s: %s", text, error->message);
	g_error_free(error);
}

static int names(void *arg)
{
	g_autofree char *here = g_get_current_dir();
	g_autofree char *url = g_strdup_printf("file://%s/base.raw", here);

	opens("top.qcow2", "qcow2 qcow2 raw", 'b');
	opens("./top.qcow2", "qcow2 qcow2 raw", 'b');
	opens("file:top.qcow2", "qcow2 qcow2 raw", 'b');
	opens(url, "raw", 'b');
	refuses("nbd:host:1", "Unknown protocol 'nbd'");
	refuses("missing.qcow2", "Could not open 'missing.qcow2'");
	assert_int_equal(rename("other.raw", "a:b"), 0);
	refuses("a:b", "Unknown protocol 'a'");
	opens("./a:b", "raw", 'w');
	opens("file:a:b", "raw", 'w');
	assert_int_equal(rename("a:b", "other.raw"), 0);
	return 0;
}

static int json(void *arg)
{
	opens("json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":\"top.qcow2\"}"
	      "}",
	      "qcow2 qcow2 raw", 'b');
	opens("json:{\"file.filename\":\"top.qcow2\"}", "qcow2 qcow2 raw", 'b');
	opens("json:{\"driver\":\"raw\",\"file.filename\":\"top.qcow2\"}", "raw", 'Q');
	/* The protocol alone: the bytes of the file. */
	opens("json:{\"driver\":\"file\",\"filename\":\"top.qcow2\"}", "raw", 'Q');
	opens("json:{\"driver\":\"raw\",\"offset\":1024,\"size\":512,"
	      "\"file.filename\":\"other.raw\"}",
	      "raw", 'o');
	refuses("json:{\"driver\":\"qcow2\"}", "file.filename");
	refuses("json:{\"driver\":\"nosuch\",\"file.filename\":\"top.qcow2\"}", "nosuch");
	refuses("json:{\"driver\":\"qcow2\",\"file.filename\":\"top.qcow2\",\"colour\":1}",
		"'colour'");
	refuses("json:{\"driver\":\"qcow2\",\"file\":{\"filename\":\"top.qcow2\",\"x\":1}}", "'x'");
	refuses("json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"nbd\",\"host\":\"h\"}}", "nbd");
	refuses("json:{\"driver\":\"raw\",\"offset\":5000,\"file.filename\":\"base.raw\"}",
		"greater than size");
	refuses("json:{", "Could not open 'json:{'");
	return 0;
}

/* backing.* describes the image below, and below that one again. */
static int nested(void *arg)
{
	opens_options("driver=qcow2,file.filename=top.qcow2,backing.driver=raw,"
		      "backing.file.filename=other.raw",
		      "qcow2 raw", 'w');
	opens_options("driver=qcow2,file.filename=top.qcow2,backing.driver=qcow2,"
		      "backing.file.filename=mid.qcow2,backing.backing.driver=raw,"
		      "backing.backing.file.filename=other.raw,backing.backing.offset=1k",
		      "qcow2 qcow2 raw", 'o');
	opens("json:{\"file.filename\":\"top.qcow2\",\"backing\":{\"driver\":\"qcow2\",\"file\":"
	      "{\"filename\":\"mid.qcow2\"},\"backing\":{\"driver\":\"raw\",\"file.filename\":"
	      "\"other.raw\"}}}",
	      "qcow2 qcow2 raw", 'w');
	/* No driver: the format that is recorded above it. */
	opens_options("file.filename=mid.qcow2,backing.file.filename=other.raw", "qcow2 raw", 'w');
	/* null: none, so that nothing shines through. */
	opens("json:{\"file.filename\":\"top.qcow2\",\"backing\":null}", "qcow2", '\0');
	opens_options("file.filename=top.qcow2,backing=", "qcow2", '\0');

	refuses_options("file.filename=base.raw,driver=raw,backing.file.filename=other.raw",
			"'backing'");
	refuses_options("file.filename=top.qcow2,backing=x", "'backing'");
	refuses_options("file.filename=top.qcow2,backing.driver=qcow2", "file.filename");
	refuses_options(
		"file.filename=top.qcow2,backing.file.filename=other.raw,backing.driver=raw,"
		"backing.offset=1k,backing.colour=1",
		"'colour'");
	/* A loop that the options make. */
	refuses_options("file.filename=mid.qcow2,backing.driver=qcow2,"
			"backing.file.filename=mid.qcow2",
			"its own chain");
	return 0;
}

static int flags(void *arg)
{
	struct image_open_options o = {.flags = IMAGE_RDWR};
	struct options *options = options_new();
	struct image *img;
	GError *error = NULL;

	assert_true(options_parse(options, "file.filename=base.raw,driver=raw,read-only=on", NULL,
				  NULL));
	img = image_open_with_options(options, &o, NULL);
	assert_non_null(img);
	assert_false(img->flags & IMAGE_RDWR);
	assert_int_equal(image_write(img, 0, "x", 1), -EROFS);
	image_unref(img);

	options = options_new();
	assert_true(options_parse(options, "file.filename=base.raw,driver=raw,force-share=on", NULL,
				  NULL));
	img = image_open_with_options(options, &o, &error);
	assert_null(img);
	assert_non_null(strstr(error->message, "force-share=on"));
	g_error_free(error);

	/* Only read: one tree for all who ask. */
	struct image *a = image_open("top.qcow2", NULL, NULL);
	struct image *b = image_open("top.qcow2", NULL, NULL);
	assert_ptr_equal(a, b);
	image_unref(a);
	image_unref(b);
	/* And what is below a writable image is only read. */
	img = image_open("top.qcow2", &o, &error);
	assert_non_null(img);
	assert_true(img->flags & IMAGE_RDWR);
	assert_false(img->backing->flags & IMAGE_RDWR);
	assert_false(file_writable(img->backing->file));
	image_unref(img);
	return 0;
}

TEST_IN_LOOP(names, names)
TEST_IN_LOOP(json, json)
TEST_IN_LOOP(nested, nested)
TEST_IN_LOOP(flags, flags)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_json),
		cmocka_unit_test(test_nested),
		cmocka_unit_test(test_flags),
	};

	fail_by_abort();
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
