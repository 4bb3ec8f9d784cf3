/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * For tests: what a guest does to an image, by imgfs's own library.
 *
 * usage: imgio [-f FMT] [-t CACHE] [-m MODEL] [-p N] IMAGE COMMAND...
 *
 * Each COMMAND is one argument, numbers as units_parse takes them:
 *	"write OFF LEN BYTE"  "zero OFF LEN"  "unmap OFF LEN" (zero, space may go)
 *	"discard OFF LEN"     "coded OFF BYTE" (one compressed cluster)
 *	"read OFF LEN BYTE" (fails if other bytes are there)  "flush"
 *	"random SEED COUNT" (any of those)  "verify" (all of it against the model)
 *	"abort" (ends without closing, as SIGKILL does)
 * MODEL is a raw image to which everything is done too. -p: random by N coroutines at a
 * time, each in places of its own that share clusters with the others. FMT: qcow2 unless given,
 * "probe" to have it guessed.
 */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#ifdef HAVE_ZSTD
#include <zstd.h>
#endif

#include "formats/formats.h"
#include "formats/qcow2.h"
#include "image/image.h"
#include "io/loop.h"

#define STRIPE 1536u /* of one coroutine: clusters are shared, sectors are not */
#define MAX_OP (1u << 20)
#define SECTOR 512u

static struct image *img, *model;
static unsigned parallel = 1;
static uint64_t seed;

static uint64_t rnd(uint64_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return below ? (seed >> 11) % below : 0;
}

static int failed(const char *what, uint64_t offset, uint64_t len, int ret)
{
	const char *why = image_fault_text(img);

	fprintf(stderr, "imgio: %s %" PRIu64 " %" PRIu64 ": %s\n", what, offset, len,
		why ? why : g_strerror(-ret));
	return ret;
}

/* ---- one operation, to the image and the model ------------------------------------------------
 */

static int do_write(uint64_t offset, const void *buf, size_t len)
{
	int ret = image_write(img, offset, buf, len);

	if (ret == 0 && model)
		ret = image_write(model, offset, buf, len);
	return ret < 0 ? failed("write", offset, len, ret) : 0;
}

static int do_zero(uint64_t offset, uint64_t len, bool may_unmap)
{
	int ret = image_write_zeroes(img, offset, len, may_unmap);

	if (ret == 0 && model)
		ret = image_write_zeroes(model, offset, len, true);
	return ret < 0 ? failed("zero", offset, len, ret) : 0;
}

/* Each byte is what it was, or zero; what it is goes to the model. */
static int check_discarded(uint64_t offset, const uint8_t *before, uint8_t *after, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (!after[i] || before[i] == after[i])
			continue;
		fprintf(stderr, "imgio: discard changed byte %" PRIu64 "\n", offset + i);
		return -EBADMSG;
	}
	return image_write(model, offset, after, len);
}

static int do_discard(uint64_t offset, uint64_t len)
{
	g_autofree uint8_t *before = NULL, *after = NULL;
	int ret = 0;

	if (model) {
		before = g_malloc(len);
		after = g_malloc(len);
		ret = image_read(img, offset, before, len);
	}
	if (ret == 0)
		ret = image_discard(img, offset, len);
	if (ret == 0 && model)
		ret = image_read(img, offset, after, len);
	if (ret == 0 && model)
		ret = check_discarded(offset, before, after, len);
	return ret < 0 ? failed("discard", offset, len, ret) : 0;
}

static size_t encode(const void *in, size_t len, void *out, size_t max)
{
	z_stream z = {.next_in = (void *)in, .avail_in = len, .next_out = out, .avail_out = max};
	int ret;

#ifdef HAVE_ZSTD
	if (((struct qcow2 *)img->state)->codec == &codec_zstd) {
		size_t n = ZSTD_compress(out, max, in, len, 3);

		return ZSTD_isError(n) ? 0 : n;
	}
#endif
	if (deflateInit2(&z, 1, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY) != Z_OK)
		return 0;
	ret = deflate(&z, Z_FINISH);
	deflateEnd(&z);
	return ret == Z_STREAM_END ? max - z.avail_out : 0;
}

/* One cluster from buf, which is as long. What does not become smaller is written as it is. */
static int do_coded(uint64_t offset, const void *buf)
{
	size_t len = img->cluster_size, inside = MIN(len, img->size - offset), n;
	g_autofree uint8_t *out = g_malloc(len);
	int ret;

	n = encode(buf, len, out, len - 1);
	if (!n)
		return do_write(offset, buf, inside);
	ret = image_write_coded(img, offset, out, n);
	if (ret == 0 && model)
		ret = image_write(model, offset, buf, inside);
	return ret < 0 ? failed("coded", offset, len, ret) : 0;
}

static int do_read(uint64_t offset, uint64_t len, const uint8_t *expect)
{
	g_autofree uint8_t *buf = g_malloc(len);
	int ret = image_read(img, offset, buf, len);

	if (ret < 0)
		return failed("read", offset, len, ret);
	for (uint64_t i = 0; i < len; i++) {
		if (buf[i] == expect[i])
			continue;
		fprintf(stderr, "imgio: byte %" PRIu64 " is 0x%02x, not 0x%02x\n", offset + i,
			buf[i], expect[i]);
		return -EBADMSG;
	}
	return 0;
}

static int do_verify(uint64_t offset, uint64_t len)
{
	g_autofree uint8_t *buf = g_malloc(MAX_OP);
	int ret = 0;

	if (!model) {
		fprintf(stderr, "imgio: verify needs -m\n");
		return -EINVAL;
	}
	while (ret == 0 && len > 0) {
		size_t n = MIN(len, MAX_OP);

		ret = image_read(model, offset, buf, n);
		if (ret == 0)
			ret = do_read(offset, n, buf);
		offset += n;
		len -= n;
	}
	return ret;
}

static int do_flush(void)
{
	int ret = image_flush(img);

	return ret < 0 ? failed("flush", 0, 0, ret) : 0;
}

/* ---- random -------------------------------------------------------------------------------------
 */

static void fill(uint8_t *buf, size_t len)
{
	uint8_t byte = 1 + rnd(255);

	/* Compresses well, but no two places are alike. */
	for (size_t i = 0; i < len; i++)
		buf[i] = i % 64 ? byte : rnd(256);
}

/* Mostly small, sometimes long, often at cluster boundaries. */
static void choose_range(unsigned who, uint64_t *offset, uint64_t *len)
{
	uint64_t grain = MAX(img->cluster_size, SECTOR), stripes;

	if (parallel > 1) {
		stripes = (img->size / STRIPE) / parallel;
		*offset = (rnd(stripes) * parallel + who) * STRIPE;
		*len = (1 + rnd(STRIPE / SECTOR)) * SECTOR;
		*offset += rnd((STRIPE - *len) / SECTOR + 1) * SECTOR;
		return;
	}
	*offset = rnd(img->size);
	if (rnd(3) == 0)
		*offset -= *offset % grain;
	else if (rnd(2))
		*offset -= *offset % SECTOR;
	*len = 1 + rnd(rnd(4) ? MIN(2 * grain, MAX_OP) : MAX_OP);
	if (rnd(3) == 0)
		*len = MAX(*len - *len % grain, MIN(grain, MAX_OP));
	*len = MIN(*len, img->size - *offset);
}

static int random_op(unsigned who, uint8_t *buf)
{
	unsigned kind = rnd(100);
	uint64_t offset, len;

	choose_range(who, &offset, &len);
	if (kind < 2)
		return do_flush();
	if (kind < 12)
		return do_zero(offset, len, false);
	if (kind < 22)
		return do_zero(offset, len, true);
	if (kind < 32 && parallel == 1)
		return do_discard(offset, len);
	if (kind < 42 && model)
		return do_verify(offset, len);
	if (kind < 62 && parallel == 1 && img->cluster_size && !qcow2_of(img)->external) {
		offset -= offset % img->cluster_size;
		fill(buf, img->cluster_size);
		if (img->size - offset < img->cluster_size)
			memset(buf + (img->size - offset), 0,
			       img->cluster_size - (img->size - offset));
		return do_coded(offset, buf);
	}
	fill(buf, len);
	return do_write(offset, buf, len);
}

struct actor {
	unsigned who;
	uint64_t count;
};

static int act(void *arg)
{
	struct actor *a = arg;
	uint8_t *buf = g_malloc(MAX(MAX_OP, img->cluster_size));
	int ret = 0;

	for (uint64_t i = 0; ret == 0 && i < a->count; i++) {
		ret = random_op(a->who, buf);
		co_relax();
	}
	g_free(buf);
	return ret;
}

static int do_random(uint64_t from, uint64_t count)
{
	g_autofree struct actor *actors = g_new0(struct actor, parallel);
	struct co_group group;

	seed = from * 0x9e3779b97f4a7c15u + 1;
	co_group_init(&group, parallel);
	for (unsigned i = 0; i < parallel; i++) {
		actors[i] = (struct actor){i, count / parallel};
		co_group_spawn(&group, act, &actors[i]);
	}
	return co_group_wait(&group);
}

/* ---- commands -----------------------------------------------------------------------------------
 */

static bool number(const char *word, uint64_t *value)
{
	GError *error = NULL;

	if (word && units_parse(word, "number", 0, INT64_MAX, value, &error))
		return true;
	fprintf(stderr, "imgio: %s\n", error ? error->message : "a number is missing");
	g_clear_error(&error);
	return false;
}

static int bytes_command(const char *name, const uint64_t n[3])
{
	uint64_t len = strcmp(name, "coded") ? n[1] : img->cluster_size;
	g_autofree uint8_t *buf = g_malloc(MAX(len, 1));

	memset(buf, strcmp(name, "coded") ? n[2] : n[1], len);
	if (strcmp(name, "write") == 0)
		return do_write(n[0], buf, len);
	if (strcmp(name, "coded") == 0)
		return do_coded(n[0], buf);
	return do_read(n[0], len, buf);
}

static int command(const char *line)
{
	g_auto(GStrv) words = g_strsplit(line, " ", 5);
	static const struct {
		const char *name;
		unsigned numbers;
	} table[] = {{"write", 3}, {"zero", 2},	 {"unmap", 2},	{"discard", 2}, {"coded", 2},
		     {"read", 3},  {"flush", 0}, {"random", 2}, {"verify", 0},	{"abort", 0}};
	uint64_t n[3] = {0};
	size_t i = 0;

	while (i < G_N_ELEMENTS(table) && g_strcmp0(table[i].name, words[0]) != 0)
		i++;
	if (i == G_N_ELEMENTS(table)) {
		fprintf(stderr, "imgio: unknown command '%s'\n", line);
		return -EINVAL;
	}
	for (unsigned k = 0; k < table[i].numbers; k++)
		if (!number(g_strv_length(words) > k + 1 ? words[k + 1] : NULL, &n[k]))
			return -EINVAL;
	if (i == 0 || i == 4 || i == 5)
		return bytes_command(table[i].name, n);
	switch (i) {
	case 1:
	case 2:
		return do_zero(n[0], n[1], i == 2);
	case 3:
		return do_discard(n[0], n[1]);
	case 6:
		return do_flush();
	case 7:
		return do_random(n[0], n[1]);
	case 8:
		return do_verify(0, img->size);
	default:
		_exit(0);
	}
}

static struct image *open_image(const char *name, const char *format, enum cache_mode cache)
{
	struct image_open_options o = {.format = format, .flags = IMAGE_RDWR, .cache = cache};
	GError *error = NULL;
	struct image *opened = image_open(name, &o, &error);

	if (!opened)
		fprintf(stderr, "imgio: %s\n", error->message);
	g_clear_error(&error);
	return opened;
}

struct setup {
	const char *format, *model;
	enum cache_mode cache;
	char **words;
};

static int main_co(void *arg)
{
	const struct setup *s = arg;
	int ret = 0;

	img = open_image(s->words[0], s->format, s->cache);
	if (img && s->model)
		model = open_image(s->model, "raw", CACHE_UNSAFE);
	if (!img || (s->model && !model))
		ret = -EINVAL;
	for (char **w = s->words + 1; ret == 0 && *w; w++)
		ret = command(*w);
	if (img && ret == 0)
		ret = do_flush();
	image_unref(img);
	image_unref(model);
	return ret;
}

int main(int argc, char **argv)
{
	struct setup s = {.format = "qcow2", .cache = CACHE_WRITEBACK};
	struct loop *loop;
	int opt, ret;

	while ((opt = getopt(argc, argv, "+f:t:m:p:")) != -1) {
		if (opt == 'f')
			s.format = strcmp(optarg, "probe") ? optarg : NULL;
		else if (opt == 'm')
			s.model = optarg;
		else if (opt == 'p')
			parallel = MAX(1, atoi(optarg));
		else if (opt != 't' || !cache_mode_parse(optarg, &s.cache))
			return 2;
	}
	if (optind >= argc)
		return 2;
	s.words = argv + optind;
	image_set_formats(formats_table);
	loop = loop_new(NULL);
	ret = loop ? loop_run(loop, main_co, &s) : -ENOMEM;
	loop_free(loop);
	return ret < 0 ? 1 : 0;
}
