#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The C sources are as .clang-format lays them out. Only version 14 is asked:
# each release of the tool breaks lines in its own way.
set -u
cd "$IMGFS_SRCDIR" || exit 1
tool=
for name in clang-format-14 clang-format; do
	"$name" --version 2>/dev/null | grep -q 'version 14\.' && tool=$name && break
done
[ -n "$tool" ] || {
	echo "SKIP: no clang-format 14"
	exit 77
}
find io image formats fs tools tests -name '*.[ch]' -print0 | sort -z |
	xargs -0 "$tool" --dry-run -Werror --style=file
