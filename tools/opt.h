/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One table a command: it parses the command line and makes the help. */
#ifndef IMGFS_TOOLS_OPT_H
#define IMGFS_TOOLS_OPT_H

#include <glib.h>
#include <stdbool.h>

/* Options without a short letter; the others are known by their letter. */
enum opt_id {
	OPT_OBJECT = 256,
	OPT_ADD,
	OPT_REMOVE,
	OPT_CLEAR,
	OPT_ENABLE,
	OPT_DISABLE,
	OPT_MERGE,
	OPT_IMAGE_OPTS,
	OPT_REFERENCES,
	OPT_OUTPUT,
	OPT_BACKING_CHAIN,
	OPT_ALL,
	OPT_TARGET_IMAGE_OPTS,
	OPT_TARGET_IS_ZERO,
	OPT_SALVAGE,
	OPT_BITMAPS,
	OPT_SKIP_BROKEN,
	OPT_FLUSH_INTERVAL,
	OPT_NO_DRAIN,
	OPT_PATTERN,
	OPT_SIZE,
	OPT_PREALLOCATION,
	OPT_SHRINK,
	OPT_LIST_REFERENCES,
	OPT_ALL_FIELDS,
	OPT_FORCE,
};

struct opt {
	int id;		  /* a letter or enum opt_id; 0 ends the table */
	const char *name; /* long name, NULL: none */
	const char *arg;  /* what stands for the argument in help, NULL: takes none */
	const char *help; /* one line */
};

/* How a command gets on with an image that a mount of imgfs has open for writing. */
enum mounted_way {
	MOUNTED_REFUSED,
	MOUNTED_HELD, /* reads it while the mount holds it still */
	MOUNTED_SENT, /* is carried out by the mount: run is told by args->mount */
};

struct args;
struct command {
	const char *name;
	int (*run)(struct args *args); /* in a coroutine; the exit status */
	const struct opt *options;
	const char *operands;	 /* for the synopsis */
	const char *summary;	 /* one line */
	const char *examples[3]; /* without the program's name */
	bool last_is_operand;	 /* even when it begins with '-': a size to subtract */
	enum mounted_way mounted_read, mounted_write; /* opens it only to read / to change it */
	int usage_status; /* of a wrong command line; 1 as qemu-img has it everywhere */
};

struct args {
	const struct command *command;
	GArray *given; /* struct given, in order */
	char **operands;
	int n;
	struct gate *gate; /* made by tool_open from --allow-references */
	/* through.c: set by tool_open, ended by through_end. */
	struct mounted *mount;	    /* carries the command out */
	bool mount_said;	    /* so */
	char *mounted_name;	    /* the image that it has */
	const char *mounted_format; /* as we see it */
	GPtrArray *holds;
};

enum opt_result { OPT_OK, OPT_WANTS_HELP, OPT_WRONG };
/* Parses argv[0] == the command's name and what follows; argv is permuted. *wrong is a
 * sentence of what was not understood, to be freed. */
enum opt_result opt_parse(const struct command *command, int argc, char **argv, struct args *args,
			  char **wrong);
void opt_clear(struct args *args);

bool opt_given(const struct args *args, int id);
const char *opt_value(const struct args *args, int id); /* the last one given, NULL: none */
/* The i-th value of a repeated option, NULL after the last. */
const char *opt_nth(const struct args *args, int id, unsigned i);
/* The i-th option of the command line, for commands in which their order matters: its id, and its
 * value (NULL: it takes none). 0 after the last. */
int opt_at(const struct args *args, unsigned i, const char **value);

/* Whole help of a command, at most 25 lines beside the options. Caller frees. */
char *opt_help(const struct command *command, const char *program);
/* The name in the list (ending with NULL name) nearest to word; NULL when none is near. */
const char *opt_nearest(const char *word, const struct command *commands);

#endif
