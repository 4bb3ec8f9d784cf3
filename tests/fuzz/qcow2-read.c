/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reads an image: what can be read must be the same however it is asked for. */
#include "config.h"

#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#define CHUNK  (64u << 10)
#define CHUNKS 12

/* Every byte of what reads as a whole reads as the same alone, and zero extents are zero. */
static void compare(struct image *img, uint64_t offset, const uint8_t *whole, size_t len,
		    uint64_t *seed)
{
	g_autofree uint8_t *part = g_malloc(len);
	struct extent e;

	for (int i = 0; i < 4; i++) {
		size_t from = fuzz_random(seed) % len, n = 1 + fuzz_random(seed) % (len - from);
		struct iovec iov[2] = {{part, n / 2}, {part + n / 2, n - n / 2}};

		if (image_readv(img, offset + from, iov, 2) < 0 ||
		    memcmp(part, whole + from, n) != 0)
			abort();
	}
	if (image_map(img, offset, len, NULL, &e) < 0)
		abort();
	if (extent_is_zero(&e) && !buffer_is_zero(whole, e.len))
		abort();
	if (image_read_extent(img, &e, offset, part, e.len) < 0 || memcmp(part, whole, e.len) != 0)
		abort();
}

static void read_from(struct image *img, uint64_t offset, uint64_t *seed)
{
	g_autofree uint8_t *buf = g_malloc(CHUNK);

	for (unsigned i = 0; i < CHUNKS && offset < img->size; i++) {
		size_t len = MIN(CHUNK - fuzz_random(seed) % 4096, img->size - offset);

		if (image_read(img, offset, buf, len) == 0) {
			compare(img, offset, buf, len, seed);
		} else {
			if (!image_fault_text(img))
				abort();
			image_fault_clear(img);
			/* The damage is somewhere in it: the rest stays readable. */
			for (unsigned k = 0; k < len / 4096; k += 3)
				image_read(img, offset + k * 4096, buf, 512);
		}
		offset += len;
	}
}

static void body(void *arg)
{
	struct file *f = arg;
	struct image *img = fuzz_open(f, "qcow2", 0);
	uint64_t seed = file_size(f);

	if (!img)
		return;
	read_from(img, 0, &seed);
	if (img->size > 2 * CHUNKS * CHUNK)
		read_from(img, img->size - CHUNKS * CHUNK, &seed);
	g_autoptr(GPtrArray) list = image_snapshots(img, NULL);
	struct image *view = list && list->len ? image_view(img, list->len - 1, NULL) : NULL;

	if (view)
		read_from(view, 0, &seed);
	image_unref(view);
	image_unref(img);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct file *f = fuzz_file(data, size);

	if (f)
		fuzz_run(body, f);
	file_unref(f);
	return 0;
}
