/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "fs/open.h"

#include "fs/log.h"
#include "image/cache.h"

static void warn(void *arg, const char *sentence)
{
	log_message("%s", sentence);
}

static struct gate *make_gate(const struct mount_options *o, GError **error)
{
	struct gate *gate = gate_new(o->allow_references->len ? GATE_DIRS : GATE_DEFAULT);

	for (unsigned i = 0; i < o->allow_references->len; i++) {
		if (!gate_allow(gate, g_ptr_array_index(o->allow_references, i), error)) {
			gate_free(gate);
			return NULL;
		}
	}
	return gate;
}

/* The budget of the metadata cache is that of the mount: each tree gets its share. */
static size_t cache_share(const struct mount_options *o, unsigned loops)
{
	size_t cache = o->cache_size ? o->cache_size : CACHE_DEFAULT_SIZE;

	return MAX(cache / loops, 1);
}

struct image *open_mounted(const struct mount_options *o, unsigned loops, bool first,
			   struct gate **gate, GError **error)
{
	struct image_open_options open = {
		.format = o->format,
		.aio = AIO_AUTO,
		.cache_size = cache_share(o, loops),
		.warn = first ? warn : NULL,
	};

	*gate = open.gate = make_gate(o, error);
	return *gate ? image_open(o->image, &open, error) : NULL;
}

bool open_same_chain(struct image *a, struct image *b)
{
	for (; a && b; a = a->backing, b = b->backing) {
		if (!stat_same_file(file_stat(a->file), file_stat(b->file)) || a->size != b->size ||
		    a->format != b->format)
			return false;
	}
	return !a && !b;
}
