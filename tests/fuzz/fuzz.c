/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Inputs as files, and a loop to work on them. */
#include "config.h"

#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "formats/formats.h"
#include "io/loop.h"

#define SECTOR	 512
#define FILE_MAX (SECTOR * (UINT16_MAX + 1ull))
#define HEAD	 4 /* bytes before a record's data */

/* Calls fn for each whole record; the last one may be cut short. Returns the file's size. */
static uint64_t each_record(const uint8_t *at, const uint8_t *end,
			    void (*fn)(void *arg, uint64_t offset, const void *data, size_t len),
			    void *arg)
{
	uint64_t size = 0;

	while (end - at >= HEAD) {
		uint64_t offset = (at[0] << 8 | at[1]) * (uint64_t)SECTOR;
		size_t len = at[2] << 8 | at[3];

		at += HEAD;
		len = MIN(len, (size_t)(end - at));
		if (fn)
			fn(arg, offset, at, len);
		size = MAX(size, offset + len);
		at += len;
	}
	return size;
}

static void put(void *arg, uint64_t offset, const void *data, size_t len)
{
	/* Memory files do not wait, so this works outside of a coroutine too. */
	if (len && file_write(arg, offset, data, len) < 0)
		abort();
}

struct file *fuzz_file(const uint8_t *data, size_t size)
{
	struct file *f;

	if (size == 0 || data[0] != 'S')
		return size <= FILE_MAX ? file_new_memory("/fuzz/input", data, size) : NULL;
	f = file_new_memory("/fuzz/input", NULL, each_record(data + 1, data + size, NULL, NULL));
	each_record(data + 1, data + size, put, f);
	return f;
}

static void set_up(void)
{
	image_set_formats(formats_table);
	codec_set_in_place(true);
	codec_cache_set_limit(1 << 20);
}

struct image *fuzz_open(struct file *f, const char *format, unsigned flags)
{
	struct image_open_options o = {
		.format = format,
		.flags = flags | IMAGE_NO_BACKING,
		.cache_size = 1 << 20,
	};
	g_autoptr(GError) error = NULL;
	struct image *img = image_open_file(f, &o, &error);

	/* A refusal without a sentence is a bug. */
	if (!img && (!error || !*error->message))
		abort();
	return img;
}

struct run {
	void (*body)(void *arg);
	void *arg;
};

static int in_coroutine(void *arg)
{
	struct run *run = arg;

	run->body(run->arg);
	return 0;
}

void fuzz_run(void (*body)(void *arg), void *arg)
{
	static struct loop *loop;
	struct run run = {body, arg};

	if (!loop) {
		set_up();
		loop = loop_new(NULL);
		if (!loop)
			abort();
	}
	loop_run(loop, in_coroutine, &run);
	codec_cache_clear();
}

uint64_t fuzz_random(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return *state >> 17;
}
