/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* imgtool: finds the command, and runs it whole in one coroutine. */
#include "config.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "formats/formats.h"
#include "io/loop.h"
#include "io/memory.h"
#include "io/pool.h"
#include "tools/through.h"
#include "tools/tool.h"

const char *tool_name = "imgtool";
bool tool_is_qemu;

/* A line each, so that additions do not meet. */
/* clang-format off */
const struct command *const tool_commands[] = {
	&command_amend,
	&command_bench,
	&command_bitmap,
	&command_check,
	&command_commit,
	&command_compare,
	&command_completion,
	&command_convert,
	&command_create,
	&command_dd,
	&command_info,
	&command_map,
	&command_measure,
	&command_rebase,
	&command_resize,
	&command_snapshot,
	NULL,
};
/* clang-format on */

static const struct command *find(const char *name)
{
	for (unsigned i = 0; tool_commands[i]; i++)
		if (strcmp(tool_commands[i]->name, name) == 0)
			return tool_commands[i];
	return NULL;
}

static void print_version(void)
{
	printf("%s version %s\n", tool_name, PACKAGE_VERSION);
}

static int print_help(void)
{
	print_version();
	printf("usage: %s [standard options] command [command options]\n"
	       "Disk image utility\n\n"
	       "    '-h', '--help'       display this help and exit\n"
	       "    '-V', '--version'    output version information and exit\n"
	       "    '-T', '--trace'      accepted for qemu-img's sake, without effect\n\n"
	       "Commands (more with: %s help COMMAND):\n",
	       tool_name, tool_name);
	for (unsigned i = 0; tool_commands[i]; i++)
		printf("  %-10s %s\n", tool_commands[i]->name, tool_commands[i]->summary);
	printf("\nSizes are in bytes or have one of the suffixes k M G T P E (powers of 1024).\n\n"
	       "Supported formats:");
	for (unsigned i = 0; formats_table[i]; i++)
		printf(" %s", formats_table[i]->name);
	printf("\n");
	return 0;
}

static int unknown_command(const char *name)
{
	struct command names[G_N_ELEMENTS(tool_commands)] = {{0}};
	const char *near;
	int status;

	for (unsigned i = 0; tool_commands[i]; i++)
		names[i] = *tool_commands[i];
	near = opt_nearest(name, names);
	status = tool_usage(NULL, "Command not found: %s", name);
	if (near && !tool_is_qemu)
		fprintf(stderr, "Did you mean '%s'?\n", near);
	return status;
}

static int print_command_help(const struct command *c)
{
	g_autofree char *text = NULL;

	if (tool_is_qemu)
		return print_help();
	text = opt_help(c, tool_name);
	fputs(text, stdout);
	return 0;
}

static int help_command(int argc, char **argv)
{
	const struct command *c;

	if (argc < 2)
		return print_help();
	c = find(argv[1]);
	return c ? print_command_help(c) : unknown_command(argv[1]);
}

static int in_coroutine(void *arg)
{
	struct args *args = arg;

	return through_end(args, tool_check_objects(args) ? args->command->run(args) : 1);
}

static int run(struct args *args)
{
	GError *error = NULL;
	struct loop *loop = loop_new(&error);
	int status;

	if (!loop) {
		tool_say(error, NULL);
		return 1;
	}
	memory_keep_large_buffers();
	file_allow_many();
	tool_catch_signals();
	status = loop_run(loop, in_coroutine, args);
	opt_clear(args);
	codec_cache_clear();
	loop_free(loop);
	pool_shutdown();
	return status;
}

/* What was printed must have arrived: `info >/dev/full` is a failure. */
static int finish(int status)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return status;
	tool_error("Could not write the output: %s", g_strerror(errno));
	return status ? status : 1;
}

static int run_command(const struct command *c, int argc, char **argv)
{
	g_autofree char *wrong = NULL;
	struct args args;

	switch (opt_parse(c, argc, argv, &args, &wrong)) {
	case OPT_WANTS_HELP:
		opt_clear(&args);
		return print_command_help(c);
	case OPT_WRONG:
		opt_clear(&args);
		return tool_usage(NULL, "%s", wrong);
	case OPT_OK:
		break;
	}
	return run(&args);
}

/* The words before the command. Sets *first to its place, or returns a status to end with. */
static int global_options(int argc, char **argv, int *first)
{
	for (int i = 1; i < argc; i++) {
		const char *a = argv[i];

		if (strcmp(a, "-h") == 0 || strcmp(a, "--help") == 0)
			return print_help();
		if (strcmp(a, "-V") == 0 || strcmp(a, "--version") == 0) {
			print_version();
			return 0;
		}
		if (strcmp(a, "-T") == 0 || strcmp(a, "--trace") == 0) {
			if (++i == argc)
				return tool_usage(NULL, "missing argument for option '%s'", a);
			if (i + 1 == argc)
				return 0;
			continue;
		}
		if (g_str_has_prefix(a, "--trace="))
			continue;
		if (a[0] == '-')
			return tool_usage(NULL, "unrecognized option '%s'", a);
		*first = i;
		return 0;
	}
	return argc > 1 ? 0 : tool_usage(NULL, "Not enough arguments");
}

int main(int argc, char **argv)
{
	g_autofree char *called = g_path_get_basename(argc > 0 ? argv[0] : "imgtool");
	const struct command *c;
	int first = 0, status;

	tool_is_qemu = strcmp(called, "qemu-img") == 0;
	if (tool_is_qemu)
		tool_name = "qemu-img";
	image_set_formats(formats_table);
	signal(SIGPIPE, SIG_IGN); /* a closed pipe is a failed write, told as one */
	status = global_options(argc, argv, &first);
	if (!first)
		return finish(status);
	argc -= first;
	argv += first;
	c = find(argv[0]);
	if (c)
		status = run_command(c, argc, argv);
	else if (strcmp(argv[0], "help") == 0)
		status = help_command(argc, argv);
	else
		status = unknown_command(argv[0]);
	status = finish(status);
	tool_die_of_signal();
	return status;
}
