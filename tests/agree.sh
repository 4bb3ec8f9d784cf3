# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# Sourced after functions.sh by the tests of imgtool: the same words to qemu-img and imgtool.

# agree_err QEMUS OURS: the two programs' names are one, and so is "Could not open 'x'" said twice.
agree_err() {
	sed -i "s/Could not open '\([^']*\)': Could not open '\1':/Could not open '\1':/" "$1"
	sed -i "s/^imgtool:/qemu-img:/; s/Try 'imgtool /Try 'qemu-img /" "$2"
}
# run_both WORDS...: statuses must agree; output to q.out q.err and i.out i.err.
run_both() {
	local q=0 i=0
	qemu-img "$@" >q.out 2>q.err || q=$?
	imgtool "$@" >i.out 2>i.err || i=$?
	agree_err q.err i.err
	[ $q -eq $i ] || {
		cat i.out i.err >&2
		fail "$*: status $i, qemu-img's $q"
	}
}
# same_text WORDS...: status and all output agree.
same_text() {
	run_both "$@"
	diff -u q.out i.out >&2 && diff -u q.err i.err >&2 || fail "$*: other text than qemu-img's"
}
# same_json WORDS...: status, and standard output as JSON.
same_json() {
	run_both "$@"
	json_eq q.out i.out
}
# same_convert WORDS... SOURCE...: both make the same raw file, and as sparse.
same_convert() {
	rm -f q.raw i.raw
	qemu-img convert "$@" -O raw q.raw
	imgtool convert "$@" -O raw i.raw
	same_bytes q.raw i.raw
	[ "$(stat -c %b i.raw)" -le "$(stat -c %b q.raw)" ] || fail "convert $*: less sparse than qemu-img's"
}
