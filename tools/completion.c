/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* imgtool completion: the option tables as scripts of three shells. */
#include <stdio.h>
#include <string.h>

#include "tools/tool.h"

static const struct opt options[] = {
	{0},
};

/* ---- what can stand behind an option ----------------------------------------------------- */

enum value_kind {
	VALUE_NONE,  /* takes no argument */
	VALUE_WORDS, /* one of some words */
	VALUE_FILE,
	VALUE_OPTIONS, /* name=value,... of a format */
	VALUE_OTHER,   /* a number, a name: nothing to propose */
};

static enum value_kind value_kind(const struct opt *o)
{
	if (!o->arg)
		return VALUE_NONE;
	if (strcmp(o->arg, "FMT") == 0 || strcmp(o->arg, "CACHE") == 0)
		return VALUE_WORDS;
	if (strcmp(o->arg, "FILE") == 0 || strcmp(o->arg, "DIR|any") == 0)
		return VALUE_FILE;
	if (strcmp(o->arg, "OPTIONS") == 0)
		return VALUE_OPTIONS;
	return strchr(o->arg, '|') ? VALUE_WORDS : VALUE_OTHER;
}

/* The words for such an argument, with a space between; "" for none. Caller frees. */
static char *value_words(const struct opt *o)
{
	g_autoptr(GHashTable) seen = NULL;
	GString *out = g_string_new(NULL);

	if (strcmp(o->arg, "CACHE") == 0)
		return g_string_free(
			g_string_append(out, "none writeback unsafe directsync writethrough"),
			FALSE);
	if (strcmp(o->arg, "FMT") == 0) {
		for (const struct format *const *f = image_formats(); *f; f++)
			g_string_append_printf(out, "%s%s", out->len ? " " : "", (*f)->name);
	} else if (value_kind(o) == VALUE_OPTIONS) {
		/* Which format it will be is not known while the line is typed: all of them. */
		seen = g_hash_table_new(g_str_hash, g_str_equal);
		g_string_append(out, "help");
		for (const struct format *const *f = image_formats(); *f; f++)
			for (const struct option_desc *d = (*f)->create_options; d && d->name; d++)
				if (g_hash_table_add(seen, (char *)d->name))
					g_string_append_printf(out, " %s=", d->name);
	} else {
		g_string_append(out, o->arg);
		g_strdelimit(out->str, "|", ' ');
	}
	return g_string_free(out, FALSE);
}

/* "if= of=" of a command whose operands look so, else "". Caller frees. */
static char *operand_words(const struct command *c)
{
	g_auto(GStrv) words = g_strsplit_set(c->operands, " []", -1);
	GString *out = g_string_new(NULL);

	for (char **w = words; *w; w++) {
		const char *equals = strchr(*w, '=');

		if (equals)
			g_string_append_printf(out, "%s%.*s", out->len ? " " : "",
					       (int)(equals - *w) + 1, *w);
	}
	return g_string_free(out, FALSE);
}

/* "bash|zsh|fish", what only words can be; NULL: files. Caller frees. */
static char *operand_choice(const struct command *c)
{
	char *words;

	if (!strchr(c->operands, '|') || strpbrk(c->operands, "=[ "))
		return NULL;
	words = g_strdup(c->operands);
	return g_strdelimit(words, "|", ' ');
}

static void command_names(GString *out)
{
	for (unsigned i = 0; tool_commands[i]; i++)
		g_string_append_printf(out, "%s ", tool_commands[i]->name);
	g_string_append(out, "help");
}

/* Text between ' quotes of a shell; the characters of `special` get a backslash. */
static void quote(GString *out, const char *text, const char *special)
{
	for (; *text; text++) {
		if (*text == '\'')
			g_string_append(out, "'\\''");
		else if (strchr(special, *text))
			g_string_append_printf(out, "\\%c", *text);
		else
			g_string_append_c(out, *text);
	}
}

/* ---- bash --------------------------------------------------------------------------------- */

/* Self-contained: the helpers of bash-completion may not be there. */
static const char bash_head[] =
	"# bash completion of imgtool; made by: imgtool completion bash\n"
	"\n"
	"_imgtool_offer() {\n"
	"\tmapfile -t COMPREPLY < <(IFS=' ' && compgen -W \"$1\" -- \"$2\")\n"
	"\tcase ${COMPREPLY[0]-} in *=) compopt -o nospace 2>/dev/null || : ;; esac\n"
	"}\n"
	"_imgtool_files() {\n"
	"\tcompopt -o filenames 2>/dev/null\n"
	"\tmapfile -t COMPREPLY < <(compgen -f -- \"$1\")\n"
	"}\n"
	"# The part after the last comma of name=value,name=...\n"
	"_imgtool_list() {\n"
	"\tlocal front=\n"
	"\tcase $2 in *,*) front=${2%,*}, ;; esac\n"
	"\t_imgtool_offer \"$1\" \"${2##*,}\"\n"
	"\tCOMPREPLY=(\"${COMPREPLY[@]/#/$front}\")\n"
	"}\n"
	"_imgtool() {\n"
	"\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}\n"
	"\tlocal i j=$COMP_CWORD command= at=0\n"
	"\tCOMPREPLY=()\n"
	"\tfor ((i = 1; i < COMP_CWORD; i++)); do\n"
	"\t\tcase ${COMP_WORDS[i]} in\n"
	"\t\t-T | --trace) ((i++)) ;;\n"
	"\t\t-*) ;;\n"
	"\t\t*) command=${COMP_WORDS[i]} at=$i && break ;;\n"
	"\t\tesac\n"
	"\tdone\n"
	"\t# bash breaks words at \"=\": --output=js comes as three, a=1,b=2 as five.\n"
	"\tif [ \"$cur\" = = ]; then\n"
	"\t\tcur= && ((j--))\n"
	"\telse\n"
	"\t\twhile ((j > at + 2)) && [ \"${COMP_WORDS[j - 1]}\" = = ]; do ((j -= 2)); done\n"
	"\tfi\n"
	"\tif ((j < COMP_CWORD)); then\n"
	"\t\tcase ${COMP_WORDS[j]}:${COMP_WORDS[j - 1]}:$cur in\n"
	"\t\t-*) prev=${COMP_WORDS[j]} ;;\n"
	"\t\t*:-o:*,*) prev=-o ;;\n"
	"\t\t*:-o:*) return ;;\n"
	"\t\t*) _imgtool_files \"$cur\" && return ;;\n"
	"\t\tesac\n"
	"\tfi\n"
	"\tif [ -z \"$command\" ]; then\n";

static void bash_options(GString *out, const struct command *c)
{
	g_autofree char *operands = operand_words(c);

	g_string_append(out, "--help");
	for (const struct opt *o = c->options; o->id; o++) {
		if (o->id < 256)
			g_string_append_printf(out, " -%c", (char)o->id);
		if (o->name)
			g_string_append_printf(out, " --%s%s", o->name, o->arg ? "=" : "");
	}
	if (*operands)
		g_string_append_printf(out, " %s", operands);
}

static void bash_pattern(GString *out, const struct command *c, const struct opt *o)
{
	if (o->id < 256)
		g_string_append_printf(out, "\t%s:-%c", c->name, (char)o->id);
	if (o->name)
		g_string_append_printf(out, "%s%s:--%s", o->id < 256 ? " | " : "\t", c->name,
				       o->name);
	g_string_append(out, ") ");
}

static void bash_values(GString *out, const struct command *c)
{
	for (const struct opt *o = c->options; o->id; o++) {
		g_autofree char *words = NULL;

		if (!o->arg)
			continue;
		words = value_words(o);
		bash_pattern(out, c, o);
		switch (value_kind(o)) {
		case VALUE_WORDS:
			g_string_append_printf(out, "_imgtool_offer '%s' \"$cur\"", words);
			break;
		case VALUE_OPTIONS:
			g_string_append_printf(out, "_imgtool_list '%s' \"$cur\"", words);
			break;
		case VALUE_FILE:
			g_string_append(out, "_imgtool_files \"$cur\"");
			break;
		default:
			g_string_append(out, "COMPREPLY=()");
			break;
		}
		g_string_append(out, " && return ;;\n");
	}
}

static void bash_operands(GString *out, const struct command *c)
{
	g_autofree char *words = operand_words(c), *choice = operand_choice(c);

	if (choice)
		g_string_append_printf(out, "\t%s) _imgtool_offer '%s' \"$cur\" ;;\n", c->name,
				       choice);
	else if (*words)
		g_string_append_printf(out, "\t%s) _imgtool_offer '%s' \"$cur\" ;;\n", c->name,
				       words);
}

static void print_bash(GString *out)
{
	g_autoptr(GString) names = g_string_new(NULL);

	command_names(names);
	g_string_append(out, bash_head);
	g_string_append_printf(out,
			       "\t\t_imgtool_offer '%s --help --version' \"$cur\"\n"
			       "\t\treturn\n"
			       "\tfi\n"
			       "\tcase $command:$prev in\n",
			       names->str);
	for (unsigned i = 0; tool_commands[i]; i++)
		bash_values(out, tool_commands[i]);
	g_string_append(out, "\tesac\n\tcase $command:$cur in\n");
	for (unsigned i = 0; tool_commands[i]; i++) {
		g_string_append_printf(out, "\t%s:-*) _imgtool_offer '", tool_commands[i]->name);
		bash_options(out, tool_commands[i]);
		g_string_append(out, "' \"$cur\" && return ;;\n");
	}
	g_string_append(out, "\tesac\n\tcase $command in\n");
	for (unsigned i = 0; tool_commands[i]; i++)
		bash_operands(out, tool_commands[i]);
	g_string_append_printf(out,
			       "\thelp) _imgtool_offer '%s' \"$cur\" ;;\n"
			       "\t*) _imgtool_files \"$cur\" ;;\n"
			       "\tesac\n"
			       "}\n"
			       "complete -F _imgtool imgtool\n",
			       names->str);
}

/* ---- zsh ---------------------------------------------------------------------------------- */

static void zsh_action(GString *out, const struct opt *o)
{
	g_autofree char *words = value_words(o);

	g_string_append_c(out, ':');
	quote(out, o->arg, ":|");
	switch (value_kind(o)) {
	case VALUE_WORDS:
		g_string_append_printf(out, ":(%s)", words);
		break;
	case VALUE_OPTIONS:
		g_string_append_printf(out, ":_values -s , option %s", words);
		break;
	case VALUE_FILE:
		g_string_append(out, ":_files");
		break;
	default:
		g_string_append(out, ":");
		break;
	}
}

/* One spelling: '-f+[help]:FMT:(raw qcow2)'. */
static void zsh_option(GString *out, const struct opt *o, bool is_long)
{
	g_string_append(out, " \\\n\t\t'*");
	if (is_long)
		g_string_append_printf(out, "--%s%s", o->name, o->arg ? "=" : "");
	else
		g_string_append_printf(out, "-%c%s", (char)o->id, o->arg ? "+" : "");
	g_string_append_c(out, '[');
	quote(out, o->help, "[]:");
	g_string_append_c(out, ']');
	if (o->arg)
		zsh_action(out, o);
	g_string_append_c(out, '\'');
}

static void zsh_command(GString *out, const struct command *c)
{
	g_autofree char *words = operand_words(c), *choice = operand_choice(c);

	g_string_append_printf(out, "\t%s)\n\t\t_arguments -s", c->name);
	for (const struct opt *o = c->options; o->id; o++) {
		if (o->id < 256)
			zsh_option(out, o, false);
		if (o->name)
			zsh_option(out, o, true);
	}
	g_string_append(out, " \\\n\t\t'--help[this command in short]'");
	if (choice)
		g_string_append_printf(out, " \\\n\t\t':word:(%s)'\n", choice);
	else if (*words)
		g_string_append_printf(out, " \\\n\t\t'*:operand:_values -w operand %s'\n", words);
	else
		g_string_append(out, " \\\n\t\t'*:file:_files'\n");
	g_string_append(out, "\t\t;;\n");
}

static void print_zsh(GString *out)
{
	g_string_append(out, "#compdef imgtool\n"
			     "# zsh completion of imgtool; made by: imgtool completion zsh\n"
			     "\n"
			     "_imgtool() {\n"
			     "\tlocal curcontext=$curcontext state line\n"
			     "\ttypeset -A opt_args\n"
			     "\tlocal -a commands\n"
			     "\tcommands=(\n");
	for (unsigned i = 0; tool_commands[i]; i++) {
		g_string_append_printf(out, "\t\t'%s:", tool_commands[i]->name);
		quote(out, tool_commands[i]->summary, "");
		g_string_append(out, "'\n");
	}
	g_string_append(out, "\t\t'help:Tell what a command does'\n"
			     "\t)\n"
			     "\t_arguments -C '--help[all commands]' '--version[its version]' \\\n"
			     "\t\t'1:command:->command' '*::argument:->argument' && return 0\n"
			     "\tcase $state in\n"
			     "\tcommand) _describe command commands && return 0 ;;\n"
			     "\targument) ;;\n"
			     "\t*) return 1 ;;\n"
			     "\tesac\n"
			     "\tcase $words[1] in\n");
	for (unsigned i = 0; tool_commands[i]; i++)
		zsh_command(out, tool_commands[i]);
	g_string_append(out, "\thelp) _describe command commands ;;\n"
			     "\tesac\n"
			     "}\n"
			     "_imgtool \"$@\"\n");
}

/* ---- fish --------------------------------------------------------------------------------- */

static void fish_option(GString *out, const struct command *c, const struct opt *o)
{
	g_autofree char *words = o->arg ? value_words(o) : NULL;

	g_string_append_printf(out, "complete -c imgtool -n '__fish_seen_subcommand_from %s'",
			       c->name);
	if (o->id < 256)
		g_string_append_printf(out, " -s %c", (char)o->id);
	if (o->name)
		g_string_append_printf(out, " -l %s", o->name);
	switch (value_kind(o)) {
	case VALUE_NONE:
		break;
	case VALUE_WORDS:
	case VALUE_OPTIONS:
		g_string_append_printf(out, " -x -a '%s'", words);
		break;
	case VALUE_FILE:
		g_string_append(out, " -r -F");
		break;
	case VALUE_OTHER:
		g_string_append(out, " -x");
		break;
	}
	g_string_append(out, " -d '");
	/* Its quotes know \' and \\ only. */
	for (const char *p = o->help; *p; p++)
		g_string_append_printf(out, strchr("'\\", *p) ? "\\%c" : "%c", *p);
	g_string_append(out, "'\n");
}

static void print_fish(GString *out)
{
	g_autoptr(GString) names = g_string_new(NULL);

	command_names(names);
	g_string_append_printf(
		out,
		"# fish completion of imgtool; made by: imgtool completion fish\n"
		"set -l commands %s\n"
		"complete -c imgtool -n \"not __fish_seen_subcommand_from $commands\" -f\n"
		"complete -c imgtool -n '__fish_seen_subcommand_from help' -f -a \"$commands\"\n",
		names->str);
	for (unsigned i = 0; tool_commands[i]; i++) {
		const struct command *c = tool_commands[i];
		g_autofree char *words = operand_words(c), *choice = operand_choice(c);

		g_string_append_printf(out,
				       "complete -c imgtool -n \"not __fish_seen_subcommand_from "
				       "$commands\" -a %s -d '",
				       c->name);
		for (const char *p = c->summary; *p; p++)
			g_string_append_printf(out, strchr("'\\", *p) ? "\\%c" : "%c", *p);
		g_string_append(out, "'\n");
		if (choice || *words)
			g_string_append_printf(out,
					       "complete -c imgtool -n "
					       "'__fish_seen_subcommand_from %s' %s -a '%s'\n",
					       c->name, choice ? "-f" : "",
					       choice ? choice : words);
		for (const struct opt *o = c->options; o->id; o++)
			fish_option(out, c, o);
	}
}

static int run(struct args *args)
{
	g_autoptr(GString) out = g_string_new(NULL);
	const char *shell = args->n == 1 ? args->operands[0] : "";

	if (strcmp(shell, "bash") == 0)
		print_bash(out);
	else if (strcmp(shell, "zsh") == 0)
		print_zsh(out);
	else if (strcmp(shell, "fish") == 0)
		print_fish(out);
	else
		return tool_usage(args, "Expecting one of the shells bash, zsh, fish");
	fwrite(out->str, 1, out->len, stdout);
	return 0;
}

const struct command command_completion = {
	.name = "completion",
	.run = run,
	.options = options,
	.operands = "bash|zsh|fish",
	.summary = "Print a shell's script that completes imgtool's command lines",
	.examples = {"completion bash >~/.local/share/bash-completion/completions/imgtool",
		     "completion zsh >~/.zfunc/_imgtool",
		     "completion fish >~/.config/fish/completions/imgtool.fish"},
};
