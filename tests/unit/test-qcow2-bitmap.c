/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Stored bitmaps of a qcow2 image follow what is written to it, and survive what goes wrong. */
#include "tests/unit/in-loop.h"

#include <fcntl.h>
#include <glib.h>
#include <string.h>
#include <unistd.h>

#include "formats/formats.h"
#include "formats/qcow2.h"
#include "image/bitmap.h"
#include "image/inspect.h"

#define NAME "bitmaps.qcow2"
#define SIZE (UINT64_C(5) << 20)

static struct image *open_image(unsigned flags)
{
	struct image_open_options o = {.format = "qcow2", .flags = flags};
	GError *error = NULL;
	struct image *img = image_open(NAME, &o, &error);

	if (!img)
		g_error("%s", error->message);
	return img;
}

static struct image *make_image(const char *cluster_size)
{
	struct options *o = options_new();
	GError *error = NULL;

	unlink(NAME);
	options_set(o, "size", "5M");
	options_set(o, "cluster_size", cluster_size);
	if (!image_create(NAME, image_find_format("qcow2", NULL), o, &error))
		g_error("%s", error->message);
	options_free(o);
	return open_image(IMAGE_RDWR);
}

static void assert_clean(void)
{
	struct check_options o = {0};
	struct check_result result;
	struct image *img = open_image(IMAGE_FOR_CHECK);

	assert_true(image_check(img, &o, &result, NULL));
	assert_int_equal(check_result_status(&result), 0);
	image_unref(img);
}

static const struct bitmap_info *info(GPtrArray *list, const char *name)
{
	for (guint i = 0; i < list->len; i++) {
		const struct bitmap_info *b = g_ptr_array_index(list, i);

		if (strcmp(b->name, name) == 0)
			return b;
	}
	return NULL;
}

/* What another process would see of the bitmap now: "", "auto", "in-use auto" ... */
static void assert_on_disk(const char *name, bool enabled, bool inconsistent)
{
	struct image *img = open_image(IMAGE_FORCE_SHARE | IMAGE_NO_BACKING);
	g_autoptr(GPtrArray) list = image_bitmaps(img, NULL);
	const struct bitmap_info *b = info(list, name);

	if (!b)
		g_error("there is no bitmap '%s'", name);
	assert_int_equal(b->enabled, enabled);
	assert_int_equal(b->inconsistent, inconsistent);
	image_unref(img);
}

/* The ranges that are set, as text. */
static char *ranges(struct image *img, const char *name)
{
	GError *error = NULL;
	GString *out = g_string_new(NULL);
	struct bitmap *b = img->format->bitmap_load(img, name, &error);
	uint64_t offset = 0, len;

	if (!b)
		g_error("%s", error->message);
	for (; bitmap_next(b, &offset, &len); offset += len)
		g_string_append_printf(out, "%s%" G_GUINT64_FORMAT "+%" G_GUINT64_FORMAT,
				       out->len ? " " : "", offset, len);
	bitmap_free(b);
	return g_string_free(out, FALSE);
}

static void assert_ranges(const char *name, const char *expected)
{
	struct image *img = open_image(0);
	g_autofree char *got = ranges(img, name);

	assert_string_equal(got, expected);
	image_unref(img);
}

static int follow(void *arg)
{
	struct image *img = make_image(arg);
	char data[3000];

	memset(data, 'x', sizeof(data));
	assert_true(image_bitmap_add(img, "on", 4096, NULL));
	assert_true(image_bitmap_add(img, "off", 4096, NULL));
	assert_true(image_bitmap_enable(img, "off", false, NULL));
	assert_false(image_bitmap_add(img, "on", 4096, NULL));
	assert_on_disk("on", true, false);
	assert_int_equal(image_write(img, 5000, data, sizeof(data)), 0);
	/* Whoever comes now, or after a crash, must not believe it. */
	assert_on_disk("on", true, true);
	assert_on_disk("off", false, false);
	/* The second time in place, a zero, a discard, and the disk's end. */
	assert_int_equal(image_write(img, 5000, data, 10), 0);
	assert_int_equal(image_write_zeroes(img, 1 << 20, 4096, true), 0);
	assert_int_equal(image_discard(img, 2 << 20, 2 << 20), 0);
	assert_int_equal(image_write(img, SIZE - 1, data, 1), 0);
	image_unref(img);
	assert_on_disk("on", true, false);
	assert_ranges("on", "4096+4096 1048576+4096 2097152+2097152 5238784+4096");
	assert_ranges("off", "");
	assert_clean();
	return 0;
}

/* Looking at a bitmap in between stores it; what comes after is followed anew. */
static int go_on(void *arg)
{
	struct image *img = make_image("64k");
	g_autofree char *first = NULL;

	assert_true(image_bitmap_add(img, "b", 65536, NULL));
	assert_int_equal(image_write(img, 0, "x", 1), 0);
	first = ranges(img, "b");
	assert_string_equal(first, "0+65536");
	assert_on_disk("b", true, false);
	assert_int_equal(image_write(img, 1 << 20, "x", 1), 0);
	assert_on_disk("b", true, true);
	assert_true(image_bitmap_add(img, "c", 65536, NULL));
	assert_int_equal(image_write(img, 2 << 20, "x", 1), 0);
	assert_true(image_bitmap_enable(img, "b", false, NULL));
	assert_int_equal(image_write(img, 3 << 20, "x", 1), 0);
	assert_true(image_bitmap_clear(img, "c", NULL));
	assert_int_equal(image_write(img, 4 << 20, "x", 1), 0);
	image_unref(img);
	assert_ranges("b", "0+65536 1048576+65536 2097152+65536");
	assert_ranges("c", "4194304+65536");
	assert_clean();
	return 0;
}

static int apply(void *arg)
{
	struct image *img = make_image("64k");

	assert_true(image_snapshot_create(img, "s", NULL));
	assert_true(image_bitmap_add(img, "b", 65536, NULL));
	assert_true(image_snapshot_apply(img, 0, NULL));
	image_unref(img);
	assert_ranges("b", "0+5242880");
	assert_clean();
	return 0;
}

/* Back to a larger disk: all of it, with what the disk had lost. */
static int apply_larger(void *arg)
{
	struct image *img = make_image("64k");

	assert_int_equal(image_write(img, 4 << 20, "x", 1), 0);
	assert_true(image_snapshot_create(img, "s", NULL));
	assert_true(image_resize(img, 2 << 20, NULL, NULL));
	assert_true(image_bitmap_add(img, "b", 65536, NULL));
	assert_true(image_bitmap_add(img, "off", 65536, NULL));
	assert_true(image_bitmap_enable(img, "off", false, NULL));
	assert_true(image_snapshot_apply(img, 0, NULL));
	assert_int_equal(img->size, SIZE);
	image_unref(img);
	assert_ranges("b", "0+5242880");
	assert_ranges("off", "");
	assert_clean();
	return 0;
}

/* What a resize adds is empty. */
static int grow(void *arg)
{
	struct image *img = make_image("64k");

	assert_true(image_bitmap_add(img, "b", 65536, NULL));
	assert_int_equal(image_write(img, SIZE - 1, "x", 1), 0);
	assert_true(image_resize(img, 2 * SIZE, NULL, NULL));
	assert_int_equal(image_write(img, 2 * SIZE - 1, "x", 1), 0);
	image_unref(img);
	assert_ranges("b", "5177344+65536 10420224+65536");
	assert_clean();
	return 0;
}

/* Clusters of 512 bytes: tables of more than one, and all bits of a cluster set. */
static int many_clusters(void *arg)
{
	struct image *img = make_image("512");

	assert_true(image_bitmap_add(img, "b", 512, NULL));
	assert_int_equal(image_write_zeroes(img, 0, SIZE, true), 0);
	image_unref(img);
	assert_clean();
	/* All of the disk was zero already, yet written to. */
	assert_ranges("b", "0+5242880");
	img = open_image(IMAGE_RDWR);
	assert_true(image_bitmap_remove(img, "b", NULL));
	image_unref(img);
	assert_clean();
	return 0;
}

/* Two entries of one name: readable, not writable. */
static int duplicate(void *arg)
{
	struct image *img = make_image("64k");
	struct image_open_options o = {.format = "qcow2", .flags = IMAGE_RDWR};
	GError *error = NULL;
	uint64_t directory;
	int fd;

	assert_true(image_bitmap_add(img, "aa", 65536, NULL));
	assert_true(image_bitmap_add(img, "ab", 65536, NULL));
	directory = qcow2_of(img)->header.bitmap_directory_offset;
	image_unref(img);
	fd = open(NAME, O_RDWR);
	assert_int_equal(pwrite(fd, "aa", 2, directory + 32 + 24), 2);
	close(fd);
	assert_null(image_open(NAME, &o, &error));
	assert_non_null(strstr(error->message, "has the name of an entry before it"));
	g_clear_error(&error);
	img = open_image(0);
	assert_null(image_bitmaps(img, &error));
	g_clear_error(&error);
	image_unref(img);
	return 0;
}

static int version_2(void *arg)
{
	struct options *o = options_new();
	GError *error = NULL;
	struct image *img;

	unlink(NAME);
	options_set(o, "size", "5M");
	options_set(o, "compat", "0.10");
	assert_true(image_create(NAME, image_find_format("qcow2", NULL), o, NULL));
	options_free(o);
	img = open_image(IMAGE_RDWR);
	assert_false(image_bitmap_add(img, "b", 0, &error));
	assert_non_null(strstr(error->message, "v2"));
	g_clear_error(&error);
	image_unref(img);
	return 0;
}

static void test_follow(void **state)
{
	in_loop(follow, (void *)"64k");
	in_loop(follow, (void *)"4k");
	in_loop(follow, (void *)"2M");
}
static void test_go_on(void **state)
{
	in_loop(go_on, NULL);
}
static void test_apply(void **state)
{
	in_loop(apply, NULL);
}
static void test_apply_larger(void **state)
{
	in_loop(apply_larger, NULL);
}
static void test_grow(void **state)
{
	in_loop(grow, NULL);
}
static void test_many_clusters(void **state)
{
	in_loop(many_clusters, NULL);
}
static void test_duplicate(void **state)
{
	in_loop(duplicate, NULL);
}
static void test_version_2(void **state)
{
	in_loop(version_2, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_follow),	     cmocka_unit_test(test_go_on),
		cmocka_unit_test(test_apply),	     cmocka_unit_test(test_many_clusters),
		cmocka_unit_test(test_apply_larger), cmocka_unit_test(test_grow),
		cmocka_unit_test(test_duplicate),    cmocka_unit_test(test_version_2),
	};

	fail_by_abort();
	image_set_formats(formats_table);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
