#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Where the kernel refuses io_uring, as in most containers, everything works without a word.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_program python3
sanitized imgtool && skip "sanitizers do not run under a filter of system calls"

without() { oracle without_io_uring "$@"; }
status=0
without EPERM true || status=$?
[ $status -ne 77 ] || skip "system calls cannot be filtered here"
random_data 1 3000000 >disk.raw
truncate -s 4M disk.raw
imgtool create -q -f qcow2 empty.qcow2 4M

for error in EPERM ENOSYS; do
	# Neither page cache nor a cache-less host file needs it.
	for cache in writeback none; do
		without $error imgtool convert -f raw -O raw -T $cache -t $cache disk.raw copy.raw 2>err
		same_bytes disk.raw copy.raw
		without $error imgtool compare -T $cache -f raw -F raw disk.raw copy.raw >out 2>>err
		without $error imgtool bench -f raw -c 100 -d 16 -t $cache disk.raw >out 2>>err
		[ ! -s err ] || { cat err && fail "$error, $cache: something is said"; }
	done
	without $error imgtool check -q empty.qcow2 2>err
	without $error imgtool map empty.qcow2 >out 2>>err
	without $error imgtool bitmap --add empty.qcow2 $error 2>>err
	[ ! -s err ] || { cat err && fail "$error: something is said"; }
	# Who asks for it by name is told.
	expect_status 1 without $error imgtool bench -f raw -c 10 -i io_uring disk.raw
	one_sentence err imgtool io_uring
done

requires_fuse
mkdir mnt
cleanup_add unmount_now "$PWD/mnt"
without EPERM imgfs -F raw disk.raw "$PWD/mnt" 2>err
[ ! -s err ] || { cat err && fail "imgfs says something"; }
same_bytes disk.raw mnt/disk.raw
dd if=mnt/disk.raw of=direct.raw bs=1M iflag=direct status=none
same_bytes disk.raw direct.raw
unmount mnt
