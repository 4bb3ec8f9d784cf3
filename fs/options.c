/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "fs/options.h"

#include <errno.h>
#include <getopt.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "image/image.h"

enum word_kind {
	WORD_FLAG,    /* bool */
	WORD_TEXT,    /* =TEXT into a char * */
	WORD_NUMBER,  /* =N into an uint64_t, at most limit */
	WORD_OCTAL,   /* =OOO, the same */
	WORD_SIZE,    /* =SIZE, the same, with a suffix */
	WORD_LIST,    /* =TEXT, added to a GPtrArray */
	WORD_CHOICE,  /* =WORD into an int, by parse; why lists the words */
	WORD_MODE,    /* bool as WORD_FLAG; takes back the other one of ro and rw */
	WORD_KERNEL,  /* handed to the kernel as it is */
	WORD_NOTHING, /* says what is so anyway, or speaks to mount(8) */
	WORD_REFUSED, /* why says why */
};

struct word {
	const char *name;
	enum word_kind kind;
	size_t offset;
	uint64_t limit;
	const char *help; /* NULL: not shown */
	bool (*parse)(const char *word, int *value);
	const char *why;
};

#define AT(field) offsetof(struct mount_options, field)

static bool parse_discard(const char *word, int *value)
{
	enum discard_mode mode;
	bool ok = discard_mode_parse(word, &mode);

	if (ok)
		*value = mode;
	return ok;
}

static bool parse_detect_zeroes(const char *word, int *value)
{
	enum detect_zeroes detect;
	bool ok = detect_zeroes_parse(word, &detect);

	if (ok)
		*value = detect;
	return ok;
}

static bool parse_cache(const char *word, int *value)
{
	enum cache_mode mode;
	bool ok = cache_mode_parse(word, &mode);

	if (ok)
		*value = mode;
	return ok;
}

static const struct word words[] = {
	{"ro", WORD_MODE, AT(ro), 0, "read-only: the image is never written to (the default)"},
	{"rw", WORD_MODE, AT(rw), 0, "writes go to the image"},
	{"writable", WORD_FLAG, AT(writable), 0,
	 "as rw, for fstab and mount(8), which always say rw"},
	{"overlay=", WORD_TEXT, AT(overlay), 0,
	 "writes go to this qcow2 file, made or continued, not to the image"},
	{"scratch", WORD_FLAG, AT(scratch), 0, "writes are thrown away at the end"},
	{"scratch=", WORD_SIZE, AT(scratch_memory), UINT64_C(1) << 40,
	 "the same; so much in memory (256M), more in a file in $TMPDIR"},
	{"discard=", WORD_CHOICE, AT(discard), 0,
	 "discarded space: unmap gives it to the host (default), ignore does not", parse_discard,
	 "unmap, ignore"},
	{"detect_zeroes=", WORD_CHOICE, AT(detect_zeroes), 0,
	 "written zeroes: on takes no space for them, unmap gives it back too, or off",
	 parse_detect_zeroes, "off, on, unmap"},
	{"sync", WORD_KERNEL, 0, 0, "each write is on disk when it returns"},
	{"cache=", WORD_CHOICE, AT(cache), 0,
	 "of the host: none, writeback (default), writethrough, directsync or unsafe", parse_cache,
	 "none, writeback, writethrough, directsync, unsafe"},
	{"allow_other", WORD_FLAG, AT(allow_other), 0,
	 "other users may read too, as far as the image file's mode lets them"},
	{"allow_root", WORD_FLAG, AT(allow_root), 0, "root may read too"},
	{"auto_unmount", WORD_FLAG, AT(auto_unmount), 0,
	 "unmount even if imgfs is killed (a user needs allow_root or allow_other with it)"},
	{"fsname=", WORD_TEXT, AT(fsname), 0, "first column of /proc/mounts (default: the image)"},
	{"subtype=", WORD_TEXT, AT(subtype), 0, "type after \"fuse.\" (default: imgfs)"},
	{"uid=", WORD_NUMBER, AT(uid), UINT32_MAX - 1, "owner of the files"},
	{"gid=", WORD_NUMBER, AT(gid), UINT32_MAX - 1, "group of the files"},
	{"umask=", WORD_OCTAL, AT(umask), 0777, "permissions to take away, octal"},
	{"max_threads=", WORD_NUMBER, AT(max_threads), MOUNT_MAX_THREADS,
	 "loops that answer (default: processors, at most 4)"},
	{"cache_size=", WORD_SIZE, AT(cache_size), UINT64_C(1) << 40,
	 "metadata cache (default: 32M)"},
	{"format=", WORD_TEXT, AT(format), 0, "format of the image (default: probed)"},
	{"snapshot=", WORD_TEXT, AT(snapshot), 0,
	 "disk.raw shows this internal snapshot (ID or name)"},
	{"allow_references=", WORD_LIST, AT(allow_references), 0,
	 "open files named in the image below this directory, or \"any\""},
	{"remount", WORD_REFUSED, .why = "not supported: unmount it and mount it again"},
	/* What libfuse's programs accept, and what is always so here. */
	{"default_permissions", WORD_NOTHING, 0, 0, NULL},
	{"clone_fd", WORD_NOTHING, 0, 0, NULL},
	{"kernel_cache", WORD_NOTHING, 0, 0, NULL},
	{"use_ino", WORD_NOTHING, 0, 0, NULL},
	{"nonempty", WORD_NOTHING, 0, 0, NULL},
	/* The kernel's own. */
	{"suid", WORD_KERNEL, 0, 0, NULL},
	{"nosuid", WORD_KERNEL, 0, 0, NULL},
	{"dev", WORD_KERNEL, 0, 0, NULL},
	{"nodev", WORD_KERNEL, 0, 0, NULL},
	{"exec", WORD_KERNEL, 0, 0, NULL},
	{"noexec", WORD_KERNEL, 0, 0, NULL},
	{"atime", WORD_KERNEL, 0, 0, NULL},
	{"noatime", WORD_KERNEL, 0, 0, NULL},
	{"async", WORD_KERNEL, 0, 0, NULL},
	{"dirsync", WORD_KERNEL, 0, 0, NULL},
	/* For mount(8), fstab and systemd. */
	{"defaults", WORD_NOTHING, 0, 0, NULL},
	{"auto", WORD_NOTHING, 0, 0, NULL},
	{"noauto", WORD_NOTHING, 0, 0, NULL},
	{"user", WORD_NOTHING, 0, 0, NULL},
	{"user=", WORD_NOTHING, 0, 0, NULL},
	{"nouser", WORD_NOTHING, 0, 0, NULL},
	{"users", WORD_NOTHING, 0, 0, NULL},
	{"owner", WORD_NOTHING, 0, 0, NULL},
	{"group", WORD_NOTHING, 0, 0, NULL},
	{"nofail", WORD_NOTHING, 0, 0, NULL},
	{"fail", WORD_NOTHING, 0, 0, NULL},
	{"_netdev", WORD_NOTHING, 0, 0, NULL},
	{"relatime", WORD_NOTHING, 0, 0, NULL},
	{"norelatime", WORD_NOTHING, 0, 0, NULL},
	{"strictatime", WORD_NOTHING, 0, 0, NULL},
	{"nostrictatime", WORD_NOTHING, 0, 0, NULL},
	{"lazytime", WORD_NOTHING, 0, 0, NULL},
	{"nolazytime", WORD_NOTHING, 0, 0, NULL},
	{"diratime", WORD_NOTHING, 0, 0, NULL},
	{"nodiratime", WORD_NOTHING, 0, 0, NULL},
	{"iversion", WORD_NOTHING, 0, 0, NULL},
	{"noiversion", WORD_NOTHING, 0, 0, NULL},
	{"silent", WORD_NOTHING, 0, 0, NULL},
	{"loud", WORD_NOTHING, 0, 0, NULL},
	{"comment=", WORD_NOTHING, 0, 0, NULL},
};

static bool usage_error(GError **error, const char *format, ...) G_GNUC_PRINTF(2, 3);
static bool usage_error(GError **error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	if (error)
		*error = g_error_new_valist(IMAGE_ERROR, IMAGE_ERROR_USAGE, format, args);
	va_end(args);
	return false;
}

static bool parse_number(const struct word *w, const char *value, uint64_t *number, GError **error)
{
	unsigned base = w->kind == WORD_OCTAL ? 8 : 10;

	if (!g_ascii_string_to_unsigned(value, base, 0, w->limit, number, NULL))
		return usage_error(error, "-o %s%s: not %s number of at most %" G_GUINT64_FORMAT,
				   w->name, value, base == 8 ? "an octal" : "a", w->limit);
	return true;
}

static bool set_text(char **text, const struct word *w, const char *value, GError **error)
{
	if (!*value)
		return usage_error(error, "-o %s needs a value", w->name);
	g_free(*text);
	*text = g_strdup(value);
	return true;
}

static bool apply_word(struct mount_options *o, const struct word *w, const char *value,
		       GError **error)
{
	void *field = (char *)o + w->offset;

	switch (w->kind) {
	case WORD_FLAG:
		*(bool *)field = true;
		return true;
	case WORD_TEXT:
		return set_text(field, w, value, error);
	case WORD_NUMBER:
	case WORD_OCTAL:
		return parse_number(w, value, field, error);
	case WORD_SIZE:
		/* Its own words are two lines, as qemu-img's. */
		return units_parse(value, w->name, 0, w->limit, field, NULL) ||
		       usage_error(error, "-o %s%s: not a size", w->name, value);
	case WORD_LIST:
		g_ptr_array_add(*(GPtrArray **)field, g_strdup(value));
		return true;
	case WORD_KERNEL:
		g_string_append_printf(o->kernel, ",%s", w->name);
		return true;
	case WORD_NOTHING:
		return true;
	case WORD_CHOICE:
		return w->parse(value, field) ||
		       usage_error(error, "-o %s%s: not one of %s", w->name, value, w->why);
	case WORD_MODE:
		o->ro = o->rw = false;
		*(bool *)field = true;
		return true;
	case WORD_REFUSED:
		return usage_error(error, "-o %s: %s", w->name, w->why);
	}
	return true;
}

/* text is none of the words; one that only lacks its value, or has one too many, is told so. */
static bool refuse_word(const char *text, size_t len, GError **error)
{
	bool has_value = text[len - 1] == '=';
	size_t name = has_value ? len - 1 : len;

	for (unsigned i = 0; i < G_N_ELEMENTS(words); i++) {
		const struct word *w = &words[i];

		if (strlen(w->name) != (has_value ? name : name + 1) ||
		    strncmp(w->name, text, name) != 0)
			continue;
		if (has_value)
			return usage_error(error, "-o %s: %s takes no value", text, w->name);
		if (w->name[name] == '=')
			return usage_error(error, "-o %s needs a value%s%s", w->name,
					   w->why ? ", one of " : "", w->why ? w->why : "");
	}
	return usage_error(error, "-o %s: unknown option (imgfs --help lists them)", text);
}

/* One word of -o, unescaped. */
static bool parse_word(struct mount_options *o, const char *text, GError **error)
{
	const char *equals = strchr(text, '=');
	size_t len = equals ? (size_t)(equals - text) + 1 : strlen(text);

	/* x-systemd.automount and the like are for others; X- also for mount(8) alone. */
	if (g_str_has_prefix(text, "x-") || g_str_has_prefix(text, "X-"))
		return true;
	for (unsigned i = 0; i < G_N_ELEMENTS(words); i++)
		if (strlen(words[i].name) == len && !strncmp(words[i].name, text, len))
			return apply_word(o, &words[i], text + len, error);
	if (o->sloppy)
		return true;
	return refuse_word(text, len, error);
}

/* "a,b=c\,d,e": a backslash takes the meaning from the character after it. */
static bool parse_words(struct mount_options *o, const char *text, GError **error)
{
	g_autoptr(GString) word = g_string_new(NULL);

	for (;; text++) {
		if (*text == '\\' && text[1]) {
			g_string_append_c(word, *++text);
		} else if (*text && *text != ',') {
			g_string_append_c(word, *text);
		} else {
			if (word->len && !parse_word(o, word->str, error))
				return false;
			g_string_truncate(word, 0);
			if (!*text)
				return true;
		}
	}
}

enum { OPTION_PIDFILE = 256 };

static const struct option long_options[] = {
	{"help", no_argument, NULL, 'h'},
	{"version", no_argument, NULL, 'V'},
	{"foreground", no_argument, NULL, 'f'},
	{"debug", no_argument, NULL, 'd'},
	{"single", no_argument, NULL, 's'},
	{"options", required_argument, NULL, 'o'},
	{"format", required_argument, NULL, 'F'},
	{"pidfile", required_argument, NULL, OPTION_PIDFILE},
	{NULL, 0, NULL, 0},
};

static bool parse_switch(struct mount_options *o, int c, GError **error)
{
	switch (c) {
	case 'o':
		return parse_words(o, optarg, error);
	case 'F':
		g_free(o->format);
		o->format = g_strdup(optarg);
		return true;
	case 'f':
		*(o->helper ? &o->fake : &o->foreground) = true;
		return true;
	case 's':
		*(o->helper ? &o->sloppy : &o->single) = true;
		return true;
	case 'd':
		o->debug = o->foreground = true;
		return true;
	case 'h':
		o->help = true;
		return true;
	case 'V':
		o->version = true;
		return true;
	case OPTION_PIDFILE:
		g_free(o->pidfile);
		o->pidfile = g_strdup(optarg);
		return true;
	case 'n': /* no mtab: there is none. v: says nothing more. N, t: mount(8) did it. */
	case 'v':
	case 'N':
	case 't':
		return true;
	case ':':
		return usage_error(error, "option -%c needs a value", optopt);
	default:
		if (optopt && optopt < 256)
			return usage_error(error, "unknown option -%c (imgfs --help lists them)",
					   optopt);
		return usage_error(error, "unknown option (imgfs --help lists them)");
	}
}

/* The last of these words that the kernel is told; NULL: none of them. */
static const char *last_of(const struct mount_options *o, const char *a, const char *b)
{
	g_auto(GStrv) told = g_strsplit(o->kernel->str, ",", -1);
	const char *last = NULL;

	for (char **word = told; *word; word++) {
		if (strcmp(*word, a) == 0)
			last = a;
		else if (strcmp(*word, b) == 0)
			last = b;
	}
	return last;
}

/*
 * mount(8) says rw where nobody said ro, so its rw asks for nothing. It calls a helper by that
 * name, or has mount.fuse3 call imgfs, which adds what it takes for the defaults.
 */
static bool is_from_mount(const struct mount_options *o)
{
	return o->helper || (last_of(o, "dev", "nodev") && last_of(o, "suid", "nosuid"));
}

static bool excludes(const char *a, const char *b, GError **error)
{
	return usage_error(error, "-o %s and -o %s exclude each other", a, b);
}

static bool choose_mode(struct mount_options *o, GError **error)
{
	const char *elsewhere = o->overlay ? "overlay=" : "scratch";
	bool asked = o->writable || (o->rw && !is_from_mount(o));

	o->scratch = o->scratch || o->scratch_memory != UINT64_MAX;
	if (o->scratch_memory == UINT64_MAX)
		o->scratch_memory = MOUNT_SCRATCH_MEMORY;
	if (o->overlay && o->scratch)
		return excludes("overlay=", "scratch", error);
	if (o->overlay || o->scratch) {
		if (o->ro)
			return excludes("ro", elsewhere, error);
		if (o->writable)
			return excludes("writable", elsewhere, error);
		o->mode = o->overlay ? MODE_OVERLAY : MODE_SCRATCH;
	} else {
		/* ro on mount(8)'s command line is for once, whatever fstab says. */
		o->mode = asked && !o->ro ? MODE_RW : MODE_RO;
		o->rw_by_mount = o->rw && !asked;
	}
	if (o->snapshot && o->mode != MODE_RO)
		return usage_error(error,
				   "-o snapshot= shows what cannot be written to, and excludes "
				   "-o %s",
				   mount_mode_name(o->mode));
	return true;
}

/* What becomes of space only means something where there are writes. */
static bool check_space(struct mount_options *o, GError **error)
{
	const char *word = o->discard != DISCARD_DEFAULT ? "discard="
			   : o->detect_zeroes >= 0	 ? "detect_zeroes="
							 : NULL;

	/* With ro on mount(8)'s command line, the rest of fstab's line does not matter. */
	if (word && o->mode == MODE_RO && !(o->ro && o->writable))
		return usage_error(error,
				   "-o %s needs a writable mount (-o %s, overlay= or scratch)",
				   word, is_from_mount(o) ? "writable" : "rw");
	if (o->detect_zeroes == DETECT_ZEROES_UNMAP && o->discard == DISCARD_IGNORE)
		return excludes("detect_zeroes=unmap", "discard=ignore", error);
	return true;
}

/* sync is another way to say that writes go through the caches. */
static bool check_cache(struct mount_options *o, GError **error)
{
	const char *last = last_of(o, "sync", "async");

	o->sync = last && strcmp(last, "sync") == 0;
	if (o->sync && o->cache == CACHE_UNSAFE)
		return excludes("sync", "cache=unsafe", error);
	if (o->sync && o->cache == CACHE_WRITEBACK)
		return excludes("sync", "cache=writeback", error);
	/* The kernel has a cache of its own above the image's. */
	if (!o->sync && (o->cache == CACHE_WRITETHROUGH || o->cache == CACHE_DIRECTSYNC)) {
		g_string_append(o->kernel, ",sync");
		o->sync = true;
	}
	return true;
}

const char *mount_mode_name(enum mount_mode mode)
{
	static const char *const names[] = {
		[MODE_RO] = "ro",
		[MODE_RW] = "rw",
		[MODE_OVERLAY] = "overlay",
		[MODE_SCRATCH] = "scratch",
	};

	return names[mode];
}

static bool check(struct mount_options *o, GError **error)
{
	if (!o->image)
		return usage_error(error, "no image was named (usage: imgfs [-o OPTIONS] IMAGE "
					  "MOUNTPOINT)");
	if (!o->mountpoint)
		return usage_error(error,
				   "%s: no mount point was named (usage: imgfs [-o OPTIONS] "
				   "IMAGE MOUNTPOINT)",
				   o->image);
	if (o->allow_other && o->allow_root)
		return excludes("allow_other", "allow_root", error);
	return choose_mode(o, error) && check_space(o, error) && check_cache(o, error);
}

bool mount_options_parse(struct mount_options *o, int argc, char **argv, GError **error)
{
	const char *slash = strrchr(argv[0] ? argv[0] : "", '/');
	int c;

	memset(o, 0, sizeof(*o));
	o->uid = o->gid = o->scratch_memory = UINT64_MAX;
	o->detect_zeroes = o->cache = -1;
	o->allow_references = g_ptr_array_new_with_free_func(g_free);
	o->kernel = g_string_new(NULL);
	o->helper = g_str_has_prefix(slash ? slash + 1 : argv[0] ? argv[0] : "", "mount.");
	optind = 0; /* glibc: start over, for tests that parse more than once */
	opterr = 0;
	/* mount(8) may give -s after -o: it counts for all words. */
	for (int i = 1; o->helper && i < argc; i++)
		if (!strcmp(argv[i], "-s"))
			o->sloppy = true;
	while ((c = getopt_long(argc, argv, ":o:F:fdshVnvN:t:", long_options, NULL)) != -1)
		if (!parse_switch(o, c, error))
			return false;
	if (o->help || o->version)
		return true;
	if (optind < argc)
		o->image = g_strdup(argv[optind++]);
	if (optind < argc)
		o->mountpoint = g_strdup(argv[optind++]);
	if (optind < argc)
		return usage_error(error, "%s: one argument too many", argv[optind]);
	return check(o, error);
}

void mount_options_clear(struct mount_options *o)
{
	g_free(o->image);
	g_free(o->mountpoint);
	g_free(o->pidfile);
	g_free(o->fsname);
	g_free(o->subtype);
	g_free(o->format);
	g_free(o->snapshot);
	g_free(o->overlay);
	if (o->allow_references)
		g_ptr_array_unref(o->allow_references);
	if (o->kernel)
		g_string_free(o->kernel, TRUE);
	memset(o, 0, sizeof(*o));
}

void mount_options_help(FILE *out)
{
	fputs("usage: imgfs [options] IMAGE MOUNTPOINT\n"
	      "\n"
	      "Shows a disk image with its backing files and internal snapshots as raw files,\n"
	      "read-only unless it is told otherwise.\n"
	      "MOUNTPOINT is a directory, or a regular file, which then becomes the disk itself.\n"
	      "Unmount with: fusermount3 -u MOUNTPOINT\n"
	      "\n"
	      "  -F, --format FORMAT    the same as -o format=FORMAT\n"
	      "  -f, --foreground       stay in the foreground; messages go to stderr\n"
	      "  -d, --debug            as -f, and tell each request\n"
	      "  -s, --single           one loop only\n"
	      "      --pidfile FILE     write the process number to FILE when mounted\n"
	      "  -h, --help             this text\n"
	      "  -V, --version          versions of imgfs and of libfuse\n"
	      "  -o OPTION[,OPTION...]:\n",
	      out);
	for (unsigned i = 0; i < G_N_ELEMENTS(words); i++)
		if (words[i].help)
			fprintf(out, "      %-18s %s\n", words[i].name, words[i].help);
	fputs("Options of mount(8) (nosuid, noexec, nofail, x-...) are accepted as well.\n", out);
}
