/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the commands share: messages, opening, progress. */
#ifndef IMGFS_TOOLS_TOOL_H
#define IMGFS_TOOLS_TOOL_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "image/image.h"
#include "tools/opt.h"

/* main.c */
extern const char *tool_name; /* "imgtool", or "qemu-img" when called so */
extern bool tool_is_qemu;
extern const struct command *const tool_commands[]; /* by name; NULL ends them */

/* tool.c: "NAME: sentence" on stderr. */
void tool_error(const char *format, ...) G_GNUC_PRINTF(1, 2);
/* Says *error (with a prefix when there is one), and frees it. */
void tool_say(GError *error, const char *prefix);
/* tool_error and the hint at --help; returns the command's status for it. */
int tool_usage(const struct args *args, const char *format, ...) G_GNUC_PRINTF(2, 3);

struct tool_source {
	const char *format;	 /* -f; NULL: probe */
	unsigned flags;		 /* enum image_flags; -U is added from args */
	const char *cache;	 /* a word; NULL: writeback */
	const char *cache_wrong; /* message for a wrong word, with %s for it; NULL: the usual */
	enum aio_engine aio;
	unsigned writable_depth; /* as of struct image_open_options */
	bool with_image_opts;	 /* name is an option string */
};
/*
 * Opens name as the command line says; NULL after saying why. NULL without a word and args->mount
 * set: a mount has it, and carries the command out (through.h), which only commands with
 * MOUNTED_SENT meet.
 */
struct image *tool_open(struct args *args, const char *name, const struct tool_source *s);
/* What comes from standard input. NULL after saying why. */
struct image *tool_open_stdin(struct args *args, const struct tool_source *s);
/* The same for commands with --image-opts, -f and -U in their table and one operand;
 * says what is wrong with the operands too. */
struct image *tool_open_operand(struct args *args, unsigned flags, const char *cache);
/* object.c: false after saying which --object is wrong. main asks it for every command. */
bool tool_check_objects(const struct args *args);
/* Is this the file of the image or of one below it? */
bool tool_chain_has(const struct image *img, const struct stat *st);
/* false after saying that -f and --image-opts exclude each other. */
bool tool_check_common(struct args *args);
/*
 * Closes the image that a command changed, flushed with what it changed below it; status, or 1
 * after saying that this failed: closing alone would not tell. No second sentence when status is a
 * failure already.
 */
int tool_close(struct image *img, int status);
/* The gate of --allow-references. NULL after saying why. */
struct gate *tool_gate(struct args *args);
/* --output: false after saying so. */
bool tool_output_is_json(const struct args *args, bool *json);
/* units_parse of 0..max that says what is wrong itself. */
bool tool_size(const char *text, const char *what, uint64_t min, uint64_t max, uint64_t *value);
/* -r into t, which stays without a limit when it is not given. false after saying why. */
struct throttle;
bool tool_rate(const struct args *args, struct throttle *t);
/* The snapshot param of img; takes img over. NULL after saying why. */
struct image *tool_view(struct image *img, const char *param);
/* Every -o joined into a fresh set; NULL after saying why. */
struct options *tool_option_list(const struct args *args);
/* Is `-o help` or `-o ?` asked for? */
bool tool_wants_option_help(const struct args *args);
/*
 * What a new image's options leave open about its backing file: opens it as the image `name` would
 * (unless `unsafe`), and fills in its size and its format. false after saying why.
 */
bool tool_settle_backing(struct args *args, const char *name, struct options *o, bool unsafe);
int tool_print_option_help(const struct format *format, bool with_file);
/* "Formatting 'f', fmt=raw size=...". */
void tool_print_formatting(const char *filename, const struct format *format,
			   const struct options *o);

/* progress.c */
struct progress {
	bool shown;
	double step, last;
};
void progress_begin(struct progress *p, bool shown, double step);
void progress_update(struct progress *p, uint64_t done, uint64_t total);
void progress_end(struct progress *p);
/* SIGINT or SIGTERM came; the command ends soon and main dies of it. */
bool tool_interrupted(void);
void tool_catch_signals(void);
/* For commands that change nothing: a signal ends them where they are. */
void tool_let_signals_end(void);
void tool_die_of_signal(void); /* returns when there was none */
/* What a job of image/ calls for the two; arg is the struct progress. */
void tool_progressed(void *arg, uint64_t done, uint64_t total);
bool tool_cancelled(void *arg);

#define OPT_DEFINE_OBJECT                                                                          \
	{                                                                                          \
		OPT_OBJECT, "object", "OBJECTDEF", "define an object, such as a secret"            \
	}
#define OPT_OPTION_STRING                                                                          \
	{                                                                                          \
		OPT_IMAGE_OPTS, "image-opts", NULL,                                                \
			"the file name is an option string: driver=...,file.filename=..."          \
	}
#define OPT_GATE                                                                                   \
	{                                                                                          \
		OPT_REFERENCES, "allow-references", "DIR|any",                                     \
			"where files named inside images may lie, beside the image's own folder"   \
	}
#define OPT_FORCE_SHARE                                                                            \
	{                                                                                          \
		'U', "force-share", NULL, "open although another process writes"                   \
	}
/* Of commands that read an image, and of those that write to one, which -U cannot be about. */
#define OPTS_OPEN  OPT_DEFINE_OBJECT, OPT_OPTION_STRING, OPT_FORCE_SHARE, OPT_GATE
#define OPTS_WRITE OPT_DEFINE_OBJECT, OPT_OPTION_STRING, OPT_GATE
#define OPT_FORMAT                                                                                 \
	{                                                                                          \
		'f', "format", "FMT", "the image's format (default: found out)"                    \
	}
#define OPT_QUIET                                                                                  \
	{                                                                                          \
		'q', "quiet", NULL, "print errors only"                                            \
	}
#define OPT_FORMAT_OUTPUT                                                                          \
	{                                                                                          \
		OPT_OUTPUT, "output", "human|json", "how to print (default: human)"                \
	}

extern const struct command command_amend;
extern const struct command command_bench;
extern const struct command command_bitmap;
extern const struct command command_check;
extern const struct command command_compare;
extern const struct command command_completion;
extern const struct command command_convert;
extern const struct command command_create;
extern const struct command command_dd;
extern const struct command command_info;
extern const struct command command_map;
extern const struct command command_measure;
extern const struct command command_commit;
extern const struct command command_rebase;
extern const struct command command_resize;
extern const struct command command_snapshot;

#endif
