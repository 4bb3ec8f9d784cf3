/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The one walk: chains of layers that are short, silent or damaged, and runs that are joined. */
#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/fake-format.h"

#define C FAKE_CLUSTER

/* A layer over a file of this many clusters; all of its entries are holes. */
static struct image *layer(unsigned file_clusters)
{
	g_autofree uint8_t *bytes = g_malloc0(file_clusters * C + 1);

	return fake_open(bytes, file_clusters * C, 0);
}

static void set(struct image *img, unsigned n, enum extent_kind kind, unsigned host_cluster)
{
	fake_of(img)->entry[n].kind = kind;
	fake_of(img)->entry[n].host = host_cluster * C;
}

static struct extent map(struct image *img, uint64_t offset, uint64_t len, struct image *base)
{
	struct extent e;

	assert_int_equal(image_map(img, offset, len, base, &e), 0);
	assert_int_equal(e.start, offset);
	assert_true(e.len > 0 && e.len <= len);
	return e;
}

static struct extent run(struct image *img, uint64_t offset, uint64_t len, struct image *base)
{
	struct extent e;

	assert_int_equal(image_map_run(img, offset, len, base, &e), 0);
	assert_int_equal(e.start, offset);
	return e;
}

struct chain {
	struct image *top, *middle, *bottom;
};

/* Three layers; the caller lets go of the top. */
static struct chain three(void)
{
	struct chain c = {layer(20), layer(20), layer(20)};

	c.top->backing = c.middle;
	c.middle->backing = c.bottom;
	return c;
}

static void body_layers(void)
{
	struct chain c = three();
	struct extent e;

	set(c.top, 0, EXTENT_DATA, 1);
	set(c.middle, 0, EXTENT_DATA, 2);
	set(c.middle, 1, EXTENT_DATA, 3);
	set(c.bottom, 2, EXTENT_DATA, 4);
	set(c.middle, 3, EXTENT_ZERO, 0); /* hides what is below */
	set(c.bottom, 3, EXTENT_DATA, 5);

	e = map(c.top, 10, C, NULL);
	assert_ptr_equal(e.layer, c.top);
	assert_int_equal(e.depth, 0);
	assert_int_equal(e.host, C + 10);
	assert_int_equal(e.len, C - 10);
	e = map(c.top, C, C, NULL);
	assert_ptr_equal(e.layer, c.middle);
	assert_ptr_equal(e.file, c.middle->file);
	assert_int_equal(e.depth, 1);
	e = map(c.top, 2 * C, C, NULL);
	assert_ptr_equal(e.layer, c.bottom);
	assert_int_equal(e.depth, 2);
	e = map(c.top, 3 * C, C, NULL);
	assert_int_equal(e.kind, EXTENT_ZERO);
	assert_ptr_equal(e.layer, c.middle);
	/* What nobody describes is said of the deepest layer. */
	e = map(c.top, 4 * C, C, NULL);
	assert_int_equal(e.kind, EXTENT_HOLE);
	assert_null(e.layer);
	assert_int_equal(e.depth, 2);
	/* Below a base nothing is looked at, not even for errors. */
	fake_of(c.bottom)->fail_map = -EIO;
	e = map(c.top, 2 * C, C, c.bottom);
	assert_int_equal(e.kind, EXTENT_HOLE);
	assert_int_equal(e.depth, 1);
	e = map(c.top, C, C, c.middle);
	assert_int_equal(e.kind, EXTENT_HOLE);
	assert_int_equal(e.depth, 0);
	assert_int_equal(fake_of(c.bottom)->fail_map, -EIO);
	image_unref(c.top);
}

/* Layers that end before the one above them, at a place inside a cluster. */
static void body_short(void)
{
	struct chain c = three();
	struct extent e;

	for (unsigned n = 0; n < FAKE_CLUSTERS; n++) {
		set(c.middle, n, n % 2 ? EXTENT_HOLE : EXTENT_DATA, 1);
		set(c.bottom, n, EXTENT_DATA, 2);
	}
	c.middle->size = 10 * C + 100;
	c.bottom->size = 5 * C + 7;
	e = map(c.top, 5 * C, C, NULL);
	assert_ptr_equal(e.layer, c.bottom);
	assert_int_equal(e.len, 7);
	e = map(c.top, 5 * C + 7, C, NULL);
	assert_int_equal(e.kind, EXTENT_HOLE);
	assert_int_equal(e.depth, 1);
	assert_int_equal(e.len, C - 7);
	e = map(c.top, 10 * C, C, NULL);
	assert_ptr_equal(e.layer, c.middle);
	assert_int_equal(e.len, 100);
	e = map(c.top, 10 * C + 100, 3 * C, NULL);
	assert_int_equal(e.kind, EXTENT_HOLE);
	assert_int_equal(e.depth, 0);

	uint8_t buf[C];
	memset(buf, 1, sizeof(buf));
	assert_int_equal(image_read(c.top, 10 * C + 100, buf, 200), 0);
	assert_true(buffer_is_zero(buf, 200));
	image_unref(c.top);
}

static void body_runs(void)
{
	struct chain c = three();
	struct extent e;

	/* In sequence in one file: one extent. A gap, another layer or another kind ends it. */
	for (unsigned n = 0; n < 4; n++)
		set(c.top, n, EXTENT_DATA, 1 + n);
	set(c.top, 4, EXTENT_DATA, 9);
	set(c.middle, 5, EXTENT_DATA, 10);
	set(c.top, 6, EXTENT_ZERO, 0);
	set(c.top, 7, EXTENT_ZERO, 0);
	set(c.middle, 8, EXTENT_ZERO, 0);
	e = run(c.top, 100, 20 * C, NULL);
	assert_int_equal(e.len, 4 * C - 100);
	assert_int_equal(e.host, C + 100);
	e = run(c.top, 4 * C, 20 * C, NULL);
	assert_int_equal(e.len, C);
	e = run(c.top, 5 * C, 20 * C, NULL);
	assert_int_equal(e.len, C);
	assert_int_equal(e.depth, 1);
	e = run(c.top, 6 * C, 20 * C, NULL);
	assert_int_equal(e.kind, EXTENT_ZERO);
	assert_int_equal(e.len, 2 * C);
	e = run(c.top, 8 * C, 20 * C, NULL);
	assert_int_equal(e.len, C);
	e = run(c.top, 9 * C, FAKE_SIZE - 9 * C, NULL);
	assert_int_equal(e.kind, EXTENT_HOLE);
	assert_int_equal(e.len, FAKE_SIZE - 9 * C);
	/* No further than asked. */
	e = run(c.top, 0, 2 * C + 1, NULL);
	assert_int_equal(e.len, 2 * C + 1);
	/* Coded units are joined, and then they cannot be read as one. */
	for (unsigned n = 20; n < 23; n++) {
		set(c.top, n, EXTENT_CODED, 1);
		fake_of(c.top)->entry[n].coded_len = 100;
	}
	e = run(c.top, 20 * C, C, NULL);
	assert_int_equal(e.coded_len, 100);
	assert_int_equal(e.unit_len, C);
	e = run(c.top, 20 * C, 10 * C, NULL);
	assert_int_equal(e.len, 3 * C);
	assert_int_equal(e.coded_len, 0);
	assert_int_equal(e.unit_len, 0);
	image_unref(c.top);
}

/* Damage is told where it is, and no earlier. */
static void body_damage(void)
{
	struct image *img = layer(4);
	struct extent e;

	set(img, 0, EXTENT_DATA, 1);
	set(img, 1, EXTENT_DATA, 4); /* begins at the end */
	set(img, 2, EXTENT_DATA, 3);
	assert_int_equal(image_map(img, C, C, NULL, &e), -EIO);
	assert_non_null(strstr(image_fault_text(img), "offset 16384, is past the end"));
	image_fault_clear(img);
	e = run(img, 0, 3 * C, NULL);
	assert_int_equal(e.len, C);
	/* The file grew since: by somebody else, so that the size is asked for again. */
	assert_int_equal(file_truncate(img->file, 5 * C), 0);
	e = map(img, C, C, NULL);
	assert_int_equal(e.len, C);
	/* The end of the file inside a cluster counts as all of the cluster. */
	assert_int_equal(file_truncate(img->file, 3 * C + 1), 0);
	e = map(img, 2 * C, C, NULL);
	assert_int_equal(e.len, C);
	set(img, 3, EXTENT_CODED, 4);
	fake_of(img)->entry[3].coded_len = 10;
	assert_int_equal(image_map(img, 3 * C, 10, NULL, &e), -EIO);
	image_unref(img);
}

static void body_ranges(void)
{
	struct image *img = layer(1);
	struct extent e;

	assert_int_equal(image_map(img, 0, 0, NULL, &e), -EINVAL);
	assert_int_equal(image_map(img, FAKE_SIZE, 1, NULL, &e), -EINVAL);
	assert_int_equal(image_map(img, FAKE_SIZE - 1, 2, NULL, &e), -EINVAL);
	assert_int_equal(image_map(img, 1, UINT64_MAX, NULL, &e), -EINVAL);
	assert_int_equal(image_map(img, FAKE_SIZE - 1, 1, NULL, &e), 0);
	image_unref(img);
}

#define TEST(name)                                                                                 \
	static void test_##name(void **state)                                                      \
	{                                                                                          \
		in_loop(body_##name);                                                              \
	}
TEST(layers)
TEST(short)
TEST(runs)
TEST(damage)
TEST(ranges)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_layers), cmocka_unit_test(test_short),
		cmocka_unit_test(test_runs),   cmocka_unit_test(test_damage),
		cmocka_unit_test(test_ranges),
	};

	setenv("CMOCKA_TEST_ABORT", "1", 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
