#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Each command explains every option, in few lines, with examples that name it.
. "$IMGFS_SRCDIR/tests/functions.sh"
commands=$(imgtool --help | sed -n 's/^  \([a-z][a-z]*\)  *[A-Z].*/\1/p')
[ "$(wc -w <<<"$commands")" -ge 10 ] || fail "imgtool --help lists only: $commands"
for cmd in $commands; do
	imgtool help "$cmd" >by-word
	imgtool "$cmd" --help >by-option
	imgtool "$cmd" -h | cmp - by-word
	cmp by-word by-option
	expect_output by-word "usage: imgtool $cmd" "Options:" "Examples:" "  imgtool $cmd "
	if grep -nE '^  -[^ ]+( [A-Z|a-z]+)?$' by-word; then fail "$cmd: an option without an explanation"; fi
	[ "$(awk 'length > 110' by-word | wc -l)" -eq 0 ] || fail "help $cmd: a line longer than 110 columns"
done
expect_status 1 imgtool help nosuch
imgtool -V | grep -q '^imgtool version [0-9]' || fail "no version"
# Called by the other name, it names itself so.
ln -s "$(type -P imgtool)" qemu-img
expect_status 1 ./qemu-img nosuch
expect_output err "qemu-img: Command not found: nosuch" "Try 'qemu-img --help'"
./qemu-img --version | grep -q '^qemu-img version' || fail "version under qemu-img's name"
expect_status 1 sh -c 'imgtool --help >/dev/full'
