#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A block device is not zero because convert begins to write it: old bytes must go.
. "$IMGFS_SRCDIR/tests/functions.sh"
. "$IMGFS_SRCDIR/tests/agree.sh"
requires_qemu
requires_loop
qemu-img create -q -f qcow2 a.qcow2 8M
qemu-io -c 'write -P 1 1M 1M' a.qcow2 >/dev/null
qemu-img convert -O raw a.qcow2 want.raw
head -c 8M /dev/zero | tr '\0' x >disk
attach_loop disk || skip "cannot set up a loop device"
imgtool convert -n -O raw a.qcow2 "$loop"
same_bytes want.raw "$loop"
head -c 8M /dev/zero | tr '\0' x >"$loop"
if imgtool convert -O raw a.qcow2 "$loop" 2>err; then
	same_bytes want.raw "$loop"
else
	expect_output err "$loop"
	[ -b "$loop" ] || fail "a failed convert removed the device node"
fi
