#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# resize of qcow2: up and down, every kind of image, with snapshots, backing files and space made for
# the new part. qemu-img finds nothing wrong, and what is new reads as zeroes.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_qemu

sound() {
	expect_status 0 qemu-img check r.qcow2
	expect_status 0 imgtool check r.qcow2
}
# shows FILE: both programs read the same disk.
shows() {
	imgtool convert -O raw r.qcow2 x.raw
	same_bytes x.raw "$1"
	imgtool compare -q -F raw r.qcow2 "$1" || fail "compare"
	qemu-img compare -q -F raw r.qcow2 "$1" || fail "qemu-img compare"
}
make() {
	rm -f r.qcow2 ext.raw
	qemu-img create -q -f qcow2 "$@"
}
# Odd sizes: the last cluster is cut, so that something may hide behind the end.
odd=4000256

for o in compat=1.1 compat=0.10 cluster_size=16k,extended_l2=on cluster_size=512 cluster_size=2M data_file=ext.raw \
	data_file=ext.raw,data_file_raw=on; do
	make -o "$o" r.qcow2 4M
	qemu-io -c 'write -q -P 1 1M 3M' r.qcow2
	qemu-img convert -O raw r.qcow2 want.raw
	for size in 8M 600M $odd 4M 3998208 $((odd - 512)) 5M; do
		[ "$(imgtool resize --shrink r.qcow2 $size)" = "Image resized." ]
		truncate -s $size want.raw
		sound
		shows want.raw
		[[ $o != *raw=on ]] || same_bytes ext.raw want.raw
	done
done

for mode in metadata falloc full; do
	for o in compat=1.1 cluster_size=32k,extended_l2=on compat=0.10,cluster_size=4k data_file=ext.raw; do
		make -o "$o" r.qcow2 $odd
		qemu-io -c "write -q -P 1 0 $odd" r.qcow2
		qemu-img convert -O raw r.qcow2 want.raw
		imgtool resize -q --preallocation=$mode r.qcow2 12M
		truncate -s 12M want.raw
		sound
		shows want.raw
		imgtool map --output=json r.qcow2 >out
		python3 -c 'import json
assert all(e["present"] for e in json.load(open("out"))), open("out").read()'
	done
done
# Space that held something before is made to read as zeroes.
make r.qcow2 8M
qemu-io -c 'write -q -P 5 0 8M' r.qcow2
qemu-io -d unmap -c 'discard -q 1M 6M' r.qcow2
qemu-img convert -O raw r.qcow2 want.raw
imgtool resize -q --preallocation=metadata r.qcow2 16M
truncate -s 16M want.raw
sound
shows want.raw

# What a longer backing file has behind the old end stays hidden.
qemu-img create -q -f raw b.raw 16M
qemu-io -f raw -c 'write -q -P 9 0 16M' b.raw
for o in compat=1.1 extended_l2=on compat=0.10; do
	for size in 2M $odd; do
		make -o $o -F raw -b b.raw r.qcow2 $size
		qemu-img convert -O raw r.qcow2 want.raw
		imgtool resize -q r.qcow2 8M
		truncate -s 8M want.raw
		sound
		shows want.raw
		imgtool resize -q --preallocation=metadata r.qcow2 20M
		truncate -s 20M want.raw
		sound
		shows want.raw
	done
done

# Snapshots keep their size and what they had.
make r.qcow2 $odd
qemu-io -c "write -q -P 1 0 $odd" r.qcow2
qemu-img convert -O raw r.qcow2 first.raw
qemu-img snapshot -c a r.qcow2
imgtool resize -q --shrink r.qcow2 2000384
sound
imgtool resize -q r.qcow2 12M
sound
head -c 2000384 first.raw >want.raw
truncate -s 12M want.raw
shows want.raw
imgtool convert -l a -O raw r.qcow2 x.raw
same_bytes x.raw first.raw
imgtool snapshot -a a r.qcow2
sound
shows first.raw

# A compressed last cluster.
qemu-img convert -c -O qcow2 first.raw r.qcow2
imgtool resize -q --shrink r.qcow2 3998208
imgtool resize -q r.qcow2 6M
sound
head -c 3998208 first.raw >want.raw
truncate -s 6M want.raw
shows want.raw

# Shrinking gives the space back.
make r.qcow2 64M
qemu-io -c 'write -q -P 1 0 64M' r.qcow2
imgtool resize -q --shrink r.qcow2 1M
sound
[ "$(stat -c %s r.qcow2)" -lt 2000000 ] || fail "the file is still $(stat -c %s r.qcow2) bytes long"

# Bitmaps get the disk's size, also where a snapshot brings it: qemu-img opens nothing else.
make r.qcow2 4M
qemu-img bitmap --add -g 512 r.qcow2 one
qemu-img bitmap --add --disable r.qcow2 two
qemu-io -c 'write -q 0 1M' r.qcow2
imgtool snapshot -c a r.qcow2
for size in 1G 2M 6G; do
	imgtool resize -q --shrink r.qcow2 $size
	sound
	qemu-io -c 'write -q 1M 64k' r.qcow2
done
imgtool snapshot -a a r.qcow2
sound
qemu-img bitmap --merge one r.qcow2 two
sound
# One that is inconsistent stays so.
qemu-io -c 'write -q 0 1M' -c abort r.qcow2 >/dev/null 2>&1 || true
imgtool check -q -r all r.qcow2 2>/dev/null
imgtool resize -q r.qcow2 6G
sound
imgtool info r.qcow2 >out
expect_output out "in-use"

make -o compat=0.10 r.qcow2 4M
qemu-img snapshot -c a r.qcow2
expect_status 1 imgtool resize r.qcow2 8M
expect_output err "Can't resize a v2 image which has snapshots"
make r.qcow2 4M
expect_status 1 imgtool resize r.qcow2 5000001
expect_output err "The new size must be a multiple of 512"
expect_status 1 imgtool resize r.qcow2 7E
expect_output err "Failed to grow the L1 table: "
sound
