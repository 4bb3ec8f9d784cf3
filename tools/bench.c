/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* imgtool bench: reading. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/loop.h"
#include "tools/tool.h"

static const struct opt options[] = {
	{'c', "count", "N", "how many requests (default: 75000)"},
	{'d', "depth", "N", "how many at a time (default: 64)"},
	OPT_FORMAT,
	{'i', "aio", "threads|native|io_uring", "the I/O engine"},
	{'n', "native", NULL, "the same as -i native"},
	{'o', "offset", "OFFSET", "where the first request begins (default: 0)"},
	{'s', "buffer-size", "SIZE", "bytes of a request (default: 4096)"},
	{'S', "step-size", "SIZE", "from one request to the next (default: buffer size)"},
	{'t', "cache", "CACHE", "cache mode (default: writeback)"},
	{'w', "write", NULL, "write (not in this version)"},
	{OPT_FLUSH_INTERVAL, "flush-interval", "N", "flush after so many writes"},
	{OPT_NO_DRAIN, "no-drain", NULL, "flush without waiting for the queue"},
	{OPT_PATTERN, "pattern", "BYTE", "what to write"},
	OPT_QUIET,
	OPTS_OPEN,
	{0},
};

struct bench {
	struct image *img;
	uint64_t count, depth, size, step, offset;
	uint64_t begun; /* requests */
	uint64_t next;	/* offset of the next one */
};

static int worker(void *arg)
{
	struct bench *b = arg;
	void *buf = NULL;
	int ret = 0;

	if (posix_memalign(&buf, 4096, MAX(b->size, 4096)) != 0)
		return -ENOMEM;
	while (ret == 0 && b->begun < b->count) {
		uint64_t at = b->next;

		b->begun++;
		b->next += b->step;
		if (b->img->size)
			b->next %= b->img->size;
		/* A request that passes the end fails as a device would fail it. */
		ret = at > b->img->size || b->size > b->img->size - at
			      ? -EIO
			      : image_read(b->img, at, buf, b->size);
	}
	free(buf);
	return ret;
}

static int bench(struct bench *b)
{
	struct co_group group;
	uint64_t start, end;
	int ret;

	printf("Sending %" G_GUINT64_FORMAT " read requests, %" G_GUINT64_FORMAT
	       " bytes each, %" G_GUINT64_FORMAT
	       " in parallel (starting at offset %" G_GUINT64_FORMAT
	       ", step size %" G_GUINT64_FORMAT ")\n",
	       b->count, b->size, b->depth, b->offset, b->step);
	fflush(stdout);
	start = loop_now();
	co_group_init(&group, MIN(b->depth, UINT_MAX));
	for (uint64_t i = 0; i < MIN(b->depth, b->count); i++)
		co_group_spawn(&group, worker, b);
	ret = co_group_wait(&group);
	end = loop_now();
	if (ret < 0) {
		tool_error("Failed request: %s", g_strerror(-ret));
		return 1;
	}
	printf("Run completed in %3.3f seconds.\n", (double)(end - start) / 1e9);
	return 0;
}

static bool number(const struct args *args, int id, uint64_t max, const char *wrong,
		   uint64_t *value)
{
	const char *text = opt_value(args, id);
	char *end;

	if (!text)
		return true;
	errno = 0;
	*value = strtoull(text, &end, 0);
	if (!errno && g_ascii_isdigit(*text) && *end == '\0' && *value <= max)
		return true;
	tool_error("%s", wrong);
	return false;
}

static bool size(const struct args *args, int id, const char *what, uint64_t max, uint64_t *value)
{
	const char *text = opt_value(args, id);

	return !text || tool_size(text, what, 0, max, value);
}

static bool read_numbers(const struct args *args, struct bench *b)
{
	uint64_t pattern = 0, interval = 0;

	if (!number(args, 'c', INT_MAX, "Invalid request count specified", &b->count) ||
	    !number(args, 'd', INT_MAX, "Invalid queue depth specified", &b->depth) ||
	    !number(args, OPT_PATTERN, 0xff, "Invalid pattern byte specified", &pattern) ||
	    !number(args, OPT_FLUSH_INTERVAL, INT_MAX, "Invalid flush interval specified",
		    &interval) ||
	    !size(args, 'o', "offset", INT64_MAX, &b->offset) ||
	    !size(args, 's', "buffer size", INT_MAX, &b->size) ||
	    !size(args, 'S', "step_size", INT_MAX, &b->step))
		return false;
	if (!opt_value(args, 'S'))
		b->step = b->size;
	if (b->depth == 0 || b->depth > 65536) {
		/* qemu-img waits for ever on a queue of none. */
		tool_error("Invalid queue depth specified");
		return false;
	}
	if (interval && !opt_given(args, 'w')) {
		tool_error("--flush-interval is only available in write tests");
		return false;
	}
	if (interval && interval < b->depth) {
		tool_error("Flush interval can't be smaller than depth");
		return false;
	}
	return true;
}

static int run(struct args *args)
{
	struct bench b = {.count = 75000, .depth = 64, .size = 4096};
	struct tool_source s = {.format = opt_value(args, 'f'),
				.cache = opt_value(args, 't'),
				.with_image_opts = opt_given(args, OPT_IMAGE_OPTS)};
	const char *aio = opt_value(args, 'i');
	enum cache_mode mode;
	int status;

	if (opt_given(args, 'n'))
		s.aio = AIO_NATIVE;
	if (aio && !aio_engine_parse(aio, &s.aio)) {
		tool_error("Invalid aio option: %s", aio);
		return 1;
	}
	if (s.cache && !cache_mode_parse(s.cache, &mode)) {
		tool_error("Invalid cache mode");
		return 1;
	}
	if (!read_numbers(args, &b))
		return 1;
	if (args->n != 1)
		return tool_usage(args, "Expecting one image file name");
	if (opt_given(args, 'w')) {
		tool_error("Writing is not available in this version: bench reads only");
		return 1;
	}
	b.img = tool_check_common(args) ? tool_open(args, args->operands[0], &s) : NULL;
	if (!b.img)
		return 1;
	b.next = b.offset;
	status = bench(&b);
	image_unref(b.img);
	return status;
}

const struct command command_bench = {
	.name = "bench",
	.run = run,
	.options = options,
	.operands = "FILE",
	.summary = "Measure how fast an image is read",
	.examples = {"bench disk.qcow2", "bench -c 1000 -d 8 -s 64k disk.qcow2",
		     "bench -t none -n disk.qcow2"},
};
