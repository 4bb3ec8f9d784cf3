#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The tour of ./bootstrap demo ends well, and leaves nothing behind.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_fuse
requires_qemu
requires_program mke2fs debugfs sfdisk mountpoint

mkdir tmp
TMPDIR=$PWD/tmp expect_status 0 bash "$IMGFS_SRCDIR/tests/demo"
[ ! -s err ] || { cat err && fail "the tour says something on stderr"; }
expect_output out "The password of the old server is on the yellow note." "That was all"
[ "$(grep -c '^  identical$' out)" -eq 2 ] || fail "not every comparison says identical"
[ -z "$(ls -A tmp)" ] || fail "the tour leaves files: $(ls -A tmp)"
! grep -qF "$PWD/tmp" /proc/mounts || fail "the tour leaves a mount"
