#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# What becomes of space: fstrim in a file system on a partition shrinks the image on its host;
# discard=ignore keeps it; detect_zeroes= finds zeroes that are written.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_fuse
requires_loop
requires_qemu
requires_program mkfs.ext4 fstrim sfdisk e2fsck

mkdir m t
cleanup_add unmount_now "$SCRATCH/m"
# near KIB EXPECTED WHAT
near() { [ "$1" -ge $(($2 - 600)) ] && [ "$1" -le $(($2 + 600)) ] || fail "$3: $1 KiB, expected about $2"; }
used() { echo $(($(stat -c %b "$1") / 2)); } # KiB

# image FORMAT NAME: 64 MiB with one partition.
image() {
	truncate -s 64M plain.raw
	printf 'label: gpt\nstart=2048\n' | sfdisk -q plain.raw
	rm -f "$2"
	qemu-img convert -q -f raw -O "$1" plain.raw "$2"
	rm plain.raw
}
# with_loop COMMAND...: with the partition in $loop.
with_loop() {
	attach_loop m/partitions/1.raw
	local status=0
	"$@" || status=$?
	! mountpoint -q t || umount t
	detach_loops
	return $status
}
fill() {
	mkfs.ext4 -q "$loop"
	mount "$loop" t
	random_data 3 16000000 >t/file
	sync -f t
}
empty() {
	mount "$loop" t
	rm t/file
	sync -f t
	fstrim t
	umount t
	e2fsck -fn "$loop" >fsck 2>&1 || fail "e2fsck: $(cat fsck)"
}

for format in raw qcow2; do
	image $format d.$format
	mount_imgfs -o rw,format=$format d.$format m
	with_loop fill
	full=$(used d.$format)
	[ "$full" -gt 15600 ] || fail "$format: $full KiB after writing 16 MB"
	with_loop empty
	unmount m
	trimmed=$(used d.$format)
	[ "$trimmed" -lt $((full - 14000)) ] || fail "$format: $full KiB, $trimmed after fstrim"
	[ $format = raw ] || qemu-img check -q d.$format || fail "qemu-img check"

	image $format d.$format
	mount_imgfs -o rw,discard=ignore,format=$format d.$format m
	with_loop fill
	full=$(used d.$format)
	with_loop empty
	unmount m
	[ "$(used d.$format)" -ge "$full" ] || fail "$format: discard=ignore gave space back"
	[ $format = raw ] || qemu-img check -q d.$format || fail "qemu-img check"
done

# Room that was made before anything was written goes back too.
rm d.raw
truncate -s 64M d.raw
fallocate -l 64M d.raw
mount_imgfs -o rw,format=raw d.raw m
fallocate -p -o 0 -l 32M m/disk.raw
unmount m
near "$(used d.raw)" 32768 "fallocate -p of what has room only"

# 8 MiB of zeroes: over data, and into what is empty.
zeroes() { # OPTIONS: prints what the host has of the image before and after, and in an empty place
	qemu-img create -q -f qcow2 z.qcow2 64M
	qemu-io -c 'write -P 1 0 8M' z.qcow2 >/dev/null
	used z.qcow2
	mount_imgfs -o "rw$1" z.qcow2 m
	dd if=/dev/zero of=m/disk.raw bs=1M count=8 conv=notrunc,fsync status=none
	used z.qcow2
	dd if=/dev/zero of=m/disk.raw bs=1M count=8 seek=16 conv=notrunc,fsync status=none
	[ "$(head -c 24M m/disk.raw | tr -d '\0' | wc -c)" -eq 0 ] || fail "$1: not zero"
	unmount m
	qemu-img check -q z.qcow2 || fail "$1: qemu-img check"
	used z.qcow2
}
read -r -d '' a b c < <(zeroes "" | tr '\n' ' ') || true
near "$b" "$a" "off, over data"
near "$c" $((a + 8192)) "off, empty place"
read -r -d '' a b c < <(zeroes ",detect_zeroes=on" | tr '\n' ' ') || true
near "$b" "$a" "on, over data"
near "$c" "$a" "on, empty place"
read -r -d '' a b c < <(zeroes ",detect_zeroes=unmap" | tr '\n' ' ') || true
near "$b" $((a - 8192)) "unmap, over data"
near "$c" $((a - 8192)) "unmap, empty place"
