/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* imgtool bench: reading and writing. */
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
	{'w', "write", NULL, "write instead of reading"},
	{OPT_FLUSH_INTERVAL, "flush-interval", "N", "flush after so many writes"},
	{OPT_NO_DRAIN, "no-drain", NULL, "flush without waiting for the queue"},
	{OPT_PATTERN, "pattern", "BYTE", "what to write (default: 0)"},
	OPT_QUIET,
	OPTS_OPEN,
	{0},
};

struct bench {
	struct image *img;
	uint64_t count, depth, size, step, offset;
	bool write, no_drain;
	uint64_t pattern, interval;
	uint64_t begun, running; /* requests */
	uint64_t next;		 /* offset of the next one */
	bool flushing;		 /* no request begins until all others ended and were flushed */
	struct co_queue flushed;
};

/* A request that passes the end fails as a device would fail it. */
static int transfer(struct bench *b, uint64_t at, void *buf)
{
	if (at > b->img->size || b->size > b->img->size - at)
		return -EIO;
	return b->write ? image_write(b->img, at, buf, b->size)
			: image_read(b->img, at, buf, b->size);
}

/* After the request that completes an interval. Drained: the last of those under way flushes. */
static int flush_interval(struct bench *b, bool due)
{
	int ret;

	if (due && b->no_drain)
		return image_flush(b->img);
	if (!b->flushing || b->running > 0)
		return 0;
	ret = image_flush(b->img);
	b->flushing = false;
	co_queue_wake_all(&b->flushed);
	return ret;
}

static int request(struct bench *b, void *buf)
{
	uint64_t at = b->next;
	bool due = b->interval && ++b->begun % b->interval == 0;
	int ret;

	if (!b->interval)
		b->begun++;
	b->next += b->step;
	if (b->img->size)
		b->next %= b->img->size;
	b->flushing = due && !b->no_drain;
	b->running++;
	ret = transfer(b, at, buf);
	b->running--;
	return ret < 0 ? ret : flush_interval(b, due);
}

static int worker(void *arg)
{
	struct bench *b = arg;
	void *buf = NULL;
	int ret = 0;

	if (posix_memalign(&buf, 4096, MAX(b->size, 4096)) != 0)
		return -ENOMEM;
	memset(buf, (int)b->pattern, b->size);
	while (ret == 0 && b->begun < b->count) {
		while (b->flushing)
			co_queue_wait(&b->flushed);
		if (b->begun < b->count)
			/* A writer that is stopped leaves the image whole. */
			ret = tool_interrupted() ? -EINTR : request(b, buf);
	}
	/* Nobody waits for a flush that will not come. */
	if (ret < 0) {
		b->begun = b->count;
		b->flushing = false;
		co_queue_wake_all(&b->flushed);
	}
	free(buf);
	return ret;
}

static int bench(struct bench *b)
{
	struct co_group group;
	uint64_t start, end;
	int ret;

	printf("Sending %" G_GUINT64_FORMAT " %s requests, %" G_GUINT64_FORMAT
	       " bytes each, %" G_GUINT64_FORMAT
	       " in parallel (starting at offset %" G_GUINT64_FORMAT
	       ", step size %" G_GUINT64_FORMAT ")\n",
	       b->count, b->write ? "write" : "read", b->size, b->depth, b->offset, b->step);
	if (b->interval)
		printf("Sending flush every %" G_GUINT64_FORMAT " requests\n", b->interval);
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
	if (!number(args, 'c', INT_MAX, "Invalid request count specified", &b->count) ||
	    !number(args, 'd', INT_MAX, "Invalid queue depth specified", &b->depth) ||
	    !number(args, OPT_PATTERN, 0xff, "Invalid pattern byte specified", &b->pattern) ||
	    !number(args, OPT_FLUSH_INTERVAL, INT_MAX, "Invalid flush interval specified",
		    &b->interval) ||
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
	if (b->interval && !opt_given(args, 'w')) {
		tool_error("--flush-interval is only available in write tests");
		return false;
	}
	if (b->interval && b->interval < b->depth) {
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
	b.write = opt_given(args, 'w');
	b.no_drain = opt_given(args, OPT_NO_DRAIN);
	if (b.write)
		s.flags |= IMAGE_RDWR;
	if (b.write && opt_given(args, 'U')) {
		tool_error("Could not open '%s': force-share=on can only be used with read-only "
			   "images",
			   args->operands[0]);
		return 1;
	}
	b.img = tool_check_common(args) ? tool_open(args, args->operands[0], &s) : NULL;
	if (!b.img)
		return 1;
	b.next = b.offset;
	status = bench(&b);
	return tool_close(b.img, status);
}

const struct command command_bench = {
	.name = "bench",
	.run = run,
	.options = options,
	.operands = "FILE",
	.summary = "Measure how fast an image is read or written",
	.examples = {"bench disk.qcow2", "bench -w --flush-interval=64 scratch.qcow2",
		     "bench -t none -n disk.qcow2"},
};
