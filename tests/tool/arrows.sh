#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The arrows of the design: who includes whom, and who touches image files.
#	io <- image <- formats;  image <- fs;  image <- tools
. "$IMGFS_SRCDIR/tests/functions.sh"
cd "$IMGFS_SRCDIR"

bad=0
wrong() {
	awk -v why="$1" '{ print why ": " $0 }'
	bad=1
}
# includes FOLDER: file:folder-of-the-included, one a line
includes() { grep -HoE '^[[:space:]]*#[[:space:]]*include "[^"]+"' "$1"/*.[ch] 2>/dev/null | sed -E 's/:[^"]*"/ /; s/"$//'; }
# may FOLDER REGEX: every include of "..." there matches
may() {
	local found
	found=$(includes "$1" | awk -v ok="$2" '$2 !~ ok && $2 != "config.h"' || true)
	[ -z "$found" ] || { wrong "$1 must not include" <<<"$found"; }
}
may io '^io/'
may image '^(io|image)/'
may formats '^(io|image|formats)/'
may fs '^(io/(co|file|holders|loop|memory|pool|sanitizers)|image|fs)/?|^formats/formats.h$'
may tools '^(io|image|tools)/|^formats/formats.h$'

# The table of formats is named by the two main.c only.
found=$(grep -l '"formats/' io/*.[ch] image/*.[ch] fs/*.[ch] tools/*.[ch] 2>/dev/null |
	grep -vxE '(fs|tools)/main\.c' || true)
[ -z "$found" ] || wrong "formats/ is named in" <<<"$found"

# One format does not know another: qcow2*.c may share qcow2*.h.
for f in formats/*.c; do
	[ -e "$f" ] || continue
	own=$(basename "$f" .c) own=${own%%[-_]*}
	found=$(grep -oE '#include "formats/[^"]+"' "$f" | sed 's/.*formats\///; s/"//' |
		grep -vE "^(formats\.h|$own.*)$" || true)
	[ -z "$found" ] || wrong "$f includes another format" <<<"$found"
done

# Calls on files belong to io/. fs/ may talk to /dev/fuse and its report pipe;
# fsprobe.c fills a memfd, since libblkid wants a descriptor; mounted.c and through.c talk to a
# mount's control files.
calls='\b(pread|pwrite|preadv2?|pwritev2?|open|openat2?|creat|io_submit|io_uring_[a-z_]+|fallocate|ftruncate|fsync|fdatasync|mmap)[[:space:]]*\('
found=$(grep -nE "$calls" image/*.[ch] formats/*.[ch] tools/*.[ch] 2>/dev/null |
	grep -vE '^(image/fsprobe|tools/(mounted|through))\.c:' |
	grep -vE '^[^:]+:[0-9]+:[[:space:]]*(/?\*|//)' | grep -vE '(->|\.)(open|mmap)[[:space:]]*\(' |
	grep -vE '\*(open|mmap)\)' | grep -vE '/\*.*\b[a-z0-9_]+\(.*\*/' | grep -v '"' || true)
[ -z "$found" ] || wrong "a call that belongs to io/" <<<"$found"

# Every file says its licence first.
for f in io image formats fs tools tests/unit tests/crash tests/fuzz; do
	for c in "$f"/*.[ch]; do
		[ -e "$c" ] || continue
		head -n 1 "$c" | grep -q 'SPDX-License-Identifier: LGPL-2.1-or-later' || wrong "no SPDX line" <<<"$c"
	done
done
[ $bad -eq 0 ]
