/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Do the power cuts find what they are made to find? A toy format loses nothing while its order of
 * writes is right, and is caught with each of its mistakes.
 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>

#include "tests/crash/guest.h"
#include "tests/crash/toy-format.h"

struct self {
	struct guest *guest;
	uint64_t seed;
};

static int prepare(void *arg)
{
	struct self *s = arg;
	struct disk d = {.size = TOY_SIZE, .bytes = g_malloc0(TOY_SIZE)};

	s->guest = guest_new(&d);
	return shell(NULL, "truncate -s 512 disk.toy") ? 0 : 1;
}

struct work {
	struct self *self;
	struct record_log *log;
};

static int work(void *arg)
{
	struct work *w = arg;
	struct image_open_options o = {.format = "toy", .flags = IMAGE_RDWR};
	struct image *img = image_open("disk.toy", &o, NULL);
	struct guest_work gw = {.seed = w->self->seed,
				.batches = 30,
				.concurrent = 4,
				.max_len = 4096,
				.discards = true,
				.zeroes = true};
	int ret;

	if (!img)
		return 1;
	record_log_yield(w->log, true);
	ret = guest_work(w->self->guest, img, w->log, &gw);
	image_unref(img);
	return ret;
}

static int run(void *arg, struct record_log *log)
{
	struct work w = {.self = arg, .log = log};

	return run_in_loop(work, &w);
}

static int read_toy(void *arg)
{
	struct disk *d = arg;
	struct image_open_options o = {.format = "toy"};
	struct image *img = image_open("disk.toy", &o, NULL);
	int ret;

	if (!img)
		return -1;
	d->size = img->size;
	d->bytes = g_malloc(d->size);
	ret = image_read(img, 0, d->bytes, d->size);
	image_unref(img);
	return ret;
}

static bool judge(void *arg, const struct cut *cut, GError **error)
{
	struct self *s = arg;
	struct disk d = {0};
	bool ok =
		run_in_loop(read_toy, &d) == 0 && guest_allows(s->guest, cut->position, &d, error);

	disk_clear(&d);
	return ok;
}

int main(int argc, char **argv)
{
	static const char *const names[] = {"right order", "table at once", "table late",
					    "reuses early"};
	struct crash_options o = {.cuts = 1500, .seeds = 6, .quiet = true};
	bool as_it_should = true;

	crash_options_parse(&o, argc, argv);
	image_set_formats(toy_formats);
	for (toy_mistake = TOY_RIGHT; toy_mistake < TOY_MISTAKES; toy_mistake++) {
		struct crash_counts counts = {0};
		bool good;

		for (uint64_t seed = 1; seed <= 3 && !counts.failures; seed++) {
			struct self self = {.seed = seed};
			struct plan plan = {names[toy_mistake], prepare, run, judge, &self};

			crash_run(&plan, &o, &counts);
			guest_free(self.guest);
		}
		/* The mistakes print what was found, which reads like a failure: say which it is.
		 */
		good = toy_mistake == TOY_RIGHT ? counts.failures == 0 : counts.failures > 0;
		printf("%s: %u cuts, %s: %s\n", names[toy_mistake], counts.cuts,
		       counts.failures ? "caught" : "nothing found",
		       good ? "as it should be" : "WRONG");
		as_it_should &= good && counts.cuts > 0;
	}
	return as_it_should ? 0 : 1;
}
