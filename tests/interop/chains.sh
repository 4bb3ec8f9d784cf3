#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Backing chains: eight layers that mix raw and qcow2 of every cluster size, and
# layers shorter and longer than what they stand on; judged by qemu-img.
. "$IMGFS_SRCDIR/tests/interop/judge.sh"

# layer NUMBER SIZE OPTIONS SEED: on top of layer NUMBER-1
below= below_format=
layer() {
	qemu-img create -q -f qcow2 -b "$below" -F "$below_format" -o "$3" "layer$1.qcow2" "$2"
	scribble qcow2 "layer$1.qcow2" "$4" 14 c
	below=layer$1.qcow2 below_format=qcow2
}
# base FORMAT SIZE SEED
base() {
	rm -f layer*
	below=layer0.$1 below_format=$1
	qemu-img create -q -f "$1" "$below" "$2"
	scribble "$1" "$below" "$3" 30
}

options=(cluster_size=64k cluster_size=512 cluster_size=2M extended_l2=on compression_type=zstd
	compat=0.10 cluster_size=4k,lazy_refcounts=on extended_l2=on,cluster_size=16k)
for seed in 1 2 3; do
	base "$([ $((seed % 2)) -eq 1 ] && echo raw || echo qcow2)" 9M $seed
	for number in 1 2 3 4 5 6 7; do
		layer $number 9M "${options[(number + seed) % 8]}" $((seed * 10 + number))
	done
	judge qcow2 "$below"
done

# Shorter and longer, not multiples of clusters, in both orders.
for sizes in "5M 9M 3M 12M" "9M 1536K 9M" "3000320 5000192 1000448 6M" "1M 300M 512K 20M"; do
	read -r first rest <<<"$sizes"
	for format in raw qcow2; do
		base $format "$first" 50
		number=0
		for size in $rest; do
			number=$((number + 1))
			layer $number "$size" cluster_size=64k $((60 + number))
		done
		judge qcow2 "$below"
	done
done

# A raw base whose length is no multiple of anything, grown by hand.
base raw 1M 70
random_data 1 1000448 >layer0.raw
layer 1 2M cluster_size=4k 71
judge qcow2 "$below"

# An overlay with a data file of its own, on a compressed base.
base qcow2 6M 80
qemu-img convert -c -O qcow2 layer0.qcow2 layer1.qcow2
qemu-img create -q -f qcow2 -b layer1.qcow2 -F qcow2 -o data_file=top.bin layer2.qcow2
scribble qcow2 layer2.qcow2 81 20
judge qcow2 layer2.qcow2

# In folders: relative names are meant from the image that has them.
mkdir -p a/b
qemu-img create -q -f raw a/b/base.raw 2M
scribble raw a/b/base.raw 90 10
(cd a && qemu-img create -q -f qcow2 -b b/base.raw -F raw mid.qcow2)
qemu-img create -q -f qcow2 -b a/mid.qcow2 -F qcow2 top.qcow2
scribble qcow2 top.qcow2 91 10
judge qcow2 top.qcow2

# A raw file outside of the folder of the image that names it: only where it is allowed.
cp a/b/base.raw base.raw
(cd a && qemu-img create -q -f qcow2 -b ../base.raw -F raw out.qcow2)
expect_status 1 imgtool convert -O raw a/out.qcow2 ours.raw
imgtool convert --allow-references=. -O raw a/out.qcow2 ours.raw || differs "allowed reference"
cmp base.raw ours.raw || differs "allowed reference"
judge_end
