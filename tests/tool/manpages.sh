#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Each program and command has a manual page, which names every option that its
# help names and no other, and which troff and mandoc read without a complaint.
. "$IMGFS_SRCDIR/tests/functions.sh"

# Where a build made a page it lies there, else (from a tarball) beside its source.
page_of() {
	local folder
	for folder in "$IMGFS_BUILDDIR" "$IMGFS_SRCDIR"; do
		[ ! -f "$folder/man/$1" ] || { echo "$folder/man/$1" && return; }
	done
	fail "there is no man/$1: write man/$1.in and list the page in man/Makemodule.am"
}
# Text without bold, hyphenation or line breaks.
words_of() { sed -e 's/\\f.//g' -e 's/\\e/\\/g' -e 's/\\&//g' -e 's/\\-/-/g' -e 's/\\ / /g' "$1" | grep -v '^\.\\"'; }
options_in() { (grep -oE -- '(^|[^a-zA-Z0-9_.=+*-])--?[A-Za-z][a-z-]*' || true) | (grep -oE -- '-.*' || true) | sort -u; }
options_of_help() { tr -d \' | (grep -oE '^ *-[A-Za-z](, --[a-z-]+)?|^ *--[a-z-]+' || true) | options_in; }
lint() {
	[ -z "$(type -P groff)" ] || groff -man -ww -b -Tutf8 -z "$1" >lint 2>&1 || true
	[ ! -s lint ] || { cat lint && fail "$1: groff complains"; }
	[ -z "$(type -P man)" ] || LC_ALL=C.UTF-8 man --warnings -E UTF-8 -l -Tutf8 -Z "$1" 2>lint >man.out ||
		grep -q 'This system has been minimized' man.out || fail "man -l $1: status $?"
	[ ! -s lint ] || { cat lint && fail "$1: man complains"; }
	# No date: the same source makes the same page.
	[ -z "$(type -P mandoc)" ] || mandoc -T lint -W warning "$1" | grep -v 'missing date' >lint || true
	[ ! -s lint ] || { cat lint && fail "$1: mandoc complains"; }
}
[ -n "$(type -P groff)$(type -P man)$(type -P mandoc)" ] || echo "no groff, man or mandoc: not linted"

# options_agree PAGE OTHER...: the help text is in the file help. OTHER is what the
# page may name beside, such as an option of another program.
options_agree() {
	local file=$1
	shift
	options_of_help <help >expected
	words_of "$file" >text
	sed -n '/^\.SH OPTIONS/,/^\.SH/p' text | sed -n '/^-/p' | options_in >described
	comm -23 expected described >missing
	[ ! -s missing ] || { cat missing && fail "$file does not describe these"; }
	comm -13 expected described >unknown
	[ ! -s unknown ] || { cat unknown && fail "$file describes options that do not exist"; }
	# Also in the prose: no option that was renamed since.
	options_in <text >named
	{ cat expected && printf '%s\n' -h --help "$@"; } | sort -u | comm -13 - named >unknown
	[ ! -s unknown ] || { cat unknown && fail "$file names options that do not exist"; }
}

commands=$(imgtool --help | sed -n 's/^  \([a-z][a-z]*\)  *[A-Z].*/\1/p')
[ "$(wc -w <<<"$commands")" -ge 11 ] || fail "imgtool --help lists only: $commands"
for command in $commands; do
	page=$(page_of "imgtool-$command.1")
	imgtool help "$command" >help
	options_agree "$page"
	sed -n '/^Examples:/,$p' help | sed 1d | while read -r example; do
		grep -qxF -- "$example" text || fail "$page lacks the example $example"
	done
	lint "$page"
	grep -q "^\.BR imgtool\\\\-$command (1)" "$(page_of imgtool.1)" || fail "imgtool.1 does not list $command"
done
# A page of a command that is gone, or was never there.
for page in "$IMGFS_SRCDIR"/man/imgtool-*.1.in; do
	name=$(basename "$page" .1.in)
	grep -qx "COMMAND_PAGES += man/$name.1" "$IMGFS_SRCDIR/man/Makemodule.am" ||
		continue
	grep -qw -- "${name#imgtool-}" <<<"$commands" || fail "$page: there is no such command"
done

imgtool --help >help
options_agree "$(page_of imgtool.1)" --allow-references --image-opts -U -f
lint "$(page_of imgtool.1)"

imgfs --help >help
options_agree "$(page_of imgfs.1)" --reflink -b -R -r -u -uz --shrink -l
lint "$(page_of imgfs.1)"
# The words of -o too: with their description, each.
sed -n 's/^      \([a-z_]*=\{0,1\}\)  .*/\1/p' help >words
[ "$(wc -l <words)" -ge 10 ] || fail "imgfs --help lists few words of -o"
while read -r word; do grep -qxF -- "$word" text || fail "imgfs.1 lacks -o $word"; done <words

page=$(page_of imgtool-formats.7)
lint "$page"
words_of "$page" >text
for format in $(imgtool --help | sed -n 's/^Supported formats: //p'); do
	grep -qi "^\.SH $format\$" "$page" || fail "$page has no chapter on $format"
	imgtool create -f "$format" -o help >options 2>/dev/null || continue
	sed -n 's/^  \([a-z_.]*\)=.*/\1/p' options | while read -r option; do
		# Not -q: sed would die of a closed pipe.
		sed -n "/^\.SH ${format^^}\$/,/^\.SH/p" text | grep "^$option=" >/dev/null || fail "$page lacks option $option of $format"
	done
done
