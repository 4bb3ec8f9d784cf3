/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Opens an image and asks all that can be asked without reading its disk: map, info, snapshots and
 * their views, check. */
#include "config.h"

#include "tests/fuzz/fuzz.h"

#include <stdlib.h>

#include "image/bytes.h"
#include "image/inspect.h"

/* One input must not take long, and an image may say that there is very much of it. */
#define EXTENTS_MAX   100
#define SNAPSHOTS_MAX 4
#define PATIENCE      150

static void map_some(struct image *img, uint64_t offset)
{
	struct extent e;

	/* The contract is asserted by image_map. Damage ends one extent, not the walk. */
	for (unsigned i = 0; i < EXTENTS_MAX && offset < img->size; i++) {
		if (image_map(img, offset, img->size - offset, NULL, &e) < 0) {
			if (!image_fault_text(img))
				abort();
			image_fault_clear(img);
			offset += 512 - offset % 512;
		} else {
			offset += e.len;
		}
	}
}

static void map_all(struct image *img)
{
	map_some(img, 0);
	map_some(img, img->size / 2);
	map_some(img, img->size - MIN(img->size, 1 << 20));
}

static void describe(struct image *img)
{
	g_autoptr(GString) json = g_string_new(NULL), text = g_string_new(NULL);
	struct report *r = report_new(json, REPORT_JSON, 0);

	image_info_json(img, r, NULL);
	report_free(r);
	image_info_text(img, text, 1 << 16, NULL);
}

static void snapshots(struct image *img)
{
	g_autoptr(GError) error = NULL;
	g_autoptr(GPtrArray) list = image_snapshots(img, &error);

	for (guint i = 0; list && i < list->len && i < SNAPSHOTS_MAX; i++) {
		g_autoptr(GError) why = NULL;
		struct image *view = image_view(img, i, &why);

		if (view)
			map_some(view, 0);
		else if (!why)
			abort();
		image_unref(view);
	}
}

static unsigned asked;

static bool lose_patience(void)
{
	return ++asked > PATIENCE;
}

static void ignore(void *arg, const char *sentence)
{
	if (!*sentence)
		abort();
}

static void check(struct file *f)
{
	struct check_options options = {.tell = ignore, .cancelled = lose_patience};
	struct check_result result = {0};
	struct image *img = fuzz_open(f, "qcow2", IMAGE_FOR_CHECK | IMAGE_NO_DATA_FILES);
	g_autoptr(GError) error = NULL;

	asked = 0;
	if (img && !image_check(img, &options, &result, &error) && !error)
		abort();
	image_unref(img);
}

static void body(void *arg)
{
	struct file *f = arg;
	struct image *img = fuzz_open(f, "qcow2", 0);

	if (img) {
		map_all(img);
		snapshots(img);
		describe(img);
		image_unref(img);
	}
	check(f);
}

/* An image may have 65,536 snapshots, which is slow by right. */
static bool is_too_much(struct file *f)
{
	be32_t count = {0};

	return file_read(f, 60, &count, sizeof(count)) < 0 || be32_get(count) > 64;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct file *f = fuzz_file(data, size);

	if (f && !is_too_much(f))
		fuzz_run(body, f);
	file_unref(f);
	return 0;
}
