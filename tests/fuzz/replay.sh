#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Every input that fuzzing kept, run once through its target: a crash, a failed assertion or a
# sanitizer's finding ends the program.
. "$IMGFS_SRCDIR/tests/functions.sh"

for folder in "$IMGFS_SRCDIR"/tests/fuzz/corpus/*/; do
	name=$(basename "$folder")
	"$IMGFS_BUILDDIR/tests/fuzz/fuzz-$name" "$folder"/* >"$name.log" 2>&1 || {
		tail -n 30 "$name.log"
		fail "fuzz-$name: status $?"
	}
	echo "$name: $(ls "$folder" | wc -l) inputs"
done
