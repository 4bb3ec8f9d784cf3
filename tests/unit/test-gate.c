/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which names found inside images are followed. */
#include "config.h"

#include "tests/unit/in-loop.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats/formats.h"
#include "image/image.h"

/*
 *	tree/own/top.qcow2	who refers
 *	tree/own/near.raw  tree/own/below/deep.raw  tree/own/pipe
 *	tree/own/out -> ../other/secret	tree/own/in -> near.raw
 *	tree/other/secret	not an image
 *	tree/other/image.qcow2	an image
 */
#define REFERRER "tree/own/top.qcow2"

static void make_qcow2(const char *name)
{
	struct options *o = options_new();
	GError *error = NULL;

	options_set(o, "size", "1M");
	if (!image_create(name, &format_qcow2, o, &error))
		fail_msg("%s", error->message);
	options_free(o);
}

static void make_file(const char *name, const char *content)
{
	assert_true(g_file_set_contents(name, content, -1, NULL));
}

static int make_tree(void *arg)
{
	assert_int_equal(g_mkdir_with_parents("tree/own/below", 0755), 0);
	assert_int_equal(g_mkdir_with_parents("tree/own-too", 0755), 0);
	assert_int_equal(g_mkdir_with_parents("tree/other", 0755), 0);
	make_file("tree/own/near.raw", "near");
	make_file("tree/own/below/deep.raw", "deep");
	make_file("tree/own-too/near.raw", "its name begins alike");
	make_file("tree/other/secret", "root:x:0:0");
	make_qcow2(REFERRER);
	make_qcow2("tree/other/image.qcow2");
	assert_int_equal(mkfifo("tree/own/pipe", 0600), 0);
	assert_int_equal(symlink("../other/secret", "tree/own/out"), 0);
	assert_int_equal(symlink("near.raw", "tree/own/in"), 0);
	assert_int_equal(symlink("loop", "tree/own/loop"), 0);
	return 0;
}

static void follows(struct gate *g, const char *name, const char *path)
{
	GError *error = NULL;
	g_autofree char *found = gate_resolve(g, REFERRER, name, &error);

	if (!found)
		fail_msg("%s: %s", name, error->message);
	assert_string_equal(found, path);
}

static void refuses(struct gate *g, const char *name, enum image_error code, const char *words)
{
	GError *error = NULL;
	char *found = gate_resolve(g, REFERRER, name, &error);

	if (found)
		fail_msg("%s is followed to %s", name, found);
	assert_true(error->domain == IMAGE_ERROR);
	if ((int)code != error->code || !strstr(error->message, words))
		fail_msg("%s: %d: %s", name, error->code, error->message);
	g_error_free(error);
}

static void refuses_what_no_image_may_name(struct gate *g)
{
	g_autofree char *endless = g_strnfill(5000, 'a');

	refuses(g, "json:{\"driver\":\"raw\"}", IMAGE_ERROR_REFUSED, "json:");
	refuses(g, "nbd://host/x", IMAGE_ERROR_REFUSED, "protocols");
	refuses(g, "host_device:/dev/sda", IMAGE_ERROR_REFUSED, "protocols");
	refuses(g, "", IMAGE_ERROR_REFUSED, "no file name");
	refuses(g, endless, IMAGE_ERROR_REFUSED, "no file name");
	refuses(g, "pipe", IMAGE_ERROR_REFUSED, "not a regular file");
	refuses(g, "below", IMAGE_ERROR_REFUSED, "not a regular file");
	refuses(g, "/dev/null", IMAGE_ERROR_REFUSED, "not a regular file");
	refuses(g, "missing", IMAGE_ERROR_NOT_FOUND, "tree/own/missing");
	refuses(g, "loop", IMAGE_ERROR_NOT_FOUND, "tree/own/loop");
}

static int by_default(void *arg)
{
	struct gate *g = gate_new(GATE_DEFAULT);
	g_autofree char *here = g_get_current_dir();
	g_autofree char *near = g_build_filename(here, "tree/own/near.raw", NULL);
	g_autofree char *secret = g_build_filename(here, "tree/other/secret", NULL);
	g_autofree char *image = g_build_filename(here, "tree/other/image.qcow2", NULL);

	follows(g, "near.raw", "tree/own/near.raw");
	follows(g, "file:near.raw", "tree/own/near.raw");
	follows(g, "below/deep.raw", "tree/own/below/deep.raw");
	follows(g, "../own/near.raw", "tree/own/../own/near.raw");
	follows(g, near, near);
	follows(g, "in", "tree/own/in");
	/* Elsewhere only what says by itself that it is an image. */
	follows(g, "../other/image.qcow2", "tree/own/../other/image.qcow2");
	follows(g, image, image);
	refuses(g, "../other/secret", IMAGE_ERROR_REFUSED, "--allow-references");
	refuses(g, secret, IMAGE_ERROR_REFUSED, "--allow-references");
	refuses(g, "/etc/passwd", IMAGE_ERROR_REFUSED, "--allow-references");
	refuses(g, "out", IMAGE_ERROR_REFUSED, "--allow-references"); /* the link leads out */
	refuses(g, "../own-too/near.raw", IMAGE_ERROR_REFUSED, "--allow-references");
	refuses_what_no_image_may_name(g);
	gate_free(g);
	return 0;
}

static int with_directories(void *arg)
{
	struct gate *g = gate_new(GATE_DEFAULT);
	GError *error = NULL;

	assert_false(gate_allow(g, "tree/nowhere", &error));
	assert_non_null(strstr(error->message, "tree/nowhere"));
	g_error_free(error);
	refuses(g, "../other/secret", IMAGE_ERROR_REFUSED, "--allow-references");
	assert_true(gate_allow(g, "tree/other", NULL));
	follows(g, "../other/secret", "tree/own/../other/secret");
	follows(g, "out", "tree/own/out");
	follows(g, "near.raw", "tree/own/near.raw");
	refuses(g, "../own-too/near.raw", IMAGE_ERROR_REFUSED, "--allow-references");
	refuses(g, "/etc/passwd", IMAGE_ERROR_REFUSED, "--allow-references");
	refuses_what_no_image_may_name(g);
	/* The root holds everything. */
	assert_true(gate_allow(g, "/", NULL));
	follows(g, "/etc/passwd", "/etc/passwd");
	gate_free(g);
	return 0;
}

static int with_any(void *arg)
{
	struct gate *g = gate_new(GATE_DEFAULT);

	assert_true(gate_allow(g, "any", NULL));
	follows(g, "/etc/passwd", "/etc/passwd");
	follows(g, "out", "tree/own/out");
	refuses_what_no_image_may_name(g);
	gate_free(g);
	return 0;
}

static void test_default(void **state)
{
	in_loop(by_default, NULL);
}

static void test_directories(void **state)
{
	in_loop(with_directories, NULL);
}

static void test_any(void **state)
{
	in_loop(with_any, NULL);
}

static int set_up(void **state)
{
	image_set_formats(formats_table);
	assert_int_equal(g_spawn_command_line_sync("rm -rf tree", NULL, NULL, NULL, NULL), 1);
	return in_loop(make_tree, NULL);
}

static int tear_down(void **state)
{
	return g_spawn_command_line_sync("rm -rf tree", NULL, NULL, NULL, NULL) ? 0 : -1;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_default),
		cmocka_unit_test(test_directories),
		cmocka_unit_test(test_any),
	};

	fail_by_abort();
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
