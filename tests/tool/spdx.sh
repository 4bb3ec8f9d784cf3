#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Every source file says its licence in its first line (scripts: in the second,
# below the interpreter's), so that a file taken out of the tree keeps it.
set -u
cd "$IMGFS_SRCDIR" || exit 1

# Build products in an in-tree build are no sources: their names are left out, as
# are folders beginning with a dot or "build" and unpacked distributions.
files=$(find . \( -name '.?*' ! -name .ci -o -name 'build*' -o -name _build -o -name 'imgfs-[0-9]*' -o -name autom4te.cache \
	-o -name __pycache__ \) -prune -o -type f \( -name '*.[chS]' -o -name '*.sh' -o -name '*.py' \
	-o -name '*.am' -o -name 'configure.ac' -o -name '*.[157]' \
	-o -path ./bootstrap -o -path ./.ci/run -o -path ./tests/run -o -path ./tests/demo -o -path ./tests/configurations \) \
	! -path ./config.h -print | sort)
count=$(wc -l <<<"$files")
[ "$count" -gt 20 ] || {
	echo "found only $count source files below $IMGFS_SRCDIR"
	exit 1
}

status=0
while read -r file; do
	head -n 2 "$file" | grep -q 'SPDX-License-Identifier: LGPL-2.1-or-later' && continue
	echo "$file: the SPDX line is missing from its first two lines"
	status=1
done <<<"$files"
echo "$count files looked at"
exit $status
