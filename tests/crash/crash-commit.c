/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Commits of an overlay that a guest writes to meanwhile, cut anywhere: the overlay's disk has all
 * that was flushed, whatever its backing file has got of it; both are sound; and a second commit
 * brings the whole disk into the backing file.
 */
#include "config.h"

#include <stdio.h>
#include <string.h>

#include "formats/formats.h"
#include "image/commit.h"
#include "tests/crash/guest.h"

#define TOP "top.qcow2"

struct kind {
	const char *name, *base, *prepare;
	unsigned depth;	      /* of the base below the top */
	const char *snapshot; /* of the base */
};

#define FILL	 "qemu-io -c 'write -q -P 9 0 300k' -c 'write -q -z 50k 10k' "
#define TOP_FILL "qemu-io -c 'write -q -P 7 20k 200k' -c 'write -q -P 8 350k 30k' " TOP

static const struct kind kinds[] = {
	{"raw", "base.raw",
	 "qemu-img create -q -f raw base.raw 512k; "
	 "qemu-io -f raw -c 'write -q -P 9 0 300k' base.raw; "
	 "qemu-img create -q -f qcow2 -o cluster_size=4k -b base.raw -F raw " TOP "; " TOP_FILL,
	 1},
	{"raw shorter", "base.raw",
	 "qemu-img create -q -f raw base.raw 150k; "
	 "qemu-io -f raw -c 'write -q -P 9 0 150k' base.raw; "
	 "qemu-img create -q -f qcow2 -o cluster_size=64k -b base.raw -F raw " TOP
	 " 512k; " TOP_FILL,
	 1},
	{"qcow2", "base.qcow2",
	 "qemu-img create -q -f qcow2 -o cluster_size=4k base.qcow2 512k; " FILL "base.qcow2; "
	 "qemu-img create -q -f qcow2 -o cluster_size=1k -b base.qcow2 -F qcow2 " TOP "; " TOP_FILL,
	 1},
	{"qcow2 shorter, lazy", "base.qcow2",
	 "qemu-img create -q -f qcow2 -o cluster_size=1k,lazy_refcounts=on base.qcow2 310k; " FILL
	 "base.qcow2; "
	 "qemu-img create -q -f qcow2 -o cluster_size=16k,extended_l2=on -b base.qcow2 -F "
	 "qcow2 " TOP " 512k; " TOP_FILL,
	 1},
	{"qcow2 compressed", "base.qcow2",
	 "qemu-img create -q -f raw base.raw 512k; "
	 "qemu-io -f raw -c 'write -q -P 9 0 512k' base.raw; "
	 "qemu-img convert -q -c -O qcow2 -o cluster_size=16k base.raw base.qcow2; rm base.raw; "
	 "qemu-img create -q -f qcow2 -o cluster_size=4k -b base.qcow2 -F qcow2 " TOP "; " TOP_FILL,
	 1},
	{"qcow2 snapshot", "base.qcow2",
	 "qemu-img create -q -f qcow2 -o cluster_size=4k base.qcow2 512k; " FILL "base.qcow2; "
	 "qemu-img snapshot -c s base.qcow2; "
	 "qemu-img create -q -f qcow2 -o cluster_size=4k,lazy_refcounts=on -b base.qcow2 -F "
	 "qcow2 " TOP "; " TOP_FILL,
	 1, "s"},
	{"qcow2 deeper", "base.qcow2",
	 "qemu-img create -q -f qcow2 -o cluster_size=4k base.qcow2 512k; " FILL "base.qcow2; "
	 "qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 mid.qcow2; "
	 "qemu-io -c 'write -q -P 5 100k 190k' mid.qcow2; "
	 "qemu-img create -q -f qcow2 -o cluster_size=1k -b mid.qcow2 -F qcow2 " TOP "; " TOP_FILL,
	 2},
};

struct cutting {
	const struct kind *kind;
	uint64_t seed;
	struct guest *guest;
	struct disk snapshot;
};

static int prepare(void *arg)
{
	struct cutting *c = arg;
	struct disk before = {0};
	GError *error = NULL;

	if (!shell(&error, "set -e; %s", c->kind->prepare) ||
	    !disk_read(TOP, NULL, &before, &error) ||
	    (c->kind->snapshot &&
	     !disk_read(c->kind->base, c->kind->snapshot, &c->snapshot, &error))) {
		fprintf(stderr, "%s\n", error->message);
		g_error_free(error);
		return 1;
	}
	c->guest = guest_new(&before);
	return 0;
}

/* ---- what is recorded ------------------------------------------------------------------------ */

struct work {
	struct cutting *c;
	struct record_log *log;
	struct image *top;
	bool guest_ended;
	unsigned left; /* questions whether to go on before one commit is cancelled; 0: never */
};

static struct image *below(struct image *img, unsigned depth)
{
	while (img && depth--)
		img = img->backing;
	return img;
}

static int guest(void *arg)
{
	struct work *w = arg;
	const struct guest_work gw = {.seed = w->c->seed,
				      .batches = 40,
				      .concurrent = 4,
				      .max_len = 30000,
				      .discards = true,
				      .zeroes = true};
	int ret = guest_work(w->c->guest, w->top, w->log, &gw);

	w->guest_ended = true;
	return ret;
}

static bool is_cancelled(void *arg)
{
	struct work *w = arg;

	if (w->left)
		w->left--;
	return w->left == 1;
}

/* One after another as long as the guest works, the first of them cancelled, and one more. */
static int commits(void *arg)
{
	struct work *w = arg;
	const struct commit_job job = {
		.top = w->top,
		.base = below(w->top, w->c->kind->depth),
		.empty = w->c->kind->depth == 1,
		.live = true,
		.coroutines = 4,
		.cancelled = is_cancelled,
		.arg = w,
	};
	GError *error = NULL;
	bool last;

	w->left = 2 + w->c->seed % 3;
	do {
		bool may_fail = w->left;

		last = w->guest_ended;
		if (!image_commit(&job, &error) && !may_fail) {
			fprintf(stderr, "commit: %s\n", error->message);
			g_error_free(error);
			return -1;
		}
		g_clear_error(&error);
		w->left = 0;
	} while (!last);
	return 0;
}

static int work(void *arg)
{
	struct work *w = arg;
	struct image_open_options o = {.flags = IMAGE_RDWR, .format = "qcow2"};
	struct co_group group;
	GError *error = NULL;
	int ret;

	w->top = image_open(TOP, &o, &error);
	if (!w->top) {
		fprintf(stderr, "%s\n", error->message);
		g_error_free(error);
		return 1;
	}
	record_log_yield(w->log, true);
	co_group_init(&group, 2);
	co_group_spawn(&group, guest, w);
	co_group_spawn(&group, commits, w);
	ret = co_group_wait(&group);
	if (ret < 0)
		fprintf(stderr, "%s: %s\n", g_strerror(-ret),
			image_fault_text(w->top) ? image_fault_text(w->top) : "?");
	image_unref(w->top);
	codec_cache_clear();
	record_log_yield(w->log, false);
	return ret;
}

static int run(void *arg, struct record_log *log)
{
	struct work w = {.c = arg, .log = log};

	return run_in_loop(work, &w);
}

/* ---- what a cut leaves ----------------------------------------------------------------------- */

struct again {
	const struct kind *kind;
	GError **error;
};

static int commit_again(void *arg)
{
	const struct again *a = arg;
	struct image_open_options o = {
		.flags = IMAGE_RDWR, .format = "qcow2", .writable_depth = a->kind->depth};
	struct image *top = image_open(TOP, &o, a->error);
	struct commit_job job = {.top = top, .empty = a->kind->depth == 1, .coroutines = 2};
	bool ok;

	if (!top)
		return -1;
	job.base = below(top, a->kind->depth);
	ok = image_commit(&job, a->error);
	image_unref(top);
	return ok ? 0 : -1;
}

static bool both_sound(const struct cutting *c, bool by_qemu, GError **error)
{
	bool raw = g_str_has_suffix(c->kind->base, ".raw");

	return judge_check(TOP, error) && (raw || judge_check(c->kind->base, error)) &&
	       (!by_qemu ||
		(judge_by_qemu(TOP, error) && (raw || judge_by_qemu(c->kind->base, error))));
}

static bool repaired(const struct cutting *c, const struct disk *d, GError **error)
{
	bool raw = g_str_has_suffix(c->kind->base, ".raw");

	return judge_repair(TOP, error) && (raw || judge_repair(c->kind->base, error)) &&
	       disk_same(d, TOP, NULL, "after the repair", error);
}

static bool finished(const struct cutting *c, const struct disk *d, GError **error)
{
	struct again a = {c->kind, error};

	return run_in_loop(commit_again, &a) == 0 &&
	       disk_same(d, TOP, NULL, "after the second commit", error) &&
	       disk_same(d, c->kind->base, NULL, "after the second commit", error) &&
	       both_sound(c, false, error) &&
	       (!c->kind->snapshot ||
		disk_same(&c->snapshot, c->kind->base, c->kind->snapshot, "at the end", error));
}

static bool judge(void *arg, const struct cut *cut, GError **error)
{
	struct cutting *c = arg;
	struct disk d = {0};
	bool ok = disk_read(TOP, NULL, &d, error) &&
		  guest_allows(c->guest, cut->position, &d, error) &&
		  both_sound(c, cut->ask_qemu, error);

	if (ok && cut->number % 3 == 1)
		ok = repaired(c, &d, error);
	if (ok && cut->number % 3 == 2)
		ok = guest_goes_on(TOP, cut->seed + 1, &d, error) &&
		     disk_same(&d, TOP, NULL, "after more writes", error);
	ok = ok && finished(c, &d, error);
	disk_clear(&d);
	return ok;
}

int main(int argc, char **argv)
{
	struct crash_options o = {.cuts = 12, .seeds = 4, .ask_qemu = 12};
	struct crash_counts counts = {0};

	image_set_formats(formats_table);
	if (!crash_begin(&o, argc, argv))
		return 77;
	for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
		for (uint64_t seed = 1; seed <= (o.cuts ? 2 : 6); seed++) {
			g_autofree char *name =
				g_strdup_printf("%s, seed %d", kinds[i].name, (int)seed);
			struct cutting c = {.kind = &kinds[i], .seed = seed};
			struct plan plan = {name, prepare, run, judge, &c};

			crash_run(&plan, &o, &counts);
			g_clear_pointer(&c.guest, guest_free);
			disk_clear(&c.snapshot);
		}
	}
	return crash_end(&counts);
}
