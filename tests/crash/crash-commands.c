/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * imgtool's writing commands, cut anywhere. The guest's disk and every snapshot are as they were
 * before or as they are after, and the same as after once the command has returned; check finds at
 * worst leaks, repair makes it clean, the guest can go on, and the command run again succeeds.
 */
#include "config.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "formats/formats.h"
#include "tests/crash/guest.h"
#include "tests/crash/imgtool.h"

enum again {
	AGAIN_ALWAYS,	   /* a second run succeeds */
	AGAIN_UNLESS_DONE, /* it may refuse when the first one got as far as its end */
	AGAIN_NEVER,	   /* it would do more */
};

struct command_case {
	const char *name;
	const char *prepare; /* by the shell, with the functions below */
	const char *command; /* words without quotes */
	const char *top;     /* whose disk is looked at; NULL: disk.qcow2 */
	enum again again;
	bool fresh;   /* top is made by the command: until its end it may be nothing at all */
	bool between; /* top's disk is neither old nor new meanwhile */
	bool damaged; /* before the command, so that check finds things */
	const char *bitmaps; /* an image whose bitmaps were enabled when its disk was empty */
};

/* What the preparations are made of. */
static const char functions[] =
	"set -e; "
	"make() { qemu-img create -q -f qcow2 -o \"$1\" disk.qcow2 512k; }; "
	"io() { f=$1; shift; for c; do set -- \"$@\" -c \"$c\"; shift; done; qemu-io \"$@\" $f; }; "
	"fill() { io ${1:-disk.qcow2} 'write -q -P 7 20k 200k' 'write -q -P 8 400k 30k' "
	"'write -q -z 100k 40k' 'write -q -P 3 1k 3k'; }; "
	"more() { io ${1:-disk.qcow2} 'write -q -P 17 30k 50k' 'write -q -P 18 300k 70k' "
	"'write -q -z 210k 40k' 'discard -q 410k 10k'; }; "
	"bits() { qemu-img bitmap --add -g 4k $1 a; qemu-img bitmap --add $1 b; }; "
	"snap() { qemu-img snapshot -c $1 disk.qcow2; }; "
	"base() { qemu-img create -q -f $1 ${2:+-o $2} $3 512k; "
	"  qemu-io -f $1 -c 'write -q -P 9 0 300k' -c 'write -q -z 50k 10k' $3; }; "
	"over() { qemu-img create -q -f qcow2 ${4:+-o $4} -b $1 -F $2 $3; }; ";

#define TWO_SNAPSHOTS "fill; snap s1; more; snap s2; io disk.qcow2 'write -q -P 33 0 90k'; "

static const struct command_case cases[] = {
	/* snapshot */
	{"snapshot create", "make cluster_size=1k; fill", "snapshot -c new disk.qcow2",
	 .again = AGAIN_UNLESS_DONE},
	{"snapshot create second", "make cluster_size=512; " TWO_SNAPSHOTS,
	 "snapshot -c new disk.qcow2", .again = AGAIN_UNLESS_DONE},
	{"snapshot create v2", "make compat=0.10,cluster_size=1k; fill",
	 "snapshot -c new disk.qcow2", .again = AGAIN_UNLESS_DONE},
	{"snapshot create extended", "make cluster_size=16k,extended_l2=on; fill",
	 "snapshot -c new disk.qcow2", .again = AGAIN_UNLESS_DONE},
	{"snapshot create lazy", "make cluster_size=1k,lazy_refcounts=on; fill",
	 "snapshot -c new disk.qcow2", .again = AGAIN_UNLESS_DONE},
	{"snapshot apply", "make cluster_size=1k; " TWO_SNAPSHOTS, "snapshot -a s1 disk.qcow2"},
	{"snapshot apply 512", "make cluster_size=512; " TWO_SNAPSHOTS,
	 "snapshot -a s2 disk.qcow2"},
	{"snapshot apply extended", "make cluster_size=16k,extended_l2=on; " TWO_SNAPSHOTS,
	 "snapshot -a s1 disk.qcow2"},
	{"snapshot apply full counts",
	 "make cluster_size=1k,refcount_bits=2; fill; snap s1; snap s2",
	 "snapshot -a s1 disk.qcow2"},
	{"snapshot delete first", "make cluster_size=1k; " TWO_SNAPSHOTS,
	 "snapshot -d s1 disk.qcow2", .again = AGAIN_UNLESS_DONE},
	{"snapshot delete last", "make cluster_size=512; " TWO_SNAPSHOTS,
	 "snapshot -d s2 disk.qcow2", .again = AGAIN_UNLESS_DONE},
	{"snapshot delete only", "make cluster_size=4k; fill; snap s1; more",
	 "snapshot -d s1 disk.qcow2", .again = AGAIN_UNLESS_DONE},

	/* resize */
	{"resize raw", "truncate -s 100k disk.raw", "resize -q -f raw disk.raw 300k", "disk.raw"},
	{"resize raw shrink", "base raw '' disk.raw", "resize -q -f raw --shrink disk.raw 100k",
	 "disk.raw"},
	{"resize grow", "make cluster_size=1k; fill", "resize -q disk.qcow2 1M"},
	{"resize grow l1", "make cluster_size=512; fill", "resize -q disk.qcow2 20M"},
	{"resize grow by", "make cluster_size=4k; fill", "resize -q disk.qcow2 +1M",
	 .again = AGAIN_NEVER},
	{"resize grow metadata", "make cluster_size=4k; fill",
	 "resize -q --preallocation=metadata disk.qcow2 1M", .again = AGAIN_UNLESS_DONE},
	{"resize grow full", "make cluster_size=4k; fill",
	 "resize -q --preallocation=full disk.qcow2 1M", .again = AGAIN_UNLESS_DONE},
	{"resize grow overlay",
	 "base raw '' base.raw; over base.raw raw disk.qcow2 cluster_size=4k; "
	 "truncate -s 1M base.raw",
	 "resize -q disk.qcow2 800k"},
	{"resize shrink", "make cluster_size=1k; fill", "resize -q --shrink disk.qcow2 210k"},
	{"resize shrink 512", "make cluster_size=512; fill; more",
	 "resize -q --shrink disk.qcow2 10k"},
	{"resize with snapshot", "make cluster_size=1k; " TWO_SNAPSHOTS, "resize -q disk.qcow2 2M"},
	{"resize shrink with snapshot", "make cluster_size=1k; " TWO_SNAPSHOTS,
	 "resize -q --shrink disk.qcow2 100k"},

	/* amend */
	{"amend to v2", "make cluster_size=4k; fill; more", "amend -q -o compat=0.10 disk.qcow2"},
	{"amend to v3", "make compat=0.10,cluster_size=4k; fill; more",
	 "amend -q -o compat=1.1 disk.qcow2"},
	{"amend lazy on", "make cluster_size=4k; fill", "amend -q -o lazy_refcounts=on disk.qcow2"},
	{"amend lazy off", "make cluster_size=4k,lazy_refcounts=on; fill",
	 "amend -q -o lazy_refcounts=off disk.qcow2"},
	{"amend refcount 64", "make cluster_size=512; fill",
	 "amend -q -o refcount_bits=64 disk.qcow2"},
	{"amend refcount 1", "make cluster_size=1k; fill",
	 "amend -q -o refcount_bits=1 disk.qcow2"},
	{"amend refcount 8 snapshots", "make cluster_size=1k; " TWO_SNAPSHOTS,
	 "amend -q -o refcount_bits=8 disk.qcow2"},
	{"amend size", "make cluster_size=4k; fill", "amend -q -o size=1M disk.qcow2"},

	/* commit */
	{"commit to raw",
	 "base raw '' base.raw; over base.raw raw disk.qcow2 cluster_size=4k; "
	 "fill; more",
	 "commit -q disk.qcow2"},
	{"commit to qcow2",
	 "base qcow2 cluster_size=1k base.qcow2; "
	 "over base.qcow2 qcow2 disk.qcow2 cluster_size=4k; fill; more",
	 "commit -q disk.qcow2"},
	{"commit keeping",
	 "base qcow2 cluster_size=4k base.qcow2; "
	 "over base.qcow2 qcow2 disk.qcow2 cluster_size=1k; fill; more",
	 "commit -q -d disk.qcow2"},
	{"commit past middle",
	 "base qcow2 cluster_size=4k base.qcow2; "
	 "over base.qcow2 qcow2 mid.qcow2 cluster_size=1k; fill mid.qcow2; "
	 "over mid.qcow2 qcow2 disk.qcow2 cluster_size=2k; more",
	 "commit -q -b base.qcow2 disk.qcow2"},
	{"commit larger",
	 "base qcow2 cluster_size=4k base.qcow2; "
	 "qemu-img create -q -f qcow2 -o cluster_size=4k -b base.qcow2 -F qcow2 disk.qcow2 1M; "
	 "fill; io disk.qcow2 'write -q -P 44 900k 50k'",
	 "commit -q disk.qcow2"},
	{"commit snapshot below",
	 "base qcow2 cluster_size=1k base.qcow2; qemu-img snapshot -c s "
	 "base.qcow2; over base.qcow2 qcow2 disk.qcow2 cluster_size=4k; fill; more",
	 "commit -q disk.qcow2"},

	{"commit small clusters",
	 "base raw '' base.raw; "
	 "over base.raw raw disk.qcow2 cluster_size=512,refcount_bits=64,lazy_refcounts=on; "
	 "fill; more",
	 "commit -q disk.qcow2"},
	{"commit v2",
	 "base raw '' base.raw; over base.raw raw disk.qcow2 compat=0.10,cluster_size=1k; "
	 "fill; more",
	 "commit -q disk.qcow2"},
	{"commit with snapshot",
	 "base raw '' base.raw; over base.raw raw disk.qcow2 cluster_size=1k; "
	 "io disk.qcow2 'write -q -P 6 0 512k'; snap s; more",
	 "commit -q disk.qcow2"},

	/* rebase */
	{"rebase safe",
	 "base raw '' base.raw; cp base.raw new.raw; "
	 "qemu-io -f raw -c 'write -q -P 99 0 400k' new.raw; "
	 "over base.raw raw disk.qcow2 cluster_size=4k; more",
	 "rebase -q -b new.raw -F raw disk.qcow2"},
	{"rebase to nothing",
	 "base qcow2 cluster_size=1k base.qcow2; "
	 "over base.qcow2 qcow2 disk.qcow2 cluster_size=4k; more",
	 "rebase -q -b _ disk.qcow2"},
	{"rebase down",
	 "base qcow2 cluster_size=4k base.qcow2; "
	 "over base.qcow2 qcow2 mid.qcow2 cluster_size=1k; fill mid.qcow2; "
	 "over mid.qcow2 qcow2 disk.qcow2 cluster_size=2k; more",
	 "rebase -q -b base.qcow2 -F qcow2 disk.qcow2"},
	{"rebase unsafe",
	 "base raw '' base.raw; cp base.raw new.raw; "
	 "over base.raw raw disk.qcow2 cluster_size=512; more",
	 "rebase -q -u -b new.raw -F raw disk.qcow2"},
	{"rebase to shorter",
	 "base raw '' base.raw; qemu-img create -q -f raw new.raw 100k; "
	 "qemu-io -f raw -c 'write -q -P 99 0 90k' new.raw; "
	 "over base.raw raw disk.qcow2 cluster_size=1k; more",
	 "rebase -q -b new.raw -F raw disk.qcow2"},
	{"rebase to longer",
	 "qemu-img create -q -f raw base.raw 100k; "
	 "qemu-io -f raw -c 'write -q -P 98 0 90k' base.raw; base raw '' new.raw; "
	 "qemu-img create -q -f qcow2 -o cluster_size=4k -b base.raw -F raw disk.qcow2 512k; more",
	 "rebase -q -b new.raw -F raw disk.qcow2"},
	{"rebase with snapshot",
	 "base raw '' base.raw; cp base.raw new.raw; "
	 "qemu-io -f raw -c 'write -q -P 99 100k 50k' new.raw; "
	 "over base.raw raw disk.qcow2 cluster_size=1k; fill; snap s1; more",
	 "rebase -q -b new.raw -F raw disk.qcow2"},
	{"rebase compressed",
	 "base raw '' base.raw; "
	 "over base.raw raw disk.qcow2 cluster_size=4k; more",
	 "rebase -q -c -b _ disk.qcow2"},

	/* check */
	{"check leaks",
	 "make cluster_size=1k; fill; more; printf '\\0\\001' | "
	 "dd of=disk.qcow2 bs=1 seek=$((2048 + 2 * 480)) conv=notrunc status=none; "
	 "truncate -s 600k disk.qcow2",
	 "check -q -r leaks disk.qcow2"},
	{"check lost refcounts",
	 "make cluster_size=4k; fill; more; "
	 "dd if=/dev/zero of=disk.qcow2 bs=4k seek=2 count=1 conv=notrunc status=none",
	 "check -q -r all disk.qcow2", .damaged = true},
	{"check lost reftable",
	 "make cluster_size=1k; " TWO_SNAPSHOTS
	 "dd if=/dev/zero of=disk.qcow2 bs=1k seek=1 count=1 conv=notrunc status=none",
	 "check -q -r all disk.qcow2", .damaged = true},
	{"check dirty",
	 "make cluster_size=1k,lazy_refcounts=on; "
	 "qemu-io -c 'write -q -P 7 20k 200k' -c 'flush' -c abort disk.qcow2 2>/dev/null || true",
	 "check -q -r all disk.qcow2", .damaged = true},

	/* bitmap */
	{"bitmap add", "make cluster_size=4k; fill", "bitmap --add disk.qcow2 b",
	 .again = AGAIN_UNLESS_DONE},
	{"bitmap add second",
	 "make cluster_size=1k; fill; qemu-img bitmap --add disk.qcow2 a; more",
	 "bitmap --add -g 1k disk.qcow2 b", .again = AGAIN_UNLESS_DONE},
	{"bitmap remove", "make cluster_size=4k; qemu-img bitmap --add -g 4k disk.qcow2 b; fill",
	 "bitmap --remove disk.qcow2 b", .again = AGAIN_UNLESS_DONE},
	{"bitmap clear", "make cluster_size=4k; qemu-img bitmap --add -g 4k disk.qcow2 b; fill",
	 "bitmap --clear disk.qcow2 b"},
	{"bitmap disable", "make cluster_size=4k; qemu-img bitmap --add -g 4k disk.qcow2 b; fill",
	 "bitmap --disable disk.qcow2 b"},
	{"bitmap merge",
	 "make cluster_size=4k; qemu-img bitmap --add -g 4k disk.qcow2 a; fill; "
	 "qemu-img bitmap --add -g 4k disk.qcow2 b; more",
	 "bitmap --merge a disk.qcow2 b"},

	{"bitmap and snapshot", "make cluster_size=1k; bits disk.qcow2; fill; more",
	 "snapshot -c new disk.qcow2", .again = AGAIN_UNLESS_DONE, .bitmaps = "disk.qcow2"},
	{"bitmap and going back", "make cluster_size=1k; bits disk.qcow2; " TWO_SNAPSHOTS,
	 "snapshot -a s1 disk.qcow2", .bitmaps = "disk.qcow2"},
	{"bitmap and resize", "make cluster_size=4k; bits disk.qcow2; fill; more",
	 "resize -q disk.qcow2 3M", .bitmaps = "disk.qcow2"},
	{"bitmap and shrink", "make cluster_size=4k; bits disk.qcow2; fill; more",
	 "resize -q --shrink disk.qcow2 100k", .bitmaps = "disk.qcow2"},
	{"bitmap and amend", "make cluster_size=4k; bits disk.qcow2; fill",
	 "amend -q -o refcount_bits=64 disk.qcow2", .bitmaps = "disk.qcow2"},
	{"bitmap and commit",
	 "qemu-img create -q -f qcow2 -o cluster_size=1k base.qcow2 512k; "
	 "bits base.qcow2; fill base.qcow2; over base.qcow2 qcow2 disk.qcow2 cluster_size=4k; more",
	 "commit -q disk.qcow2", .bitmaps = "base.qcow2"},
	{"bitmap and writing", "make cluster_size=1k; bits disk.qcow2; fill",
	 "bench -q -w -c 60 -d 4 -s 3000 --pattern=5 --flush-interval=8 disk.qcow2",
	 .between = true, .bitmaps = "disk.qcow2"},

	/* create, convert (which by default does not care for power cuts), dd, bench */
	{"create", "true", "create -q -f qcow2 -o cluster_size=4k disk.qcow2 512k", .fresh = true},
	{"create metadata", "true",
	 "create -q -f qcow2 -o cluster_size=1k,preallocation=metadata disk.qcow2 512k",
	 .fresh = true},
	{"create over", "make cluster_size=1k; fill",
	 "create -q -f qcow2 -o cluster_size=4k disk.qcow2 1M", .fresh = true},
	{"convert", "base raw '' base.raw",
	 "convert -q -t writeback -f raw -O qcow2 base.raw disk.qcow2", .fresh = true},
	{"convert 512", "base raw '' base.raw",
	 "convert -q -t writeback -f raw -O qcow2 -o cluster_size=512 base.raw disk.qcow2",
	 .fresh = true},
	{"convert compressed", "base raw '' base.raw",
	 "convert -q -t writeback -f raw -O qcow2 -c -o cluster_size=4k base.raw disk.qcow2",
	 .fresh = true},
	{"convert zstd", "base raw '' base.raw",
	 "convert -q -t writeback -f raw -O qcow2 -c -o "
	 "cluster_size=16k,extended_l2=on,compression_type=zstd base.raw disk.qcow2",
	 .fresh = true},
	{"convert above",
	 "base qcow2 cluster_size=4k base.qcow2; over base.qcow2 qcow2 from.qcow2; "
	 "more from.qcow2",
	 "convert -q -t writeback -O qcow2 -B base.qcow2 -F qcow2 from.qcow2 disk.qcow2",
	 .fresh = true},
	{"convert bitmaps",
	 "base qcow2 cluster_size=4k from.qcow2; bits from.qcow2; more from.qcow2",
	 "convert -q -t writeback -O qcow2 --bitmaps from.qcow2 disk.qcow2", .fresh = true},
	{"convert preallocated", "base raw '' base.raw",
	 "convert -q -t writeback -f raw -O qcow2 -o preallocation=metadata base.raw disk.qcow2",
	 .fresh = true},
	{"convert data file", "base raw '' base.raw",
	 "convert -q -t writeback -f raw -O qcow2 -o data_file=disk.data base.raw disk.qcow2",
	 .fresh = true},
	{"convert to raw", "base qcow2 cluster_size=4k base.qcow2",
	 "convert -q -t writeback -O raw base.qcow2 disk.raw", "disk.raw", .fresh = true},
	{"dd to raw", "base qcow2 cluster_size=4k base.qcow2",
	 "dd -O raw bs=10k if=base.qcow2 of=disk.raw", "disk.raw", .fresh = true},
	{"convert into", "base raw '' base.raw; make cluster_size=1k; fill",
	 "convert -q -t writeback -n -f raw -O qcow2 base.raw disk.qcow2", .between = true},
	{"dd", "base raw '' base.raw", "dd -f raw -O qcow2 bs=3k if=base.raw of=disk.qcow2",
	 .fresh = true},
	{"bench", "make cluster_size=1k; fill",
	 "bench -q -w -c 60 -d 4 -s 3000 --pattern=5 --flush-interval=8 disk.qcow2",
	 .between = true},
};

/* ---- what is to be seen ---------------------------------------------------------------------- */

struct view {
	struct disk disk;
	char **snapshots;
	struct disk *contents; /* of each */
};

struct cutting {
	const struct command_case *c;
	const char *top;
	struct view before, after;
};

static void view_clear(struct view *v)
{
	for (unsigned i = 0; v->snapshots && v->snapshots[i]; i++)
		disk_clear(&v->contents[i]);
	g_clear_pointer(&v->contents, g_free);
	g_clear_pointer(&v->snapshots, g_strfreev);
	disk_clear(&v->disk);
}

static bool view_read(struct view *v, const char *name, GError **error)
{
	memset(v, 0, sizeof(*v));
	if (!disk_read(name, NULL, &v->disk, error))
		return false;
	v->snapshots = disk_snapshots(name, error);
	if (!v->snapshots)
		return false;
	v->contents = g_new0(struct disk, g_strv_length(v->snapshots) + 1);
	for (unsigned i = 0; v->snapshots[i]; i++)
		if (!disk_read(name, v->snapshots[i], &v->contents[i], error))
			return false;
	return true;
}

static const struct disk *snapshot_of(const struct view *v, const char *name)
{
	for (unsigned i = 0; v->snapshots && v->snapshots[i]; i++)
		if (strcmp(v->snapshots[i], name) == 0)
			return &v->contents[i];
	return NULL;
}

static void fail(GError **error, const char *what, const char *name, uint64_t where)
{
	g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_FAILED, "%s %s (byte %" G_GUINT64_FORMAT ")",
		    name, what, where);
}

/* Every snapshot that was before and is after is there, and none is other than in one of them. */
static bool snapshots_allowed(const struct cutting *c, const struct view *v, GError **error)
{
	uint64_t where;

	for (unsigned i = 0; c->before.snapshots && c->before.snapshots[i]; i++) {
		const char *name = c->before.snapshots[i];

		if (snapshot_of(&c->after, name) && !snapshot_of(v, name)) {
			fail(error, "is lost", name, 0);
			return false;
		}
	}
	for (unsigned i = 0; v->snapshots[i]; i++) {
		const struct disk *a = snapshot_of(&c->before, v->snapshots[i]);
		const struct disk *b = snapshot_of(&c->after, v->snapshots[i]);

		if (!(a && disk_equal(a, &v->contents[i], &where)) &&
		    !(b && disk_equal(b, &v->contents[i], &where))) {
			fail(error, "is another one", v->snapshots[i], where);
			return false;
		}
	}
	return true;
}

static bool same_snapshots(const struct view *a, const struct view *b)
{
	for (unsigned i = 0; a->snapshots && a->snapshots[i]; i++)
		if (!snapshot_of(b, a->snapshots[i]))
			return false;
	return true;
}

static bool is_after(const struct cutting *c, const struct view *v)
{
	uint64_t where;

	return disk_equal(&c->after.disk, &v->disk, &where) && same_snapshots(&c->after, v) &&
	       same_snapshots(v, &c->after);
}

/* Is v before, after, or (where that is allowed) something between? */
static bool view_allowed(const struct cutting *c, const struct view *v, bool ended, GError **error)
{
	uint64_t where;

	if (ended && !is_after(c, v)) {
		disk_equal(&c->after.disk, &v->disk, &where);
		fail(error, "is not what the command left, which had returned", c->top, where);
		return false;
	}
	if (!snapshots_allowed(c, v, error))
		return false;
	if (c->c->between || disk_equal(&c->after.disk, &v->disk, &where) ||
	    (c->before.disk.bytes && disk_equal(&c->before.disk, &v->disk, &where)))
		return true;
	fail(error, "is neither as before nor as after", c->top, where);
	return false;
}

/* ---- imgtool --------------------------------------------------------------------------------- */

/* Runs the command with its messages put aside; *said: what they were. */
static int run_command(const struct command_case *c, char **said)
{
	g_autofree char *all = g_strconcat("imgtool ", c->command, NULL);
	g_auto(GStrv) argv = g_strsplit(all, " ", -1);
	int saved, to, status;

	/* The one word that cannot be written with spaces around it. */
	for (unsigned i = 0; argv[i]; i++)
		if (strcmp(argv[i], "_") == 0)
			argv[i][0] = '\0';
	fflush(NULL);
	saved = dup(STDERR_FILENO);
	to = g_open("messages", O_RDWR | O_CREAT | O_TRUNC, 0600);
	g_assert(saved >= 0 && to >= 0);
	dup2(to, STDERR_FILENO);
	status = imgtool_main(g_strv_length(argv), argv);
	fflush(NULL);
	dup2(saved, STDERR_FILENO);
	close(saved);
	close(to);
	g_file_get_contents("messages", said, NULL, NULL);
	unlink("messages");
	return status;
}

static int prepare(void *arg)
{
	struct cutting *c = arg;
	GError *error = NULL;

	if (!shell(&error, "%s%s", functions, c->c->prepare) ||
	    (!c->c->fresh && !view_read(&c->before, c->top, &error))) {
		fprintf(stderr, "%s\n", error->message);
		g_error_free(error);
		return 1;
	}
	return 0;
}

static int run(void *arg, struct record_log *log)
{
	struct cutting *c = arg;
	g_autofree char *said = NULL;
	GError *error = NULL;
	int status = run_command(c->c, &said);

	if (status == 0 && view_read(&c->after, c->top, &error))
		return 0;
	fprintf(stderr, "%s: status %d: %s%s\n", c->c->command, status, said,
		error ? error->message : "");
	g_clear_error(&error);
	return status ? status : 1;
}

/* ---- judging --------------------------------------------------------------------------------- */

typedef bool each_fn(const char *name, GError **error);

static bool each_qcow2(const struct cut *cut, each_fn *fn, GError **error)
{
	for (unsigned i = 0; i < record_log_files(cut->log); i++) {
		const char *name = record_log_name(cut->log, i);

		if (g_str_has_suffix(name, ".qcow2") && !fn(name, error))
			return false;
	}
	return true;
}

/* The disk was empty when the bitmaps began: whatever is not zero must be in them. */
static bool bitmaps_true(const struct cutting *c, GError **error)
{
	struct disk now = {0}, empty = {0};
	unsigned trusted;
	bool ok = true;

	if (!c->c->bitmaps)
		return true;
	ok = disk_read(c->c->bitmaps, NULL, &now, error);
	if (ok) {
		empty.size = now.size;
		empty.bytes = g_malloc0(now.size);
		ok = judge_bitmaps(c->c->bitmaps, &empty, &now, &trusted, error);
	}
	disk_clear(&now);
	disk_clear(&empty);
	return ok;
}

/* Looks again, after something that must not have changed what was seen. */
static bool still(const struct cutting *c, const struct view *v, const char *when, GError **error)
{
	struct view now;
	uint64_t where = 0;
	bool ok = view_read(&now, c->top, error);

	if (ok && !(disk_equal(&v->disk, &now.disk, &where) && same_snapshots(v, &now) &&
		    same_snapshots(&now, v))) {
		fail(error, when, c->top, where);
		ok = false;
	}
	ok = ok && snapshots_allowed(c, &now, error);
	view_clear(&now);
	return ok;
}

static bool run_again(struct cutting *c, const struct cut *cut, const struct view *v,
		      GError **error)
{
	g_autofree char *said = NULL;
	int status = run_command(c->c, &said);

	if (status != 0) {
		if (c->c->again == AGAIN_UNLESS_DONE && is_after(c, v))
			return true;
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_FAILED, "run again: status %d: %s",
			    status, said);
		return false;
	}
	return still(c, &c->after, "differs after the command was run again", error) &&
	       each_qcow2(cut, judge_check, error);
}

static bool afterwards(struct cutting *c, const struct cut *cut, struct view *v, GError **error)
{
	bool raw = g_str_has_suffix(c->top, ".raw");

	switch (cut->number % 3) {
	case 0:
		return each_qcow2(cut, judge_repair, error) &&
		       still(c, v, "differs after the repair", error);
	case 1:
		return c->c->again == AGAIN_NEVER || run_again(c, cut, v, error);
	default:
		return raw || c->c->damaged ||
		       (guest_goes_on(c->top, cut->seed + 1, &v->disk, error) &&
			still(c, v, "differs after more writes", error) &&
			each_qcow2(cut, judge_check, error));
	}
}

static bool judge(void *arg, const struct cut *cut, GError **error)
{
	struct cutting *c = arg;
	bool ended = cut->position == record_log_length(cut->log);
	struct view v;
	bool ok;

	if (c->c->fresh && !ended) {
		/* Not there yet, or whole. */
		ok = view_read(&v, c->top, NULL);
		view_clear(&v);
		return !ok || each_qcow2(cut, judge_check, error);
	}
	ok = (c->c->damaged && !ended) || each_qcow2(cut, judge_check, error);
	if (ok && cut->ask_qemu && !c->c->damaged)
		ok = each_qcow2(cut, judge_by_qemu, error);
	ok = ok && view_read(&v, c->top, error);
	if (!ok)
		return false;
	ok = view_allowed(c, &v, ended, error);
	ok = ok && bitmaps_true(c, error);
	if (ok && !c->c->between && !c->c->fresh)
		ok = afterwards(c, cut, &v, error) && bitmaps_true(c, error);
	view_clear(&v);
	return ok;
}

int main(int argc, char **argv)
{
	struct crash_options o = {.cuts = 8, .seeds = 6, .ask_qemu = 10};
	struct crash_counts counts = {0};

	image_set_formats(formats_table);
	if (!crash_begin(&o, argc, argv))
		return 77;
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		struct cutting c = {.c = &cases[i],
				    .top = cases[i].top ? cases[i].top : "disk.qcow2"};
		struct plan plan = {cases[i].name, prepare, run, judge, &c};

		crash_run(&plan, &o, &counts);
		view_clear(&c.before);
		view_clear(&c.after);
	}
	return crash_end(&counts);
}
