#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A convert that fails or is stopped leaves no target that looks finished.
. "$IMGFS_SRCDIR/tests/functions.sh"
. "$IMGFS_SRCDIR/tests/agree.sh"
requires_qemu

qemu-img create -q -f qcow2 a.qcow2 8M
random_data 2 4194304 >data
qemu-io -c 'write -s data 0 4M' a.qcow2 >/dev/null
# A source that ends too early.
cp a.qcow2 short.qcow2
truncate -s 2M short.qcow2
expect_status 1 imgtool convert short.qcow2 o.raw
expect_output err "imgtool: error while reading at byte"
[ ! -e o.raw ] || fail "the target of a failed convert is there"
imgtool convert --salvage short.qcow2 o.raw 2>err
expect_output err "warning: error while reading"
cmp -n 1000000 data o.raw
[ "$(stat -c %s o.raw)" -eq 8388608 ] || fail "salvaged target has the wrong size"
# A target that was there before is not removed, but called incomplete.
expect_status 1 imgtool convert short.qcow2 o.raw
expect_output err "'o.raw' is incomplete"
# No space on the target's file system.
requires_root
mkdir small
cleanup_add umount small
mount -t tmpfs -o size=1m none small || skip "cannot mount a tmpfs"
expect_status 1 imgtool convert a.qcow2 small/o.raw
expect_output err "No space left on device" "error while writing at byte"
[ ! -e small/o.raw ] || fail "the target of a failed convert is there"
