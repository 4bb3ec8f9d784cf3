#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A partition table that is written to disk.raw shows in partitions/ at once, whoever writes it,
# synced or not: also while the writer, or a loop device, still has the disk open.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_fuse
requires_program sfdisk python3

# 10 MiB, and the rest; the second begins at 11 MiB.
truncate -s 64M table.raw
printf 'label: dos\nstart=2048,size=20480\nstart=22528\n' | sfdisk -q table.raw
printf 'label: gpt\nstart=2048,size=20480\nstart=22528\n' >gpt.txt
# One of each kind, and logical ones.
printf 'label: dos\nstart=2048,size=20480\nstart=22528,type=5\nstart=24576,size=20480\nsize=8192\n' \
	>logical.txt

# shows NAMES COMMAND...: after the command, in a mount of an empty disk in which somebody has
# looked at partitions/ already.
shows() {
	local names=$1
	shift
	echo "$*"
	rm -f d.qcow2
	imgtool create -q -f qcow2 d.qcow2 64M
	mount_imgfs -o rw d.qcow2 m
	[ -z "$(ls m/partitions)" ] || fail "an empty disk has partitions"
	"$@" >log 2>&1 || { cat log && fail "$*: status $?"; }
	# By name first: it must not be enough that the folder was listed.
	[ -z "$names" ] || [ -e "m/partitions/${names##* }.raw" ] || fail "$*: no ${names##* }.raw"
	[ "$(echo $(ls m/partitions))" = "$(printf '%s.raw ' $names | sed 's/ $//')" ] ||
		fail "$*: $(ls m/partitions)"
	detach_loops
	unmount m
}
use_sfdisk() { sfdisk -q m/disk.raw <"$1"; }
shows "1 2" use_sfdisk gpt.txt
shows "1 5 6" use_sfdisk logical.txt
use_dd() { dd if=table.raw of=m/disk.raw bs=512 count=1 conv=notrunc; }
shows "1 2" use_dd
use_cp() { cp table.raw m/disk.raw; }
shows "1 2" use_cp
if [ -n "$(type -P sgdisk)" ]; then
	shows "1 3" sgdisk -n 1:2048:+10M -n 3:0:0 m/disk.raw
fi
if [ -n "$(type -P parted)" ]; then
	shows "1 2" parted -s m/disk.raw mklabel gpt mkpart a 1MiB 11MiB mkpart b 11MiB 60MiB
fi

# Open all the time, and never synced.
held_open() {
	python3 - "$1" <<-'E'
		import os, sys, mmap
		disk = os.open("m/disk.raw", os.O_RDWR)
		table = open("table.raw", "rb").read(512)
		if sys.argv[1] == "mmap":
		    mmap.mmap(disk, 4096)[:512] = table
		else:
		    os.pwrite(disk, table, 0)
		assert os.path.exists("m/partitions/2.raw")
		assert sorted(os.listdir("m/partitions")) == ["1.raw", "2.raw"]
		# And away again.
		os.pwrite(disk, bytes(512), 0)
		assert os.listdir("m/partitions") == []
		os.pwrite(disk, table, 0)
		# What else the kernel keeps of the disk is left with it.
		os.pwrite(disk, b"x" * 8192, 20 << 20)
		assert os.stat("m/partitions/1.raw").st_size == 10 << 20
		assert os.pread(disk, 8192, 20 << 20) == b"x" * 8192
	E
}
shows "1 2" held_open write
shows "1 2" held_open mmap

if has_loop; then
	loop_dd() { attach_loop m/disk.raw && dd if=table.raw of="$loop" bs=512 count=1; }
	shows "1 2" loop_dd
	# The kernel may know no partitions of loop devices, which sfdisk calls an error.
	loop_sfdisk() { attach_loop m/disk.raw && sfdisk -q --no-reread --no-tell-kernel "$loop" <gpt.txt; }
	shows "1 2" loop_sfdisk
fi
