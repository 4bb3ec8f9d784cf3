#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Each snapshot is a directory with its own disk; names are made fit for a file system.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_fuse
requires_qemu

qemu-img create -q -f qcow2 d.qcow2 8M
n=0
for name in first a/b same same ..; do
	n=$((n + 1))
	qemu-io -c "write -P $n 1M 1M" d.qcow2 >/dev/null
	qemu-img snapshot -c "$name" d.qcow2
done
qemu-io -c 'write -P 99 1M 1M' d.qcow2 >/dev/null
mount_imgfs d.qcow2 m
[ "$(ls m/snapshots | sort | tr '\n' ' ')" = "%2E%2E a%2Fb first same same-4 " ] ||
	fail "names: $(ls m/snapshots)"
n=0
for name in first a%2Fb same same-4 %2E%2E; do
	n=$((n + 1))
	qemu-img convert -q -O raw -l snapshot.id=$n d.qcow2 flat
	same_bytes flat "m/snapshots/$name/disk.raw"
	[ -d "m/snapshots/$name/partitions" ] || fail "no partitions/ beside $name"
done
qemu-img convert -q -U -O raw d.qcow2 flat
same_bytes flat m/disk.raw
unmount m
mount_imgfs -o snapshot=first d.qcow2 m
qemu-img convert -q -O raw -l first d.qcow2 flat
same_bytes flat m/disk.raw
unmount m
