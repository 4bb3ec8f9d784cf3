#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Raw disks as large as a file can be, and block devices.
. "$IMGFS_SRCDIR/tests/functions.sh"

big=$((0x7fffffffffffffff))
dir=$(mktemp -d /dev/shm/imgfs-ends.XXXXXX)
cleanup_add rm -rf "$dir"
if truncate -s $big "$dir/big.raw" 2>/dev/null; then
	printf end | dd of="$dir/big.raw" bs=1 seek=$((big - 4096)) conv=notrunc status=none
	imgtool info -f raw --output=json "$dir/big.raw" >out
	expect_output out "\"virtual-size\": $big"
	timeout 10 imgtool map -f raw --output=json "$dir/big.raw" >out
	[ "$(grep -c start out)" -le 4 ] || fail "map of a hole has many rows"
	expect_output out "\"start\": 0" '"data": true'
	timeout 10 imgtool dd -f raw -O raw bs=1M skip=$((big >> 20)) if="$dir/big.raw" of=tail.raw
	# Targets have whole sectors.
	[ "$(stat -c %s tail.raw)" -eq $((1 << 20)) ] || fail "dd: wrong tail"
	expect_output tail.raw end
	expect_status 1 timeout 10 imgtool compare -f raw -F raw "$dir/big.raw" tail.raw
	if [ -w /dev/fuse ] && type -P fusermount3 >/dev/null; then
		mount_imgfs -o format=raw "$dir/big.raw" mnt
		[ "$(stat -c %s mnt/disk.raw)" -eq $big ] || fail "mount: wrong size"
		tail -c 4096 mnt/disk.raw | cmp -n 3 - <(printf end)
		unmount mnt
	fi
else
	echo "no file system here takes a file of 8 EiB"
fi

requires_loop
random_data 5 $((3 << 20)) >disk.raw
attach_loop disk.raw
imgtool info -f raw "$loop" >out
expect_output out "virtual size: 3 MiB (3145728 bytes)"
imgtool convert -f raw -O raw "$loop" copy.raw
same_bytes disk.raw copy.raw
imgtool compare -f raw -F raw "$loop" disk.raw
imgtool map -f raw --output=json "$loop" >out
expect_output out '"length": 3145728, "depth": 0, "present": true, "zero": false, "data": true'
if [ -w /dev/fuse ] && type -P fusermount3 >/dev/null; then
	mount_imgfs -o format=raw "$loop" mnt2
	same_bytes disk.raw mnt2/disk.raw
	unmount mnt2
fi
