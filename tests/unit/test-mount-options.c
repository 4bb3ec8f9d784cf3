/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The command line of imgfs, in the forms that people, mount(8) and its helpers use. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "fs/options.h"

#define MAX_WORDS 32

/* Parses "imgfs a b -o c"; the words are split at blanks. */
static bool parse(struct mount_options *o, const char *line, GError **error)
{
	g_auto(GStrv) argv = g_strsplit(line, " ", MAX_WORDS);
	char *copy[MAX_WORDS + 1];
	int argc = (int)g_strv_length(argv);

	/* getopt sorts the array that it is given. */
	memcpy(copy, argv, sizeof(*copy) * ((size_t)argc + 1));
	return mount_options_parse(o, argc, copy, error);
}

static void good(struct mount_options *o, const char *line)
{
	g_autoptr(GError) error = NULL;

	if (!parse(o, line, &error))
		fail_msg("%s: %s", line, error->message);
}

static void bad(const char *line, const char *words)
{
	g_autoptr(GError) error = NULL;
	struct mount_options o;

	assert_false(parse(&o, line, &error));
	if (!strstr(error->message, words))
		fail_msg("%s: '%s' lacks '%s'", line, error->message, words);
	assert_null(strchr(error->message, '\n'));
	mount_options_clear(&o);
}

static void plain(void **state)
{
	struct mount_options o;

	good(&o, "imgfs disk.qcow2 /mnt");
	assert_string_equal(o.image, "disk.qcow2");
	assert_string_equal(o.mountpoint, "/mnt");
	assert_false(o.foreground || o.single || o.debug || o.helper);
	assert_true(o.uid == UINT64_MAX && o.gid == UINT64_MAX);
	mount_options_clear(&o);
	good(&o, "/usr/bin/imgfs -f -s a b");
	assert_true(o.foreground && o.single);
	mount_options_clear(&o);
	good(&o, "imgfs a -d b");
	assert_true(o.debug && o.foreground);
	mount_options_clear(&o);
}

static void all_words(void **state)
{
	struct mount_options o;

	good(&o, "imgfs a b -o ro,allow_other,auto_unmount,fsname=x\\,y,subtype=z,uid=7,gid=8 "
		 "-o umask=027,max_threads=3,cache_size=64M,format=raw,snapshot=s=1 "
		 "-oallow_references=/a,allow_references=/b");
	assert_true(o.allow_other && o.auto_unmount && !o.allow_root);
	assert_string_equal(o.fsname, "x,y");
	assert_string_equal(o.subtype, "z");
	assert_int_equal(o.uid, 7);
	assert_int_equal(o.gid, 8);
	assert_int_equal(o.umask, 027);
	assert_int_equal(o.max_threads, 3);
	assert_int_equal(o.cache_size, 64 << 20);
	assert_string_equal(o.format, "raw");
	assert_string_equal(o.snapshot, "s=1");
	assert_int_equal(o.allow_references->len, 2);
	mount_options_clear(&o);
}

static void words_of_mount_and_fstab(void **state)
{
	struct mount_options o;

	good(&o, "imgfs a b -o ro,noexec,nosuid,nodev,allow_other,nofail,noauto,user,user=me,"
		 "_netdev,x-systemd.automount,x-systemd.requires-mounts-for=/img,comment=hello,"
		 "defaults,dev,suid,default_permissions");
	assert_string_equal(o.kernel->str, ",noexec,nosuid,nodev,dev,suid");
	mount_options_clear(&o);
	good(&o, "/sbin/mount.fuse.imgfs a b -s -n -v -o ro,foo=1");
	assert_true(o.helper && o.sloppy && !o.single);
	mount_options_clear(&o);
	good(&o, "/sbin/mount.imgfs a b -o ro,foo=1 -s -t imgfs -N /proc/1/ns/mnt");
	assert_string_equal(o.mountpoint, "b");
	mount_options_clear(&o);
	good(&o, "mount.imgfs a b -f");
	assert_true(o.fake && !o.foreground);
	mount_options_clear(&o);
}

static void expect_mode(const char *line, enum mount_mode mode)
{
	struct mount_options o;

	good(&o, line);
	if (o.mode != mode)
		fail_msg("%s: %s", line, mount_mode_name(o.mode));
	mount_options_clear(&o);
}

/* mount(8) says rw unless it is told ro: only who says writable gets it from there. */
static void modes(void **state)
{
	struct mount_options o;

	expect_mode("imgfs a b", MODE_RO);
	expect_mode("imgfs a b -o rw", MODE_RW);
	expect_mode("imgfs a b -o ro,rw", MODE_RW);
	expect_mode("imgfs a b -o rw,nosuid -o ro", MODE_RO);
	expect_mode("imgfs a b -o writable", MODE_RW);
	expect_mode("imgfs a b -o rw,dev,suid", MODE_RO);
	expect_mode("imgfs a b -o rw,noexec,nosuid,nodev", MODE_RO);
	expect_mode("imgfs a b -o rw,dev,suid,writable", MODE_RW);
	expect_mode("mount.imgfs a b -o rw", MODE_RO);
	expect_mode("/sbin/mount.fuse.imgfs a b -o rw,noatime", MODE_RO);
	expect_mode("mount.imgfs a b -o rw,writable", MODE_RW);
	expect_mode("mount.imgfs a b -o ro,writable", MODE_RO);
	expect_mode("mount.imgfs a b -o ro,writable,discard=ignore,detect_zeroes=on", MODE_RO);

	expect_mode("imgfs a b -o overlay=x", MODE_OVERLAY);
	expect_mode("mount.imgfs a b -o rw,scratch", MODE_SCRATCH);

	good(&o, "imgfs a b -o scratch=3M");
	assert_true(o.mode == MODE_SCRATCH && o.scratch_memory == 3 << 20);
	mount_options_clear(&o);
	good(&o, "mount.imgfs a b -o rw");
	assert_true(o.rw_by_mount);
	mount_options_clear(&o);
	good(&o, "imgfs a b -o rw,discard=ignore,detect_zeroes=on,cache=none,async,sync");
	assert_true(o.sync && !o.rw_by_mount);
	assert_int_equal(o.discard, DISCARD_IGNORE);
	assert_int_equal(o.detect_zeroes, DETECT_ZEROES_ON);
	assert_int_equal(o.cache, CACHE_NONE);
	mount_options_clear(&o);
	good(&o, "imgfs a b -o rw,cache=writethrough");
	assert_true(o.sync);
	assert_string_equal(o.kernel->str, ",sync");
	mount_options_clear(&o);
	good(&o, "imgfs a b -o sync,async");
	assert_false(o.sync);
	mount_options_clear(&o);
}

static void refusals(void **state)
{
	bad("imgfs", "no image");
	bad("imgfs a", "no mount point");
	bad("imgfs a b c", "c: one argument too many");
	bad("imgfs a b -o remount,ro", "-o remount: not supported");
	bad("imgfs a b -o rw,snapshot=s", "-o snapshot=");
	bad("imgfs a b -o scratch,snapshot=s", "-o snapshot=");
	bad("imgfs a b -o overlay=x,scratch", "-o overlay= and -o scratch exclude each other");
	bad("imgfs a b -o ro,overlay=x", "-o ro and -o overlay= exclude each other");
	bad("imgfs a b -o overlay=", "overlay=");
	bad("imgfs a b -o scratch=x", "scratch=x");
	bad("imgfs a b -o discard=unmap", "-o discard= needs a writable mount (-o rw,");
	bad("imgfs a b -o ro,detect_zeroes=on", "-o detect_zeroes= needs");
	bad("mount.imgfs a b -o rw,discard=ignore", "(-o writable,");
	bad("imgfs a b -o rw,discard=maybe", "discard=maybe");
	bad("imgfs a b -o rw,discard=", "discard=");
	bad("imgfs a b -o rw,discard=off,detect_zeroes=unmap", "exclude each other");
	bad("imgfs a b -o rw,sync,cache=unsafe", "-o sync and -o cache=unsafe exclude");
	bad("imgfs a b -o rw,sync,cache=writeback", "exclude each other");
	bad("imgfs a b -o cache=some", "cache=some");
	bad("imgfs a b -o foo=1", "foo=1");
	bad("imgfs a b -o ro=1", "ro=1");
	bad("imgfs a b -o uid=x", "uid=x");
	bad("imgfs a b -o uid=-1", "uid=-1");
	bad("imgfs a b -o uid=4294967295", "uid=4294967295");
	bad("imgfs a b -o umask=8", "umask=8");
	bad("imgfs a b -o umask=1000", "umask=1000");
	bad("imgfs a b -o max_threads=17", "max_threads=17");
	bad("imgfs a b -o cache_size=lots", "cache_size=lots");
	bad("imgfs a b -o format=", "format=");
	bad("imgfs a b -o allow_other,allow_root", "exclude");
	bad("imgfs a b -q", "-q");
	bad("imgfs a b -o", "-o");
	bad("mount.imgfs a b -o ro,foo", "foo");
}

static void help_needs_nothing_else(void **state)
{
	struct mount_options o;

	good(&o, "imgfs --help");
	assert_true(o.help);
	mount_options_clear(&o);
	good(&o, "imgfs -V");
	assert_true(o.version);
	mount_options_clear(&o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plain),
		cmocka_unit_test(all_words),
		cmocka_unit_test(words_of_mount_and_fstab),
		cmocka_unit_test(modes),
		cmocka_unit_test(refusals),
		cmocka_unit_test(help_needs_nothing_else),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
