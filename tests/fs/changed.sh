#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Files that change under a mount: the disk keeps the size that it had; what was cut off is an I/O
# error and never zeroes, and the daemon lives on.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_fuse
requires_qemu
mkdir a b c

# at MOUNTPOINT OFFSET LENGTH: past the kernel's cache.
at() { dd if="$1/disk.raw" bs=512 skip=$(($2 / 512)) count=$(($3 / 512)) iflag=direct status=none; }

random_data 1 $((1 << 20)) >disk.raw
cp disk.raw was.raw
mount_imgfs -o format=raw disk.raw a
at a 0 65536 | cmp -n 65536 - was.raw
truncate -s 2M disk.raw
[ "$(stat -c %s a/disk.raw)" -eq $((1 << 20)) ] || fail "the disk grew under the mount"
cmp a/disk.raw was.raw
truncate -s 100000 disk.raw
at a 0 65536 | cmp -n 65536 - was.raw
expect_status 1 at a $((1 << 19)) 512
expect_output err "Input/output error"
[ "$(stat -c %s a/disk.raw)" -eq $((1 << 20)) ] || fail "the disk shrank under the mount"
unmount a

# A hole that was cut off is no hole.
truncate -s 0 holes.raw && truncate -s 1M holes.raw
mount_imgfs -o format=raw holes.raw b
truncate -s 512 holes.raw
expect_status 1 at b $((1 << 19)) 512
unmount b

# A backing file shorter than its overlay, which grows: the bytes behind its end stay zero.
head -c 300000 was.raw >base.raw
qemu-img create -q -f qcow2 -b base.raw -F raw over.qcow2 1M
qemu-img convert -O raw over.qcow2 flat.raw
mount_imgfs over.qcow2 c
at c 0 65536 | cmp -n 65536 - flat.raw
cp was.raw base.raw
cmp c/disk.raw flat.raw || fail "the backing file's growth shows"
unmount c
