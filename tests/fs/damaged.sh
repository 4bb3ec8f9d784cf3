#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A damaged cluster gives EIO for that cluster only; the log names image and cause once.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_fuse
requires_qemu

qemu-img create -q -f qcow2 d.qcow2 8M
qemu-io -c 'write -P 1 0 4M' d.qcow2 >/dev/null
l1=$((0x$(od -An -tx1 -j40 -N8 d.qcow2 | tr -d ' ')))
l2=$((0x$(od -An -tx1 -j$l1 -N8 d.qcow2 | tr -d ' ') & 0xfffffffffffe00))
poke d.qcow2 $((l2 + 8 * 3)) 8000000000000a00 # the fourth cluster: not aligned

mkdir m
imgfs -f --pidfile pid d.qcow2 m 2>log &
pid=$!
cleanup_add unmount_now "$SCRATCH/m"
for ((i = 0; i < 100; i++)); do
	[ -s pid ] && break
	sleep 0.05
done
read_cluster() { dd if=m/disk.raw of=/dev/null bs=64k iflag=direct count=1 skip="$1" status=none; }
for i in 1 2 3; do expect_status 1 read_cluster 3; done
expect_output err "Input/output error"
read_cluster 2
read_cluster 4
fusermount3 -u m
wait $pid
[ "$(wc -l <log)" -eq 1 ] || fail "log: $(cat log)"
expect_output log "imgfs: " d.qcow2 offset
