/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A commit of an image that is read and written meanwhile. */
#include "config.h"

#include <string.h>
#include <unistd.h>

#include "formats/formats.h"
#include "image/commit.h"
#include "image/image.h"
#include "io/file-fault.h"
#include "tests/unit/in-loop.h"

#define TOP    "test-commit.top"
#define BASE   "test-commit.base"
#define SIZE   (3u << 20)
#define ACTORS 4u

struct disk {
	struct image *top;
	uint8_t *model;
	uint64_t seed;
	bool stop;
	uint64_t steps, cancel_at; /* cancel_at: progress reports until it is cancelled; 0: never */
};

struct kind {
	const char *base_format, *base_cluster, *top_cluster;
	uint64_t base_size;
	bool coded; /* the base has compressed clusters */
};

static uint64_t rnd(struct disk *d, uint64_t n)
{
	d->seed = d->seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (d->seed >> 33) % n;
}

/* Files that let others run in front of every request. */
static struct file *slow(struct file *opened, void *arg)
{
	struct file *f = file_new_fault(opened);

	file_unref(opened);
	file_fault_yield(f, true);
	return f;
}

static void create(const char *name, const char *format, const char *cluster, uint64_t size,
		   bool overlay)
{
	struct options *o = options_new();
	g_autofree char *text = g_strdup_printf("%" G_GUINT64_FORMAT, size);
	GError *error = NULL;

	options_set(o, "size", text);
	if (cluster)
		options_set(o, "cluster_size", cluster);
	if (overlay) {
		options_set(o, "backing_file", BASE);
		options_set(o, "backing_fmt", strcmp(format, "raw") ? "qcow2" : "raw");
	}
	unlink(name);
	if (!image_create(name, image_find_format(overlay ? "qcow2" : format, NULL), o, &error))
		fail_msg("%s", error->message);
	options_free(o);
}

static struct image *open_it(const char *name, const char *format, unsigned flags)
{
	struct image_open_options o = {.format = format, .flags = flags};
	GError *error = NULL;
	struct image *img = image_open(name, &o, &error);

	if (!img)
		fail_msg("%s", error->message);
	return img;
}

static void fill_base(const struct kind *k, uint8_t *model)
{
	struct image *base = open_it(BASE, k->base_format, IMAGE_RDWR);
	uint64_t len = MIN(base->size, SIZE);

	for (uint64_t at = 0; at < len; at++)
		model[at] = (uint8_t)(at >> 9 | 1);
	if (k->coded) {
		uint64_t unit = base->cluster_size;
		g_autofree uint8_t *coded = g_malloc(unit);

		for (uint64_t at = 0; at + unit <= len; at += unit) {
			int64_t n = base->codec->encode(model + at, unit, coded, unit - 1, 0);

			assert_true(n > 0);
			assert_int_equal(image_write_coded(base, at, coded, (size_t)n), 0);
		}
	} else {
		assert_int_equal(image_write(base, 0, model, len), 0);
	}
	assert_int_equal(image_flush(base), 0);
	image_unref(base);
}

static void begin(struct disk *d, const struct kind *k, uint64_t seed)
{
	*d = (struct disk){.seed = seed, .model = g_malloc0(SIZE)};
	create(BASE, k->base_format, k->base_cluster, k->base_size, false);
	fill_base(k, d->model);
	create(TOP, k->base_format, k->top_cluster, SIZE, true);
	file_set_wrapper(slow, NULL);
	d->top = open_it(TOP, "qcow2", IMAGE_RDWR);
	file_set_wrapper(NULL, NULL);
}

static void expect_model(struct disk *d, struct image *img)
{
	g_autofree uint8_t *now = g_malloc(SIZE);

	assert_int_equal(image_read(img, 0, now, SIZE), 0);
	for (uint64_t at = 0; at < SIZE; at++)
		if (now[at] != d->model[at])
			fail_msg("byte %" G_GUINT64_FORMAT " is %02x, not %02x", at, now[at],
				 d->model[at]);
}

static void expect_clean(const char *name)
{
	struct check_options o = {0};
	struct check_result r;
	struct image *img = open_it(name, "qcow2", IMAGE_FOR_CHECK);

	assert_true(image_check(img, &o, &r, NULL));
	assert_int_equal(r.corruptions + r.check_errors + r.leaks, 0);
	image_unref(img);
}

static void end(struct disk *d, const struct kind *k)
{
	struct image *base;

	expect_model(d, d->top);
	image_unref(d->top);
	d->top = open_it(TOP, "qcow2", 0);
	expect_model(d, d->top);
	image_unref(d->top);
	expect_clean(TOP);
	if (!strcmp(k->base_format, "qcow2"))
		expect_clean(BASE);
	base = open_it(BASE, k->base_format, 0);
	assert_true(base->size >= k->base_size);
	image_unref(base);
	g_free(d->model);
	unlink(TOP);
	unlink(BASE);
}

/* ---- the guest ------------------------------------------------------------------------------- */

struct actor {
	struct disk *d;
	unsigned who;
};

/* Stripes, so that each actor knows what its bytes are; clusters are shared with the others. */
#define STRIPE 1536u

static void step(struct disk *d, unsigned who)
{
	uint64_t offset = (rnd(d, SIZE / STRIPE / ACTORS) * ACTORS + who) * STRIPE;
	uint64_t len = 1 + rnd(d, STRIPE), kind = rnd(d, 12);
	uint8_t buf[STRIPE];
	int ret;

	if (kind < 4) {
		assert_int_equal(image_read(d->top, offset, buf, len), 0);
		assert_memory_equal(buf, d->model + offset, len);
		return;
	}
	memset(buf, kind == 4 ? 0 : 1 + (int)rnd(d, 255), len);
	ret = kind == 4 ? image_write_zeroes(d->top, offset, len, true)
			: image_write(d->top, offset, buf, len);
	assert_int_equal(ret, 0);
	memcpy(d->model + offset, buf, len);
	if (kind == 11 && rnd(d, 20) == 0)
		assert_int_equal(image_flush(d->top), 0);
}

static int act(void *arg)
{
	struct actor *a = arg;

	while (!a->d->stop) {
		step(a->d, a->who);
		a->d->steps++;
		co_relax();
	}
	return 0;
}

static void reported(void *arg, uint64_t done, uint64_t total)
{
	struct disk *d = arg;

	assert_true(done <= total);
	if (d->cancel_at > 1)
		d->cancel_at--;
}

static bool is_cancelled(void *arg)
{
	return ((struct disk *)arg)->cancel_at == 1;
}

static bool commit(struct disk *d, GError **error)
{
	struct commit_job job = {
		.top = d->top,
		.base = d->top->backing,
		.empty = true,
		.live = true,
		.coroutines = 4,
		.progress = reported,
		.cancelled = is_cancelled,
		.arg = d,
	};

	return image_commit(&job, error);
}

/* The base alone has what the disk had when the last commit ended. */
static void expect_base(struct disk *d, const struct kind *k)
{
	struct image *base = open_it(BASE, k->base_format, IMAGE_FORCE_SHARE);

	expect_model(d, base);
	image_unref(base);
}

static const struct kind kinds[] = {
	{"raw", NULL, "4096", SIZE, false},	    {"raw", NULL, "65536", 1u << 20, false},
	{"qcow2", "65536", "4096", SIZE, false},    {"qcow2", "65536", "4096", SIZE, true},
	{"qcow2", "4096", "65536", 2u << 20, true}, {"qcow2", "512", "65536", SIZE, false},
};

static int commits_while_writing(void *arg)
{
	for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++) {
		struct disk d;
		struct actor actors[ACTORS];
		struct co_group group;
		GError *error = NULL;

		begin(&d, &kinds[i], 77 + i);
		co_group_init(&group, ACTORS);
		for (unsigned who = 0; who < ACTORS; who++) {
			actors[who] = (struct actor){&d, who};
			co_group_spawn(&group, act, &actors[who]);
		}
		for (unsigned n = 0; n < 3; n++) {
			uint64_t seen = d.steps;

			while (d.steps < seen + 200)
				co_relax();
			seen = d.steps;
			if (!commit(&d, &error))
				fail_msg("%s", error->message);
			/* The disk was in use all the time. */
			assert_true(d.steps > seen + 20);
			assert_false(d.top->backing->flags & IMAGE_RDWR);
		}
		d.stop = true;
		assert_int_equal(co_group_wait(&group), 0);
		if (!commit(&d, &error))
			fail_msg("%s", error->message);
		expect_base(&d, &kinds[i]);
		end(&d, &kinds[i]);
	}
	return 0;
}

static int cancelled(void *arg)
{
	for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++) {
		struct disk d;
		GError *error = NULL;

		begin(&d, &kinds[i], 5);
		for (unsigned n = 0; n < 600; n++)
			step(&d, 0);
		d.cancel_at = 2;
		assert_false(commit(&d, &error));
		assert_non_null(strstr(error->message, "cancelled"));
		g_clear_error(&error);
		expect_model(&d, d.top);
		d.cancel_at = 0;
		assert_true(commit(&d, NULL));
		expect_base(&d, &kinds[i]);
		end(&d, &kinds[i]);
	}
	return 0;
}

struct second {
	struct disk *d;
	bool busy, resize_refused;
};

static int try_others(void *arg)
{
	struct second *s = arg;
	GError *error = NULL;

	while (!s->d->top->backing || !(s->d->top->backing->flags & IMAGE_RDWR))
		co_relax();
	s->busy = !commit(s->d, &error) && g_error_matches(error, IMAGE_ERROR, IMAGE_ERROR_BUSY);
	g_clear_error(&error);
	s->resize_refused = !image_resize(s->d->top, SIZE * 2, NULL, &error) &&
			    g_error_matches(error, IMAGE_ERROR, IMAGE_ERROR_BUSY);
	g_clear_error(&error);
	return 0;
}

static int refusals(void *arg)
{
	struct second s = {0};
	struct co_group group;
	struct image *other;
	struct disk d;
	GError *error = NULL;

	begin(&d, &kinds[2], 9);
	for (unsigned n = 0; n < 600; n++)
		step(&d, 0);
	s.d = &d;
	co_group_init(&group, 1);
	co_group_spawn(&group, try_others, &s);
	assert_true(commit(&d, NULL));
	assert_int_equal(co_group_wait(&group), 0);
	assert_true(s.busy && s.resize_refused);

	/* Somebody else uses the base: the top stays as it is, and in use. */
	other = open_it(BASE, "qcow2", 0);
	step(&d, 1);
	/* Shared in this process, so it is another descriptor that must be in the way. */
	if (other != d.top->backing) {
		assert_false(commit(&d, &error));
		assert_non_null(strstr(error->message, BASE));
		g_clear_error(&error);
		expect_model(&d, d.top);
	}
	image_unref(other);
	assert_true(commit(&d, NULL));

	assert_true(image_snapshot_create(d.top, "one", NULL));
	assert_false(commit(&d, &error));
	assert_non_null(strstr(error->message, "internal snapshots"));
	g_clear_error(&error);
	end(&d, &kinds[2]);
	return 0;
}

TEST_IN_LOOP(commits_while_writing, commits_while_writing)
TEST_IN_LOOP(cancelled, cancelled)
TEST_IN_LOOP(refusals, refusals)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_commits_while_writing),
		cmocka_unit_test(test_cancelled),
		cmocka_unit_test(test_refusals),
	};

	fail_by_abort();
	image_set_formats(formats_table);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
