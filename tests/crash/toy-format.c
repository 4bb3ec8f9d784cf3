/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include <errno.h>
#include <string.h>

#include "image/bytes.h"
#include "tests/crash/toy-format.h"

enum toy_mistake toy_mistake;

struct toy {
	be32_t table[TOY_CLUSTERS]; /* as it will be on disk: cluster of the file, 0: none */
	uint8_t used[4096];	    /* file clusters; 2: freed, once the table is there */
	bool flushed_once;
};

static int toy_probe(const struct probe *p)
{
	return 0;
}

static bool toy_open(struct image *img, struct options *options, GError **error)
{
	struct toy *t = g_new0(struct toy, 1);

	if (file_read(img->file, 0, t->table, sizeof(t->table)) < 0) {
		g_free(t);
		return false;
	}
	t->used[0] = 1;
	for (unsigned i = 0; i < TOY_CLUSTERS; i++) {
		uint32_t n = be32_get(t->table[i]);

		if (n >= sizeof(t->used) || (n && t->used[n])) {
			g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_INVALID,
				    "cluster %u of the file is used twice, or too far", n);
			g_free(t);
			return false;
		}
		t->used[n] = 1;
	}
	img->state = t;
	img->size = TOY_SIZE;
	img->cluster_size = TOY_CLUSTER;
	return true;
}

static void toy_close(struct image *img)
{
	g_free(img->state);
}

static int toy_map(struct image *img, uint64_t offset, uint64_t len, struct extent *e)
{
	const struct toy *t = img->state;
	uint64_t in = offset % TOY_CLUSTER, n = be32_get(t->table[offset / TOY_CLUSTER]);

	e->start = offset;
	e->len = MIN(len, TOY_CLUSTER - in);
	if (n) {
		e->kind = EXTENT_DATA;
		e->flags = EXTENT_WRITABLE;
		e->file = img->file;
		e->host = n * TOY_CLUSTER + in;
	}
	return 0;
}

static int toy_reserve(struct image *img, uint64_t offset, uint64_t len, unsigned flags,
		       struct claim *c)
{
	struct toy *t = img->state;
	uint8_t *free = memchr(t->used, 0, sizeof(t->used));

	if (!free)
		return -ENOSPC;
	*free = 1;
	c->start = offset - offset % TOY_CLUSTER;
	c->len = TOY_CLUSTER;
	c->file = img->file;
	c->host = (uint64_t)(free - t->used) * TOY_CLUSTER;
	c->fill = true;
	return 0;
}

static int toy_write_table(struct image *img)
{
	struct toy *t = img->state;

	return file_write(img->file, 0, t->table, sizeof(t->table));
}

static int toy_commit(struct image *img, struct claim *c)
{
	struct toy *t = img->state;

	t->table[c->start / TOY_CLUSTER] = be32_make(c->host / TOY_CLUSTER);
	return toy_mistake == TOY_TABLE_AT_ONCE ? toy_write_table(img) : 0;
}

static void toy_abandon(struct image *img, struct claim *c)
{
	((struct toy *)img->state)->used[c->host / TOY_CLUSTER] = 0;
}

static int toy_unmap(struct image *img, uint64_t offset, uint64_t len, enum unmap_mode mode)
{
	struct toy *t = img->state;

	for (uint64_t i = offset / TOY_CLUSTER; i * TOY_CLUSTER < offset + len; i++) {
		uint32_t n = be32_get(t->table[i]);

		if (n)
			t->used[n] = toy_mistake == TOY_REUSES_EARLY ? 0 : 2;
		t->table[i] = be32_make(0);
	}
	return 0;
}

static int toy_flush(struct image *img)
{
	struct toy *t = img->state;
	int ret;

	if (toy_mistake == TOY_TABLE_LATE && !t->flushed_once) {
		t->flushed_once = true;
		return 0;
	}
	t->flushed_once = false;
	/* Again: others may have written and committed since the core's. */
	ret = file_flush(img->file);
	if (ret == 0)
		ret = toy_write_table(img);
	if (ret == 0)
		ret = file_flush(img->file);
	for (unsigned i = 0; ret == 0 && i < sizeof(t->used); i++)
		if (t->used[i] == 2)
			t->used[i] = 0;
	return ret;
}

static const struct format format_toy = {
	.name = "toy",
	.long_name = "for tests",
	.probe = toy_probe,
	.open = toy_open,
	.close = toy_close,
	.map = toy_map,
	.reserve = toy_reserve,
	.commit = toy_commit,
	.abandon = toy_abandon,
	.unmap = toy_unmap,
	.flush = toy_flush,
};

const struct format *const toy_formats[] = {&format_toy, NULL};
