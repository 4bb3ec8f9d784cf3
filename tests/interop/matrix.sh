#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Every way in which qemu-img can make a single qcow2 or raw image, with random
# writes, zeroes and discards by qemu-io; judged by qemu-img.
# IMGFS_LONG=1: all sizes, not a few of them.
. "$IMGFS_SRCDIR/tests/interop/judge.sh"

seed=100
# made NAME OPTIONS [FLAGS] [SIZE]
made() {
	seed=$((seed + 1))
	qemu-img create -q -f qcow2 -o "$2" "$1.qcow2" "${4:-12M}"
	scribble qcow2 "$1.qcow2" $seed 40 "${3:-}"
	judge qcow2 "$1.qcow2"
	rm -f "$1.qcow2"
}

for size in $(some +512 1k 2k +4k 8k 16k 32k +64k 128k 256k 512k 1M +2M); do
	made "clusters-$size" cluster_size=$size c
done
made old compat=0.10 c
made old-small compat=0.10,cluster_size=1k
for bits in $(some +1 2 4 8 32 +64); do made "refcounts-$bits" refcount_bits=$bits,cluster_size=4k; done
made lazy lazy_refcounts=on
for size in $(some +16k 64k 2M); do made "subclusters-$size" extended_l2=on,cluster_size=$size; done
made zstd compression_type=zstd c
made zstd-small compression_type=zstd,cluster_size=4k c
made subclusters-zstd extended_l2=on,compression_type=zstd c
made data-file data_file=data.bin
rm data.bin
made data-file-raw data_file=data.bin,data_file_raw=on
rm data.bin
made data-file-subclusters data_file=data.bin,extended_l2=on
rm data.bin
made metadata preallocation=metadata n
made metadata-subclusters preallocation=metadata,extended_l2=on
made falloc preallocation=falloc n 4M
made full preallocation=full n 4M
made odd-size cluster_size=64k c 5000192
made one-sector cluster_size=64k "" 512
made wide cluster_size=64k "" 700M

# Never written to, and of no bytes at all.
qemu-img create -q -f qcow2 empty.qcow2 1G
judge qcow2 empty.qcow2
qemu-img create -q -f qcow2 nothing.qcow2 0
judge qcow2 nothing.qcow2

# Whole files of real bytes, compressed.
tar -cf real.raw -C "$IMGFS_SRCDIR" image formats tests/functions.sh
truncate -s %64K real.raw
random_data 5 300000 >>real.raw
truncate -s %512 real.raw
truncate -s +3M real.raw
for options in compression_type=zlib compression_type=zstd cluster_size=512 \
	cluster_size=2M,compression_type=zstd extended_l2=on compat=0.10,cluster_size=4k; do
	qemu-img convert -c -O qcow2 -o "$options" real.raw compressed.qcow2
	judge qcow2 compressed.qcow2
done

# Resized up and down, and an image marked corrupt or dirty is still readable.
qemu-img create -q -f qcow2 resized.qcow2 8M
scribble qcow2 resized.qcow2 1 20
qemu-img resize -q resized.qcow2 700M
scribble qcow2 resized.qcow2 2 20
qemu-img resize -q --shrink resized.qcow2 6M
judge qcow2 resized.qcow2
qemu-img create -q -f qcow2 -o lazy_refcounts=on marked.qcow2 8M
scribble qcow2 marked.qcow2 3 20
poke marked.qcow2 79 01
judge qcow2 marked.qcow2
poke marked.qcow2 79 02
judge qcow2 marked.qcow2

# With bitmaps.
qemu-img create -q -f qcow2 bitmaps.qcow2 8M
qemu-img bitmap --add -g 64k bitmaps.qcow2 one
qemu-img bitmap --add --disable bitmaps.qcow2 two
scribble qcow2 bitmaps.qcow2 4 20
judge qcow2 bitmaps.qcow2

# Raw, sparse and odd.
qemu-img create -q -f raw sparse.raw 12M
scribble raw sparse.raw 5 40
judge raw sparse.raw
judge_end
