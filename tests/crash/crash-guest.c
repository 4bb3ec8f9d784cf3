/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Random guest writes, zeroes, discards and flushes, on raw and on qcow2 of all kinds, cut
 * anywhere: what was flushed is there, what was not is old or new, check finds at worst leaks, and
 * the guest can go on. Images are made by qemu-img.
 */
#include "config.h"

#include <stdio.h>
#include <string.h>

#include "formats/formats.h"
#include "tests/crash/guest.h"

struct kind {
	const char *name;
	const char *file;    /* the disk's */
	const char *prepare; /* by the shell; NULL: plain 512 KiB with these options */
	const char *options; /* of qemu-img create */
	bool snapshot;	     /* has one of the name "s" */
	bool through;	     /* cache mode writethrough */
	bool small_cache;    /* dirty tables are written before the guest flushes */
	bool coded;	     /* compressed clusters are written too */
};

#define BASE                                                                                       \
	"qemu-img create -q -f raw base.raw 300k; qemu-io -f raw -c 'write -q -P 9 0 300k' "       \
	"base.raw; "
#define WRITTEN "qemu-io -c 'write -q -P 7 20k 200k' -c 'write -q -P 8 400k 30k' disk.qcow2; "

static const struct kind kinds[] = {
	{"raw", "disk.raw", "truncate -s 512k disk.raw"},
	{"qcow2 4k", "disk.qcow2", .options = "cluster_size=4k"},
	{"qcow2 512", "disk.qcow2", .options = "cluster_size=512"},
	{"qcow2 64k", "disk.qcow2", .options = "cluster_size=64k"},
	{"qcow2 v2", "disk.qcow2", .options = "compat=0.10,cluster_size=1k"},
	{"qcow2 refcount 1", "disk.qcow2", .options = "cluster_size=512,refcount_bits=1"},
	{"qcow2 refcount 64", "disk.qcow2", .options = "cluster_size=512,refcount_bits=64"},
	/* Its refcount table is full, and grows meanwhile. */
	{"qcow2 refcount table", "disk.qcow2",
	 "qemu-img create -q -f qcow2 -o cluster_size=512,refcount_bits=64 disk.qcow2 3M; "
	 "qemu-io -c 'write -q -P 7 0 1920k' disk.qcow2"},
	{"qcow2 through", "disk.qcow2", .options = "cluster_size=4k", .through = true},
	{"qcow2 through data file", "disk.qcow2",
	 .options = "cluster_size=4k,data_file=disk.data,data_file_raw=off", .through = true},
	{"raw through", "disk.raw", "truncate -s 512k disk.raw", .through = true},
	{"qcow2 small cache", "disk.qcow2",
	 "qemu-img create -q -f qcow2 -o cluster_size=512 disk.qcow2 4M", .small_cache = true},
	{"qcow2 small cache snapshot", "disk.qcow2",
	 "qemu-img create -q -f qcow2 -o cluster_size=512 disk.qcow2 4M; "
	 "qemu-io -c 'write -q -P 7 0 4M' disk.qcow2; qemu-img snapshot -c s disk.qcow2",
	 .small_cache = true, .snapshot = true},
	{"qcow2 lazy", "disk.qcow2", .options = "cluster_size=1k,lazy_refcounts=on"},
	{"qcow2 extended", "disk.qcow2", .options = "cluster_size=16k,extended_l2=on"},
	{"qcow2 preallocated", "disk.qcow2", .options = "cluster_size=4k,preallocation=metadata"},
	{"qcow2 written", "disk.qcow2",
	 "qemu-img create -q -f qcow2 -o cluster_size=4k disk.qcow2 512k; " WRITTEN},
	{"qcow2 snapshot", "disk.qcow2",
	 "qemu-img create -q -f qcow2 -o cluster_size=1k disk.qcow2 512k; " WRITTEN
	 "qemu-img snapshot -c s disk.qcow2; qemu-io -c 'write -q -P 6 50k 50k' disk.qcow2",
	 .snapshot = true},
	{"qcow2 extended snapshot", "disk.qcow2",
	 "qemu-img create -q -f qcow2 -o cluster_size=16k,extended_l2=on disk.qcow2 512k; " WRITTEN
	 "qemu-img snapshot -c s disk.qcow2",
	 .snapshot = true},
	{"qcow2 overlay", "disk.qcow2",
	 BASE "qemu-img create -q -f qcow2 -o cluster_size=4k -b base.raw -F raw disk.qcow2 512k"},
	{"qcow2 extended overlay", "disk.qcow2",
	 BASE "qemu-img create -q -f qcow2 -o cluster_size=16k,extended_l2=on -b base.raw -F raw "
	      "disk.qcow2 512k"},
	{"qcow2 compressed below", "disk.qcow2",
	 "qemu-img create -q -f raw base.raw 512k; qemu-io -f raw -c 'write -q -P 9 0 512k' "
	 "base.raw; "
	 "qemu-img convert -q -c -O qcow2 -o cluster_size=4k base.raw disk.qcow2; rm base.raw"},
	{"qcow2 coded 4k", "disk.qcow2", .options = "cluster_size=4k", .coded = true},
	{"qcow2 coded 64k", "disk.qcow2", .options = "cluster_size=64k", .coded = true},
	{"qcow2 coded 512 refcount 2", "disk.qcow2", .options = "cluster_size=512,refcount_bits=2",
	 .coded = true},
	{"qcow2 coded extended", "disk.qcow2", .options = "cluster_size=16k,extended_l2=on",
	 .coded = true},
	{"qcow2 coded snapshot", "disk.qcow2",
	 "qemu-img create -q -f raw base.raw 512k; qemu-io -f raw -c 'write -q -P 9 0 512k' "
	 "base.raw; qemu-img convert -q -c -O qcow2 -o cluster_size=4k base.raw disk.qcow2; "
	 "rm base.raw; qemu-img snapshot -c s disk.qcow2",
	 .snapshot = true, .coded = true},
	{"qcow2 coded lazy", "disk.qcow2", .options = "cluster_size=4k,lazy_refcounts=on",
	 .coded = true},
	{"qcow2 bitmap", "disk.qcow2",
	 "qemu-img create -q -f qcow2 -o cluster_size=1k disk.qcow2 512k; " WRITTEN
	 "qemu-img bitmap --add -g 4k disk.qcow2 b; qemu-img bitmap --add -g 64k disk.qcow2 c"},
	{"qcow2 data file", "disk.qcow2",
	 .options = "cluster_size=4k,data_file=disk.data,data_file_raw=off"},
	{"qcow2 raw data file", "disk.qcow2",
	 .options = "cluster_size=4k,data_file=disk.data,data_file_raw=on"},
};

struct cutting {
	const struct kind *kind;
	const char *script; /* NULL: work by chance */
	uint64_t seed;
	struct guest *guest;
	struct disk snapshot;
};

static int prepare(void *arg)
{
	struct cutting *c = arg;
	const struct kind *k = c->kind;
	struct disk before = {0};
	GError *error = NULL;
	bool ok;

	if (k->prepare)
		ok = shell(&error, "set -e; %s", k->prepare);
	else
		ok = shell(&error, "qemu-img create -q -f qcow2 -o %s %s 512k", k->options,
			   k->file);
	ok = ok && disk_read(k->file, NULL, &before, &error);
	if (ok && k->snapshot)
		ok = disk_read(k->file, "s", &c->snapshot, &error);
	if (!ok) {
		fprintf(stderr, "%s\n", error->message);
		g_error_free(error);
		return 1;
	}
	c->guest = guest_new(&before);
	return 0;
}

struct work {
	struct cutting *c;
	struct record_log *log;
};

static int work(void *arg)
{
	struct work *w = arg;
	struct cutting *c = w->c;
	bool raw = g_str_has_suffix(c->kind->file, ".raw");
	struct image_open_options o = {.flags = IMAGE_RDWR, .format = raw ? "raw" : "qcow2"};
	struct guest_work gw = {.seed = c->seed,
				.batches = 25,
				.concurrent = c->seed % 2 ? 4 : 1,
				.max_len = 40000,
				.discards = true,
				.zeroes = true,
				.coded = c->kind->coded,
				.through = c->kind->through};
	GError *error = NULL;
	struct image *img;
	int ret;

	if (c->kind->small_cache) {
		o.cache_size = 1; /* the least: 64 blocks */
		gw.few_flushes = true;
		gw.batches = 150;
		gw.max_len = 3000;
	}
	if (c->kind->through)
		o.cache = CACHE_WRITETHROUGH;
	img = image_open(c->kind->file, &o, &error);

	if (!img) {
		fprintf(stderr, "%s\n", error->message);
		g_error_free(error);
		return 1;
	}
	record_log_yield(w->log, c->seed % 2);
	ret = c->script ? guest_script(c->guest, img, w->log, c->script)
			: guest_work(c->guest, img, w->log, &gw);
	if (ret < 0)
		fprintf(stderr, "%s: %s\n", g_strerror(-ret),
			image_fault_text(img) ? image_fault_text(img) : "?");
	image_unref(img);
	codec_cache_clear();
	record_log_yield(w->log, false);
	return ret;
}

static int run(void *arg, struct record_log *log)
{
	struct work w = {.c = arg, .log = log};

	return run_in_loop(work, &w);
}

/* They are in use as soon as something is written, and true again once the image is closed. */
static bool bitmaps_true(struct cutting *c, const struct cut *cut, const struct disk *d,
			 GError **error)
{
	bool closed = cut->position == record_log_length(cut->log);
	unsigned trusted;

	if (!judge_bitmaps(c->kind->file, guest_before(c->guest), d, &trusted, error))
		return false;
	if (!closed || trusted == 2 || !strstr(c->kind->name, "bitmap"))
		return true;
	g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_FAILED,
		    "%u bitmaps can be trusted after the image was closed", trusted);
	return false;
}

static bool judge_qcow2(struct cutting *c, const struct cut *cut, struct disk *d, GError **error)
{
	const char *name = c->kind->file;

	if (!judge_check(name, error) || (cut->ask_qemu && !judge_by_qemu(name, error)) ||
	    !bitmaps_true(c, cut, d, error))
		return false;
	if (c->script && !guest_allows_snapshot(c->guest, cut->position, name, error))
		return false;
	/* Either it is repaired, or nobody notices and the guest goes on, or both. */
	if (cut->number % 3 != 1 &&
	    (!judge_repair(name, error) || !disk_same(d, name, NULL, "after the repair", error)))
		return false;
	if (cut->number % 3 != 0 &&
	    (!guest_goes_on(name, cut->seed + 1, d, error) || !judge_check(name, error) ||
	     !disk_same(d, name, NULL, "after more writes", error) ||
	     !bitmaps_true(c, cut, d, error)))
		return false;
	return !c->kind->snapshot || disk_same(&c->snapshot, name, "s", "at the end", error);
}

static bool judge(void *arg, const struct cut *cut, GError **error)
{
	struct cutting *c = arg;
	struct disk d = {0};
	bool ok = disk_read(c->kind->file, NULL, &d, error) &&
		  guest_allows(c->guest, cut->position, &d, error);

	if (ok && !g_str_has_suffix(c->kind->file, ".raw"))
		ok = judge_qcow2(c, cut, &d, error);
	disk_clear(&d);
	return ok;
}

static void run_plan(struct cutting *c, const char *name, const struct crash_options *o,
		     struct crash_counts *counts)
{
	struct plan plan = {name, prepare, run, judge, c};

	crash_run(&plan, o, counts);
	g_clear_pointer(&c->guest, guest_free);
	disk_clear(&c->snapshot);
}

/* Small disks for scripts: what is below cluster 0 and in it differs. */
static const struct kind small_kinds[] = {
	{"empty", "disk.qcow2", "qemu-img create -q -f qcow2 -o cluster_size=512 disk.qcow2 64k"},
	{"written", "disk.qcow2",
	 "qemu-img create -q -f qcow2 -o cluster_size=1k disk.qcow2 64k; "
	 "qemu-io -c 'write -q -P 7 0 8k' disk.qcow2"},
	{"overlay", "disk.qcow2",
	 "qemu-img create -q -f raw base.raw 30k; qemu-io -f raw -c 'write -q -P 9 0 30k' "
	 "base.raw; "
	 "qemu-img create -q -f qcow2 -o cluster_size=1k -b base.raw -F raw disk.qcow2 64k"},
	{"lazy", "disk.qcow2",
	 "qemu-img create -q -f qcow2 -o cluster_size=1k,lazy_refcounts=on disk.qcow2 64k; "
	 "qemu-io -c 'write -q -P 7 0 8k' disk.qcow2"},
	{"extended overlay", "disk.qcow2",
	 "qemu-img create -q -f raw base.raw 30k; qemu-io -f raw -c 'write -q -P 9 0 30k' "
	 "base.raw; "
	 "qemu-img create -q -f qcow2 -o cluster_size=16k,extended_l2=on -b base.raw -F raw "
	 "disk.qcow2 128k"},
};

/* A snapshot is made once, before anything is done with it. */
static bool makes_sense(const char *script)
{
	const char *made = strchr(script, 'S');
	const char *used = strpbrk(script, "PX"), *gone = strchr(script, 'X');

	if (made && strchr(made + 1, 'S'))
		return false;
	return (!used || (made && made < used)) && (!gone || !strpbrk(gone + 1, "PX"));
}

/* Every script of three operations; of the short mode, a few that were chosen by their number. */
static void run_scripts(const struct crash_options *o, struct crash_counts *counts)
{
	static const char letters[] = "WwBZUDCFSPX";
	const unsigned n = sizeof(letters) - 1, all = n * n * n;
	struct crash_options quiet = *o;

	quiet.silent = true;
	quiet.cuts = o->cuts ? o->cuts : 12;
	quiet.ask_qemu = o->ask_qemu * 10;
	for (unsigned i = 0; i < all; i++) {
		char script[] = {letters[i / n / n], letters[i / n % n], letters[i % n], '\0'};

		if (!makes_sense(script) || (o->cuts && !o->only && i % 97 != 13))
			continue;
		for (size_t k = 0; k < G_N_ELEMENTS(small_kinds); k++) {
			g_autofree char *name =
				g_strdup_printf("script %s, %s", script, small_kinds[k].name);
			struct cutting c = {.kind = &small_kinds[k], .script = script};

			run_plan(&c, name, &quiet, counts);
		}
	}
}

int main(int argc, char **argv)
{
	struct crash_options o = {.cuts = 8, .seeds = 6, .ask_qemu = 10};
	struct crash_counts counts = {0};

	image_set_formats(formats_table);
	if (!crash_begin(&o, argc, argv))
		return 77;
	for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
		/* Odd seeds have several operations under way at a time. */
		for (uint64_t seed = 1; seed <= (o.cuts ? 2 : 4); seed++) {
			g_autofree char *name =
				g_strdup_printf("%s, seed %d", kinds[i].name, (int)seed);
			struct cutting c = {.kind = &kinds[i], .seed = seed};

			run_plan(&c, name, &o, &counts);
		}
	}
	run_scripts(&o, &counts);
	return crash_end(&counts);
}
