/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading ahead of sequential readers, for coded units only: plain data is
 * read ahead by the kernel. A few streams are remembered; a read that
 * begins where one of them ended grows its window, any other begins anew.
 */
#include "config.h"

#include "image/core.h"

#define WINDOW_FIRST (256u << 10)
#define WINDOW_MAX   (1u << 20)

struct ahead {
	struct image *img;
	uint64_t offset, end;
	bool data_too;
};

/* Maps what lies ahead and sets units to be decoded. Yields; nobody waits for it but image_unref.
 */
static void run_ahead(void *arg)
{
	struct ahead *a = arg;

	while (a->offset < a->end) {
		struct extent e;

		if (image_map(a->img, a->offset, a->end - a->offset, NULL, &e) < 0)
			break; /* told when it is really read */
		if (e.kind == EXTENT_CODED)
			codec_prefetch(&e);
		else if (e.kind == EXTENT_DATA && a->data_too)
			file_readahead(e.file, e.host, e.len);
		a->offset += e.len;
	}
	image_background_end(a->img);
	g_free(a);
}

static void start_ahead(struct image *img, uint64_t offset, uint64_t end, bool data_too)
{
	struct ahead *a;

	end = MIN(end, img->size);
	if (offset >= end)
		return;
	a = g_new(struct ahead, 1);
	*a = (struct ahead){img, offset, end, data_too};
	image_background_begin(img);
	co_spawn(run_ahead, a);
}

static struct read_stream *find_stream(struct image_core *core, uint64_t offset)
{
	struct read_stream *oldest = &core->streams[0];

	for (int i = 0; i < READ_STREAMS; i++) {
		struct read_stream *s = &core->streams[i];

		/* Requests of one reader may arrive slightly out of order. */
		if (s->used && offset >= s->next && offset - s->next <= WINDOW_FIRST)
			return s;
		if (s->used < oldest->used)
			oldest = s;
	}
	*oldest = (struct read_stream){0};
	return oldest;
}

void readahead_note(struct image *img, uint64_t offset, uint64_t len)
{
	uint64_t end = offset + len, from;
	struct read_stream *s;

	if ((img->flags & IMAGE_NO_READ_AHEAD) || !codec_reads_ahead())
		return;
	s = find_stream(img->core, offset);
	if (!s->used) {
		/* One read is not yet a sequence. */
		s->ahead = end;
		s->window = WINDOW_FIRST / 2;
	} else {
		s->window = MIN(s->window * 2, WINDOW_MAX);
	}
	s->used = ++img->core->stream_clock;
	s->next = end;
	if (s->window < WINDOW_FIRST)
		return;
	from = MAX(s->ahead, end);
	/* In steps of half a window: fewer walks, and each keeps all workers busy. */
	if (end + s->window < from + s->window / 2)
		return;
	s->ahead = end + s->window;
	start_ahead(img, from, s->ahead, false);
}

void image_readahead(struct image *img, uint64_t offset, uint64_t len)
{
	if (offset < img->size)
		start_ahead(img, offset, offset + MIN(len, img->size - offset), true);
}
