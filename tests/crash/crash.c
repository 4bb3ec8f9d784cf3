/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/loop.h"
#include "io/memory.h"
#include "tests/crash/crash.h"

/* ---- the command line ------------------------------------------------------------------------ */

static void usage(const char *program)
{
	fprintf(stderr,
		"usage: %s [-l] [-n CUTS] [-s SEEDS] [-q N] [-k] [-c PLAN [-p POSITION -x SEED]]\n"
		"  -l  the long mode: every position, -s seeds each (6)\n"
		"  -n  about so many cuts of each plan\n"
		"  -q  every Nth cut is judged by qemu-img as well\n"
		"  -k  goes on after a failure\n"
		"  -c  only plans with this in their names\n"
		"  -p, -x  this cut alone; its files are kept\n",
		program);
	exit(2);
}

void crash_options_parse(struct crash_options *o, int argc, char **argv)
{
	int c;

	o->position = SIZE_MAX;
	while ((c = getopt(argc, argv, "ln:s:q:kc:p:x:")) != -1) {
		switch (c) {
		case 'l':
			o->cuts = 0;
			break;
		case 'n':
			o->cuts = strtoul(optarg, NULL, 0);
			break;
		case 's':
			o->seeds = strtoul(optarg, NULL, 0);
			break;
		case 'q':
			o->ask_qemu = strtoul(optarg, NULL, 0);
			break;
		case 'k':
			o->keep_going = true;
			break;
		case 'c':
			o->only = optarg;
			break;
		case 'p':
			o->position = strtoull(optarg, NULL, 0);
			break;
		case 'x':
			o->seed = strtoull(optarg, NULL, 0);
			break;
		default:
			usage(argv[0]);
		}
	}
	if (optind < argc)
		usage(argv[0]);
	if (o->ask_qemu && !have_qemu())
		o->ask_qemu = 0;
	memory_keep_large_buffers();
}

bool crash_begin(struct crash_options *o, int argc, char **argv)
{
	crash_options_parse(o, argc, argv);
	if (!have_qemu())
		printf("SKIP: needs qemu-img and qemu-io\n");
	return have_qemu();
}

/* ---- one plan -------------------------------------------------------------------------------- */

struct scene {
	const struct plan *plan;
	const struct crash_options *o;
	struct crash_counts *counts;
	struct record_log *log;
	char *start, *dir; /* where the program was called; a scratch folder */
	unsigned number;   /* cuts of this plan */
	bool failed;
};

static void go(const char *dir)
{
	if (chdir(dir) != 0) {
		/* With "cut" or "..": somebody took the scratch folder away. */
		fprintf(stderr, "cannot enter the scratch folder's %s: %s\n", dir,
			g_strerror(errno));
		exit(1);
	}
}

static void scene_begin(struct scene *s)
{
	char memory[] = "/dev/shm/imgfs-crash.XXXXXX", here[] = "imgfs-crash.XXXXXX";
	char *dir = mkdtemp(memory);

	s->start = g_get_current_dir();
	/* Thousands of cuts are written and synced: not to a disk if it can be helped. */
	if (!dir)
		dir = mkdtemp(here);
	if (!dir) {
		fprintf(stderr, "mkdtemp: %s\n", g_strerror(errno));
		exit(1);
	}
	s->dir = g_canonicalize_filename(dir, NULL);
	go(s->dir);
	if (mkdir("run", 0700) != 0 || mkdir("cut", 0700) != 0)
		exit(1);
}

static void scene_end(struct scene *s)
{
	go(s->start);
	if (s->o->position != SIZE_MAX || (s->failed && !s->o->quiet))
		fprintf(stderr, "%s: the files of the cut are in %s/cut\n", s->plan->name, s->dir);
	else
		shell(NULL, "rm -rf '%s'", s->dir);
	record_log_free(s->log);
	g_free(s->dir);
	g_free(s->start);
}

static void scene_fail(struct scene *s, const char *what, const char *why)
{
	if (!s->o->quiet)
		fprintf(stderr, "%s: %s: %s\n", s->plan->name, what, why);
	s->counts->failures++;
	s->failed = true;
}

static bool scene_record(struct scene *s)
{
	int ret;

	go("run");
	ret = s->plan->prepare(s->plan->arg);
	if (ret == 0) {
		file_set_wrapper(record_opened, s->log);
		ret = s->plan->run(s->plan->arg, s->log);
		file_set_wrapper(NULL, NULL);
	}
	go("..");
	if (ret != 0)
		scene_fail(s, "run", "it failed by itself");
	return ret == 0;
}

/* ---- one cut --------------------------------------------------------------------------------- */

static void must(int ret, const char *what)
{
	if (ret >= 0)
		return;
	fprintf(stderr, "%s: %s\n", what, g_strerror(-ret));
	exit(1);
}

/* The file of a cut, from memory to the working directory. */
static void write_out(struct file *from, const char *name)
{
	struct file_options fo = {.flags = FILE_RDWR | FILE_CREATE | FILE_TRUNC};
	g_autofree char *base = g_path_get_basename(name);
	GError *error = NULL;
	struct file *to = file_open(base, &fo, &error);

	if (!to) {
		fprintf(stderr, "%s\n", error->message);
		exit(1);
	}
	must(file_truncate(to, file_size(from)), base);
	must(record_copy_data(from, to), base);
	file_unref(to);
	file_unref(from);
}

static void say_how_to_repeat(const struct scene *s, const struct cut *cut)
{
	size_t from = cut->position > 60 ? cut->position - 60 : 0;
	g_autofree char *text = record_log_describe(s->log, from, cut->position, cut->seed);

	fprintf(stderr,
		"%s  ^ the end of the log at the cut; again by: -c %s -p %zu -x %" PRIu64 "\n",
		text, s->plan->name, cut->position, cut->seed);
}

static void one_cut(struct scene *s, size_t position, uint64_t seed)
{
	struct cut cut = {.log = s->log, .position = position, .seed = seed, .number = s->number};
	GError *error = NULL;

	if (s->failed && !s->o->keep_going)
		return;
	cut.ask_qemu = s->o->ask_qemu && s->number % s->o->ask_qemu == 0;
	s->number++;
	go("cut");
	for (unsigned i = 0; i < record_log_files(s->log); i++)
		write_out(record_log_cut(s->log, i, position, seed), record_log_name(s->log, i));
	s->counts->cuts++;
	s->counts->lossy += record_log_pending(s->log, position) > 0;
	s->counts->asked += cut.ask_qemu;
	if (s->o->position != SIZE_MAX) /* as it was before the judge repairs it */
		shell(NULL,
		      "mkdir -p before && cp --sparse=always $(find . -maxdepth 1 -type f) before");
	if (!s->plan->judge(s->plan->arg, &cut, &error)) {
		if (!s->o->quiet)
			say_how_to_repeat(s, &cut);
		scene_fail(s, "a cut", error ? error->message : "judged bad");
		g_clear_error(&error);
	}
	go("..");
}

/* Positions where most may be lost come first in the short mode: just before a flush ends. */
static void some_cuts(struct scene *s, unsigned wanted)
{
	size_t length = record_log_length(s->log);
	double step = MAX(1.0, (double)(length + 1) * 2 / MAX(wanted, 1));

	/* Each position visited gets two seeds, every third time one of them extreme. */
	for (double at = 0; at <= length; at += step) {
		size_t position = (size_t)at;
		unsigned n = s->number;

		while (position < length && step > 2 && !record_log_flushed(s->log, position + 1) &&
		       position < (size_t)(at + step) - 1)
			position++;
		if (record_log_pending(s->log, position) == 0) {
			one_cut(s, position, RECORD_KEEP_ALL);
			continue;
		}
		one_cut(s, position, n % 3 == 0 ? RECORD_LOSE_ALL : n * 7 + 2);
		one_cut(s, position, n % 3 == 1 ? RECORD_KEEP_ALL : n * 7 + 5);
	}
	one_cut(s, length, RECORD_LOSE_ALL);
}

/* Every way to lose some and keep the others, where there are so few. */
#define ALL_SUBSETS_OF 5

static void every_cut(struct scene *s)
{
	for (size_t position = 0; position <= record_log_length(s->log); position++) {
		unsigned pending = record_log_pending(s->log, position);
		unsigned seeds = pending ? s->o->seeds : 0;
		uint64_t subsets =
			pending && pending <= ALL_SUBSETS_OF ? UINT64_C(1) << pending : 0;

		/* Then of the seeds those that tear are what is new. */
		for (uint64_t mask = 0; mask < subsets; mask++)
			one_cut(s, position, RECORD_SUBSET(mask));
		for (unsigned i = subsets ? 2 : 0; i < seeds; i++)
			one_cut(s, position, i < 2 ? i : i + position * 31);
		if (!pending)
			one_cut(s, position, RECORD_KEEP_ALL);
	}
}

void crash_run(const struct plan *plan, const struct crash_options *o, struct crash_counts *counts)
{
	struct scene s = {.plan = plan, .o = o, .counts = counts, .log = record_log_new()};
	unsigned before = counts->cuts;

	if (o->only && !strstr(plan->name, o->only)) {
		record_log_free(s.log);
		return;
	}
	counts->plans++;
	scene_begin(&s);
	if (scene_record(&s)) {
		/* What was not opened is there too; the others are made anew for every cut. */
		shell(NULL, "cp --sparse=always run/* cut/");
		if (o->position != SIZE_MAX)
			one_cut(&s, o->position, o->seed);
		else if (o->cuts)
			some_cuts(&s, o->cuts);
		else
			every_cut(&s);
	}
	if (!o->quiet && counts->cuts > before && (!o->silent || s.failed))
		printf("%-40s %6zu entries %6u cuts%s\n", plan->name, record_log_length(s.log),
		       counts->cuts - before, s.failed ? " FAILED" : "");
	fflush(stdout);
	scene_end(&s);
}

int crash_end(const struct crash_counts *counts)
{
	printf("%u plans, %u cuts, %u of them with something to lose, %u judged by qemu-img, "
	       "%u failed\n",
	       counts->plans, counts->cuts, counts->lossy, counts->asked, counts->failures);
	return counts->failures || counts->cuts == 0;
}
