/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* getopt_long behind one table. */
#include "tools/opt.h"

#include <getopt.h>
#include <string.h>

#include "image/image.h"

struct given {
	int id;
	const char *value;
};

static unsigned count(const struct opt *options)
{
	unsigned n = 0;

	while (options[n].id)
		n++;
	return n;
}

/* Leading ':' has getopt tell a missing argument apart from an unknown option. */
static char *short_string(const struct opt *options)
{
	GString *s = g_string_new(":h");

	for (; options->id; options++) {
		if (options->id >= 256)
			continue;
		g_string_append_c(s, (char)options->id);
		if (options->arg)
			g_string_append_c(s, ':');
	}
	return g_string_free(s, FALSE);
}

static struct option *long_table(const struct opt *options)
{
	struct option *table = g_new0(struct option, count(options) + 2), *next = table;

	*next++ = (struct option){"help", no_argument, NULL, 'h'};
	for (; options->id; options++)
		if (options->name)
			*next++ = (struct option){options->name,
						  options->arg ? required_argument : no_argument,
						  NULL, options->id};
	return table;
}

/* The last word, which getopt is not to see; NULL: it may. */
static char *last_operand(const struct command *command, int argc, char **argv)
{
	if (!command->last_is_operand || argc < 3 || strcmp(argv[argc - 1], "--help") == 0 ||
	    strcmp(argv[argc - 1], "-h") == 0)
		return NULL;
	return argv[argc - 1];
}

enum opt_result opt_parse(const struct command *command, int argc, char **argv, struct args *args,
			  char **wrong)
{
	g_autofree char *letters = short_string(command->options);
	g_autofree struct option *table = long_table(command->options);
	char *last = last_operand(command, argc, argv);
	int c;

	argc -= last != NULL;
	*args = (struct args){.command = command};
	args->given = g_array_new(FALSE, FALSE, sizeof(struct given));
	opterr = 0;
	optind = 0; /* glibc: begin anew, also the permutation */
	while ((c = getopt_long(argc, argv, letters, table, NULL)) != -1) {
		struct given given = {c, optarg};

		if (c == 'h')
			return OPT_WANTS_HELP;
		if (c == '?' || c == ':') {
			/* A wrong letter may stand in the middle of a word, a long name never. */
			const char *word = argv[optind - 1];
			bool is_long = g_str_has_prefix(word, "--");
			g_autofree char *letter = g_strdup_printf("-%c", optopt);

			*wrong = g_strdup_printf(c == ':' ? "missing argument for option '%s'"
							  : "unrecognized option '%s'",
						 is_long || !optopt ? word : letter);
			return OPT_WRONG;
		}
		g_array_append_val(args->given, given);
	}
	args->operands = argv + optind;
	args->n = argc - optind + (last != NULL);
	return OPT_OK;
}

void opt_clear(struct args *args)
{
	if (args->given)
		g_array_free(args->given, TRUE);
	gate_free(args->gate);
	*args = (struct args){0};
}

const char *opt_nth(const struct args *args, int id, unsigned i)
{
	for (guint k = 0; k < args->given->len; k++) {
		const struct given *g = &g_array_index(args->given, struct given, k);

		if (g->id == id && i-- == 0)
			return g->value;
	}
	return NULL;
}

int opt_at(const struct args *args, unsigned i, const char **value)
{
	const struct given *g;

	if (i >= args->given->len)
		return 0;
	g = &g_array_index(args->given, struct given, i);
	*value = g->value;
	return g->id;
}

bool opt_given(const struct args *args, int id)
{
	for (guint k = 0; k < args->given->len; k++)
		if (g_array_index(args->given, struct given, k).id == id)
			return true;
	return false;
}

const char *opt_value(const struct args *args, int id)
{
	for (guint k = args->given->len; k-- > 0;) {
		const struct given *g = &g_array_index(args->given, struct given, k);

		if (g->id == id)
			return g->value;
	}
	return NULL;
}

static void help_option(GString *out, const struct opt *o)
{
	g_autoptr(GString) left = g_string_new("  ");

	if (o->id < 256)
		g_string_append_printf(left, "-%c", (char)o->id);
	if (o->name)
		g_string_append_printf(left, "%s--%s", o->id < 256 ? ", " : "", o->name);
	if (o->arg)
		g_string_append_printf(left, "%s%s", o->name ? "=" : " ", o->arg);
	g_string_append_printf(out, "%-30s %s\n", left->str, o->help);
}

char *opt_help(const struct command *command, const char *program)
{
	GString *out = g_string_new(NULL);

	g_string_append_printf(out, "usage: %s %s [options] %s\n%s\n\nOptions:\n", program,
			       command->name, command->operands, command->summary);
	for (const struct opt *o = command->options; o->id; o++)
		help_option(out, o);
	g_string_append(out, "\nExamples:\n");
	for (unsigned i = 0; i < G_N_ELEMENTS(command->examples) && command->examples[i]; i++)
		g_string_append_printf(out, "  %s %s\n", program, command->examples[i]);
	return g_string_free(out, FALSE);
}

/* Edits between two words: single letters added, dropped or changed. */
static unsigned distance(const char *a, const char *b)
{
	size_t la = strlen(a), lb = strlen(b);
	unsigned row[64];

	if (la >= 64 || lb >= 64)
		return 64;
	for (size_t j = 0; j <= lb; j++)
		row[j] = j;
	for (size_t i = 1; i <= la; i++) {
		unsigned diagonal = row[0];

		row[0] = i;
		for (size_t j = 1; j <= lb; j++) {
			unsigned above = row[j], change = diagonal + (a[i - 1] != b[j - 1]);

			row[j] = MIN(MIN(above, row[j - 1]) + 1, change);
			diagonal = above;
		}
	}
	return row[lb];
}

const char *opt_nearest(const char *word, const struct command *commands)
{
	const char *best = NULL;
	unsigned least = 3;

	for (; commands->name; commands++) {
		unsigned d = distance(word, commands->name);

		if (d < least && d < strlen(word)) {
			least = d;
			best = commands->name;
		}
	}
	return best;
}
