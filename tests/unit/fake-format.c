/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include <errno.h>
#include <string.h>

#include "io/loop.h"
#include "tests/unit/fake-format.h"

struct fake *fake_of(struct image *img)
{
	return img->state;
}

static int fake_probe(const struct probe *p)
{
	return memcmp(p->head, "FAKE", 4) == 0 ? 100 : 0;
}

static bool fake_load(struct image *img, struct options *options, GError **error)
{
	img->state = g_new0(struct fake, 1);
	img->size = FAKE_SIZE;
	img->cluster_size = FAKE_CLUSTER;
	/* "FAKE" and then the backing name, if any. */
	if (file_size(img->file) > 4) {
		char name[256] = {0};

		if (file_read(img->file, 4, name, sizeof(name) - 1) == 0 && name[0])
			img->backing_name = g_strdup(name);
	}
	return true;
}

static void fake_close(struct image *img)
{
	g_free(img->state);
}

static int fake_map(struct image *img, uint64_t offset, uint64_t len, struct extent *e)
{
	struct fake *f = img->state;
	uint64_t n = offset / FAKE_CLUSTER, in = offset % FAKE_CLUSTER;
	int fail = f->fail_map;

	f->maps++;
	f->fail_map = 0;
	if (fail)
		return fail;
	e->start = offset;
	e->len = MIN(len, FAKE_CLUSTER - in);
	e->kind = f->entry[n].kind;
	if (e->kind == EXTENT_DATA) {
		e->flags = EXTENT_WRITABLE;
		e->file = img->file;
		e->host = f->entry[n].host + in;
	} else if (e->kind == EXTENT_CODED) {
		e->file = img->file;
		e->host = f->entry[n].host;
		e->coded_len = f->entry[n].coded_len;
		e->unit_start = offset - in;
		e->unit_len = FAKE_CLUSTER;
		e->codec = &codec_deflate;
	}
	return 0;
}

static int fake_reserve(struct image *img, uint64_t offset, uint64_t len, unsigned flags,
			struct claim *c)
{
	struct fake *f = img->state;

	f->reserves++;
	c->start = offset - offset % FAKE_CLUSTER;
	c->len = FAKE_CLUSTER;
	c->file = img->file;
	c->host = MAX(file_size(img->file), FAKE_CLUSTER);
	c->host += (FAKE_CLUSTER - c->host % FAKE_CLUSTER) % FAKE_CLUSTER;
	c->fill = true;
	if (f->bad_host)
		c->host = (uint64_t)INT64_MAX - 1;
	f->bad_host = false;
	return 0;
}

static int fake_commit(struct image *img, struct claim *c)
{
	struct fake *f = img->state;
	int fail = f->fail_commit;

	f->commits++;
	f->fail_commit = 0;
	if (fail)
		return fail;
	/* The core's promise: what the entry will point at is there. */
	g_assert(c->host + c->len <= file_size(img->file));
	f->entry[c->start / FAKE_CLUSTER].kind = EXTENT_DATA;
	f->entry[c->start / FAKE_CLUSTER].host = c->host;
	return 0;
}

static void fake_abandon(struct image *img, struct claim *c)
{
	fake_of(img)->abandons++;
}

static int fake_unmap(struct image *img, uint64_t offset, uint64_t len, enum unmap_mode mode)
{
	struct fake *f = img->state;

	g_assert(offset % FAKE_CLUSTER == 0);
	f->unmaps++;
	for (uint64_t n = offset / FAKE_CLUSTER; n * FAKE_CLUSTER < offset + len; n++)
		f->entry[n].kind = mode == UNMAP_TO_HOLE ? EXTENT_HOLE : EXTENT_ZERO;
	return 0;
}

const struct format format_fake = {
	.name = "fake",
	.long_name = "for tests",
	.has_backing = true,
	.probe = fake_probe,
	.open = fake_load,
	.close = fake_close,
	.map = fake_map,
	.reserve = fake_reserve,
	.commit = fake_commit,
	.abandon = fake_abandon,
	.unmap = fake_unmap,
};

const struct format *const fake_formats[] = {&format_fake, NULL};

struct image *fake_open(const void *data, uint64_t size, unsigned flags)
{
	struct image_open_options o = {.format = "fake", .flags = flags};
	struct file *f = file_new_memory("fake", data, size);
	struct image *img;

	image_set_formats(fake_formats);
	img = image_open_file(f, &o, NULL);
	file_unref(f);
	g_assert(img);
	return img;
}

static int call_body(void *arg)
{
	void (**body)(void) = arg;

	(*body)();
	return 0;
}

void in_loop(void (*body)(void))
{
	struct loop *loop = loop_new(NULL);

	g_assert(loop);
	loop_run(loop, call_body, &body);
	loop_free(loop);
}
