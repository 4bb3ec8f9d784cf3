#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Internal snapshots, also of a disk of another size, with and without a backing
# file, in every kind of image that can have them; judged by qemu-img.
. "$IMGFS_SRCDIR/tests/interop/judge.sh"

seed=300
# taken OPTIONS [BACKING]: scribble, snapshot, and again
taken() {
	local image=taken.qcow2 name backing=()
	rm -f $image
	[ $# -lt 2 ] || backing=(-b "$2" -F raw)
	qemu-img create -q -f qcow2 -o "$1" "${backing[@]}" $image 6M
	for name in "the first" second "x,y=z" ünïcode; do
		seed=$((seed + 1))
		scribble qcow2 $image $seed 12
		qemu-img snapshot -c "$name" $image
	done
	scribble qcow2 $image $seed 10
	judge qcow2 $image
	qemu-img snapshot -l $image >theirs.txt
	imgtool snapshot -l $image >ours.txt || differs "snapshot -l: status $?"
	text_same "snapshot -l"
	qemu-img snapshot -d second $image
	qemu-img snapshot -a "the first" $image
	judge qcow2 $image
}
qemu-img create -q -f raw base.raw 4M
scribble raw base.raw 1 20

taken cluster_size=64k
taken cluster_size=512
taken cluster_size=4k,refcount_bits=8
taken cluster_size=2M,refcount_bits=64
taken extended_l2=on
taken compression_type=zstd
taken compat=0.10
taken cluster_size=16k base.raw

# Resized between the snapshots: each has its own size and L1 table.
qemu-img create -q -f qcow2 -o cluster_size=512 resized.qcow2 1M
scribble qcow2 resized.qcow2 2 20
qemu-img snapshot -c small resized.qcow2
qemu-img resize -q resized.qcow2 30M
scribble qcow2 resized.qcow2 3 20
qemu-img snapshot -c large resized.qcow2
qemu-img resize -q --shrink resized.qcow2 5M
judge qcow2 resized.qcow2
[ "$(imgtool convert -l small -O raw resized.qcow2 out.raw && stat -c %s out.raw)" -eq 1048576 ] ||
	fail "the snapshot of 1 MiB does not have its size"
[ "$(imgtool convert -l large -O raw resized.qcow2 out.raw && stat -c %s out.raw)" -eq 31457280 ] ||
	fail "the snapshot of 30 MiB does not have its size"
expect_status 1 imgtool convert -l nosuch -O raw resized.qcow2 out.raw
judge_end
