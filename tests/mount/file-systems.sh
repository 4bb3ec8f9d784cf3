#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# ext4, xfs and btrfs on a loop device over disk.raw, over a partition, and over a part of disk.raw:
# files are copied in, a snapshot is mounted beside it, the file system is grown, space is trimmed,
# and the file systems' own checks find nothing.
#
# usage: file-systems.sh [-l | FILE-SYSTEM PLACE MODE]	-l: all combinations (or IMGFS_LONG=1)
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_fuse
requires_qemu
requires_loop
requires_program sfdisk fstrim fsfreeze sha256sum python3

file_systems=(ext4 xfs btrfs)
places=(disk partition offset)
modes=(rw rw-4k rw-extended raw overlay scratch)

# ---- the image

# make_image FILE-SYSTEM PLACE MODE -> $file, $options, $format, $snapshots, $size (MiB)
make_image() {
	rm -rf ./*.qcow2 plain.raw disk.raw
	size=128 file=disk.qcow2 options=rw format=qcow2 snapshots=yes
	# xfs wants 300 MiB, btrfs 256 to be resized.
	[ "$1" = ext4 ] || size=320
	truncate -s $((size + 2))M plain.raw
	if [ "$2" != disk ]; then
		printf 'label: gpt\nstart=2048,size=%sM\n' "$size" | sfdisk -q plain.raw
	fi
	case $3 in
	rw) convert cluster_size=64k ;;
	rw-4k) convert cluster_size=4k ;;
	rw-extended) convert extended_l2=on,cluster_size=128k ;;
	raw) format=raw snapshots= file=disk.raw && mv plain.raw disk.raw ;;
	overlay | scratch)
		convert cluster_size=64k
		mv disk.qcow2 base.qcow2
		file=base.qcow2 options=scratch=1G
		[ "$3" = scratch ] || options=overlay=disk.qcow2
		sha256sum base.qcow2 >base.sum
		;;
	esac
}
convert() { qemu-img convert -q -f raw -O qcow2 -o "$1" plain.raw disk.qcow2; }

used() { # KIB of the host that the image takes
	sync -f .
	local file=disk.qcow2
	[ -e $file ] || file=disk.raw
	echo $(($(stat -c %b $file) / 2))
}

# attach PLACE FOLDER [OPTION...]: $loop on that place in m or a snapshot.
attach() {
	local place=$1 folder=$2
	shift 2
	case $place in
	disk) attach_loop "$@" "$folder/disk.raw" ;;
	partition) attach_loop "$@" "$folder/partitions/1.raw" ;;
	offset) attach_loop "$@" -o 1M --sizelimit ${size}M "$folder/disk.raw" ;;
	esac
}

# ---- file systems

# Another test's mount namespace, a copy of ours, may have the file system mounted for a while.
wait_until_unmounted() { # DEVICE
	python3 - "$1" <<-'E'
		import os, sys, time
		for i in range(200):
		    try:
		        sys.exit(os.close(os.open(sys.argv[1], os.O_RDONLY | os.O_EXCL)))
		    except OSError:
		        time.sleep(0.05)
		sys.exit(sys.argv[1] + ": still mounted somewhere")
	E
}
check() { # FILE-SYSTEM DEVICE
	local status=0
	wait_until_unmounted "$2"
	case $1 in
	ext4) e2fsck -fn "$2" >check.log 2>&1 || status=$? ;;
	xfs) xfs_repair -n "$2" >check.log 2>&1 || status=$? ;;
	btrfs) btrfs check --readonly "$2" >check.log 2>&1 || status=$? ;;
	esac
	[ $status -eq 0 ] || { cat check.log && fail "$1: its check says $status"; }
}
grow() { # FILE-SYSTEM DEVICE MOUNTPOINT
	case $1 in
	ext4) resize2fs "$2" >grow.log 2>&1 || grow_unmounted "$2" "$3" ;;
	xfs) xfs_growfs "$3" >grow.log ;;
	btrfs) btrfs filesystem resize max "$3" >grow.log ;;
	esac || { cat grow.log && fail "$1 does not grow"; }
}
# Without CAP_SYS_RESOURCE, as in some containers, ext4 does not grow while it is mounted.
grow_unmounted() { # DEVICE MOUNTPOINT
	grep -q "Permission denied to resize" grow.log || return 1
	umount "$2"
	wait_until_unmounted "$1"
	e2fsck -fp "$1" >>grow.log
	resize2fs "$1" >>grow.log 2>&1
	mount "$1" "$2"
}
# mount_old FILE-SYSTEM PLACE FOLDER: as it is, with no look at its journal, beside the live one.
mount_old() {
	local options=ro
	[ "$1" != ext4 ] || options=ro,noload
	[ "$1" != xfs ] || options=ro,norecovery,nouuid
	attach "$2" "$3" -r
	# Two of one name at a time: Linux before 6.7 says no.
	mount -o $options "$loop" old 2>mount.log && return
	[ "$1" = btrfs ] || { cat mount.log && fail "$1: the snapshot cannot be mounted"; }
	detach_loop_of "$3/"
	return 1
}
# detach_loop_of PREFIX: of those of this test the ones on files that begin so.
detach_loop_of() {
	local device
	for device in $(losetup -l -n -O NAME,BACK-FILE | awk -v p="$SCRATCH/$1" 'index($2, p) == 1 {print $1}'); do
		losetup -d "$device"
	done
}
first_files() { # FOLDER: as they were copied in
	diff -r "$IMGFS_SRCDIR/image" "$1/image"
	cmp noise "$1/noise"
}
later_files() {
	diff -r "$IMGFS_SRCDIR/image" "$1/image"
	[ ! -e "$1/noise" ] || fail "noise is there still"
	[ "$(cat "$1/later")" = later ] || fail "later: $(cat "$1/later")"
	cmp noise "$1/again"
}

look_at_snapshot() { # FILE-SYSTEM PLACE
	mount_old "$1" "$2" m/snapshots/a || return 0
	first_files old
	[ ! -e old/later ] || fail "the snapshot has what came later"
	expect_status 1 rmdir m/snapshots/a
	expect_output err "Device or resource busy"
	umount old
	wait_until_unmounted "$loop"
	detach_loop_of m/snapshots/
}

# A disk grows under its loop device; a partition does when its table says so.
grow_place() { # FILE-SYSTEM PLACE
	case $2 in
	disk)
		if [ "$1" = ext4 ]; then
			truncate -s +64M m/disk.raw
		else
			echo +64M >m/control/resize
		fi
		losetup -c "$loop"
		;;
	partition)
		umount in
		wait_until_unmounted "$loop"
		detach_loops
		echo +64M >m/control/resize
		echo ', +' | sfdisk -q -N 1 m/disk.raw 2>sfdisk.log
		attach partition m
		mount "$loop" in
		;;
	esac
}

# trims FILE-SYSTEM: what a file took goes back to the host.
trims() {
	local full trimmed i
	random_data big 24000000 >in/big
	sync -f in
	full=$(used)
	rm in/big
	# A file system gives up a file's blocks when it has time to.
	for ((i = 0; i < 20; i++)); do
		sync -f in
		fstrim in
		sync m/disk.raw
		trimmed=$(used)
		[ "$trimmed" -ge $((full - 22000)) ] || return 0
		sleep 0.1
	done
	fail "$1: $full KiB, $trimmed after fstrim"
}

tour() { # FILE-SYSTEM PLACE MODE
	local kind=$1 place=$2 mode=$3 live before
	if [ -z "$(type -P "mkfs.$kind")" ] || ! { modprobe -q "$kind" 2>/dev/null ||
		grep -qw "$kind" /proc/filesystems; }; then
		echo "$kind: no mkfs.$kind, or not known to the kernel: left out"
		return 0
	fi
	echo "$kind $place $mode"
	make_image "$@"
	mount_imgfs -o "$options,format=$format" $file m
	attach "$place" m
	"mkfs.$kind" -q "$loop" >mkfs.log 2>&1 || { cat mkfs.log && fail "mkfs.$kind"; }
	mount "$loop" in
	cp -r "$IMGFS_SRCDIR/image" in/image
	cp noise in/noise
	live=$loop
	if [ -n "$snapshots" ]; then
		# Frozen, so that nothing is in the journal alone.
		fsfreeze -f in
		mkdir m/snapshots/a || { fsfreeze -u in && fail "mkdir snapshots/a"; }
		fsfreeze -u in
	fi
	echo later >in/later
	rm in/noise
	cp noise in/again
	[ -z "$snapshots" ] || look_at_snapshot "$kind" "$place"
	loop=$live
	before=$(df --output=size -k in | tail -n 1)
	if [ "$place" != offset ]; then
		grow_place "$kind" "$place"
		grow "$kind" "$loop" in
		[ "$(df --output=size -k in | tail -n 1)" -gt $((before + 50000)) ] ||
			fail "$kind did not grow: $before, $(df --output=size -k in)"
	fi
	[ "$mode" = scratch ] || trims "$kind"
	later_files in
	umount in
	check "$kind" "$loop"
	detach_loops
	if [ -n "$snapshots" ]; then
		rmdir m/snapshots/a
		[ -z "$(ls m/snapshots)" ] || fail "snapshots/: $(ls m/snapshots)"
	fi
	unmount m
	[ ! -e base.sum ] || sha256sum -c --quiet base.sum
	rm -f base.sum
	[ "$mode" != scratch ] || return 0
	[ "$mode" != overlay ] || file=disk.qcow2
	[ $format = raw ] || qemu-img check -q $file || fail "qemu-img check"
	# Once more, read-only.
	mount_imgfs -o "ro,format=$format" $file m
	mount_old "$kind" "$place" m
	later_files old
	umount old
	wait_until_unmounted "$loop"
	detach_loops
	unmount m
}

mkdir in old
cleanup_add unmount_now "$SCRATCH/in"
cleanup_add unmount_now "$SCRATCH/old"
random_data noise 3000001 >noise
if [ $# -eq 3 ]; then
	tour "$@"
elif [ "${1:-}" = -l ] || long_mode; then
	for kind in "${file_systems[@]}"; do
		for place in "${places[@]}"; do
			for mode in "${modes[@]}"; do tour "$kind" "$place" "$mode"; done
		done
	done
else
	tour ext4 partition rw-4k
	tour xfs disk overlay
	tour btrfs disk rw
fi
