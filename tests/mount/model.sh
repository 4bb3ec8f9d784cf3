#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Random writes, truncates, holes, mappings, snapshots and more through writable mounts, beside a
# model in memory, over all kinds of images. See model-run.py for what can be chosen.
#
# usage: model.sh [OPTION... [WORD...]]      such as "-s 100 -t 3600 -k", "-v overlay extended"
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_fuse
requires_qemu
requires_program python3

[ $# -gt 0 ] || set -- -n 250 -t 8
PYTHONDONTWRITEBYTECODE=1 python3 "$IMGFS_SRCDIR/tests/mount/model-run.py" \
	"$IMGFS_BUILDDIR/tests/mount/model" "$@"
