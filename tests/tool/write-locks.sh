#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Two writers exclude each other, whichever of both programs they are; a reader with -U may look.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_qemu

qemu-img create -q -f qcow2 a.qcow2 1M
mkfifo orders

# While qemu-io has it open.
qemu-io a.qcow2 <orders >/dev/null &
exec 3>orders
wait_for_lock a.qcow2
expect_status 1 imgtool bench -w -c 1 a.qcow2
expect_output err a.qcow2
expect_output err "lock"
expect_status 0 imgtool info -U a.qcow2
echo quit >&3
exec 3>&-
wait

# While ours is writing.
imgtool bench -w -c 100000000 a.qcow2 >/dev/null &
ours=$!
cleanup_add kill $ours
wait_for_lock a.qcow2
expect_status 1 qemu-img info a.qcow2
expect_output err "lock"
expect_status 1 qemu-io -c "write 0 4k" a.qcow2
expect_status 1 imgtool bench -w -c 1 a.qcow2
expect_output err a.qcow2
expect_status 0 qemu-img info -U a.qcow2
kill $ours
wait $ours || true
# It ended on a signal: whole, and nothing leaked.
qemu-img check -q a.qcow2 || fail "check after SIGTERM: status $?"
expect_status 0 imgtool bench -w -c 1 a.qcow2
