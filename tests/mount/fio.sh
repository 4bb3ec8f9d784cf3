#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# fio with verify on a writable mount: four jobs write, sequentially and at random, with blocks of
# 512 bytes to 1 MiB, buffered and direct, by each engine. What they wrote is verified at once, in
# a snapshot of that moment after others have written over it, and through a second, read-only
# mount; then qemu-img finds the image clean and the same.
#
# usage: fio.sh [-t SECONDS] [-s SEED]	random rounds for so long
#	 fio.sh KIND PHASE...		one round; PHASE is TARGET:RW:BS:ENGINE:DIRECT:SEED
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_fuse
requires_qemu
requires_program fio sfdisk sha256sum

JOBS=4
kinds=(raw 4k 64k 2M extended preallocated data_file data_file_raw overlay overlay_4k scratch)

# ---- the image

# image KIND MIB: makes it in disk.$format, $mode being how it is mounted.
image() {
	local kind=$1 size=$2 sectors n
	mode=rw format=qcow2 file=disk.qcow2 snapshots=yes
	rm -rf ./*.qcow2 ./*.raw
	truncate -s "${size}M" plain.raw
	# A partition a job, not all on a boundary of pages.
	sectors=$(((size / JOBS - 1) * 2048))
	for ((n = 0; n < JOBS; n++)); do
		echo "start=$((2048 + n * (sectors + 63))), size=$sectors"
	done | (echo "label: gpt" && cat) | sfdisk -q plain.raw
	case $kind in
	raw) format=raw file=disk.raw snapshots= && mv plain.raw disk.raw && return ;;
	4k | 64k | 2M) create "cluster_size=$kind" ;;
	extended) create extended_l2=on,cluster_size=128k ;;
	preallocated) create preallocation=metadata ;;
	data_file) snapshots= && create data_file=data.raw ;;
	data_file_raw) snapshots= && create data_file=data.raw,data_file_raw=on ;;
	overlay | overlay_4k | scratch)
		create cluster_size=64k -c
		mv disk.qcow2 base.qcow2
		file=base.qcow2 mode=scratch=16M
		[ "$kind" = scratch ] || mode=overlay=disk.qcow2
		[ "$kind" != overlay_4k ] || qemu-img create -q -f qcow2 -F qcow2 \
			-b "$PWD/base.qcow2" -o cluster_size=4k disk.qcow2
		sha256sum base.qcow2 >base.sum
		;;
	*) fail "no such kind of image: $kind" ;;
	esac
	rm -f plain.raw
}
create() { # OPTIONS [-c]
	qemu-img convert -q ${2:-} -f raw -O qcow2 -o "$1" plain.raw disk.qcow2
}

# ---- jobs

# job_file FILE MIB TARGET:RW:BS:ENGINE:DIRECT:SEED
job_file() {
	local file=$1 size=$2 target rw bs engine direct seed n each
	IFS=: read -r target rw bs engine direct seed <<<"$3"
	# Between what the partition table takes at both ends of the disk.
	each=$((size / JOBS - 1))
	{
		cat <<-E
			[global]
			ioengine=$engine
			direct=$direct
			iodepth=8
			rw=$rw
			randseed=$seed
			verify=crc32c
			verify_fatal=1
			verify_state_save=0
			allow_file_create=0
			size=${each}M
		E
		case $bs in
		*u) echo "bsrange=${bs%u}" && echo bs_unaligned=1 ;;
		*-*) echo "bsrange=$bs" ;;
		*) echo "bs=$bs" ;;
		esac
		if [ "$target" = same ]; then
			# Who writes a block last is anyone's guess, but it is whole.
			echo norandommap=1
			echo do_verify=0
		fi
		for ((n = 0; n < JOBS; n++)); do
			echo "[job$n]"
			case $target in
			partitions) echo "filename=at/partitions/$((n + 1)).raw" ;;
			disk) echo "filename=at/disk.raw" && echo "offset=$((1 + n * each))M" ;;
			same) echo "filename=at/disk.raw" && echo "offset=1M" ;;
			*) fail "no such target: $target" ;;
			esac
		done
	} >"$file"
}

# run_fio FILE MOUNT-OR-SNAPSHOT [OPTION...]
run_fio() {
	local file=$1 status=0
	ln -sfn "$2" at
	shift 2
	fio --output=fio.log "$@" "$file" >fio.err 2>&1 || status=$?
	if [ $status -ne 0 ] || grep -q 'verify:.*bad' fio.log fio.err; then
		head -n 40 fio.err fio.log
		fail "fio $* in $(readlink at): status $status"
	fi
}

# one_size FILE: do its jobs write everything, in blocks of one size?
one_size() { grep -q '^bs=' "$1" && ! grep -q '^rw=randrw' "$1"; }

# verify FILE PLACE: what the jobs of the file wrote is there, in a mount or snapshot that is not
# written to. fio opens for writing what it only verifies, unless it is told to read: then it does
# not know the sizes of blocks, but for one size. The others it gets in a copy.
verify() {
	local name
	if one_size "$1"; then
		sed 's/^rw=rand.*/rw=randread/; s/^rw=write/rw=read/; s/^ioengine=mmap/ioengine=psync/
			/^do_verify/d; /^norandommap/d' "$1" >read.fio
		run_fio read.fio "$2"
		return
	fi
	rm -rf copy && mkdir -p copy/partitions
	for name in $(sed -n 's/^filename=at.//p' "$1" | sort -u); do
		cp "$2/$name" "copy/$name"
	done
	run_fio "$1" copy --verify_only
}

# phase NUMBER MIB WORDS: writes, verifies, and keeps a snapshot of it.
phase() {
	local number=$1 size=$2 words=$3 file=phase$1.fio
	job_file "$file" "$size" "$words"
	if [ "${words%%:*}" = same ]; then
		# So that there is a block everywhere.
		sed '/^\[job1\]/,$d; /^norandommap/d; s/^rw=.*/rw=write/' "$file" >fill.fio
		run_fio fill.fio mnt
	fi
	run_fio "$file" mnt
	[[ $words != same:* ]] || verify "$file" mnt
	[ -z "$snapshots" ] || mkdir "mnt/snapshots/$number"
}

# round KIND MIB WORDS...
round() {
	local kind=$1 size=$2 n words
	shift 2
	echo "$kind $*"
	image "$kind" "$size"
	mount_imgfs -o "$mode,format=$format" $file mnt
	n=0
	for words in "$@"; do
		phase $((++n)) "$size" "$words"
	done
	if [ "$kind" != scratch ]; then
		unmount mnt
		[ "$mode" = rw ] || file=disk.qcow2 format=qcow2
		mount_imgfs -o "ro,format=$format" $file mnt
	fi
	verify "phase$n.fio" mnt
	while [ -n "$snapshots" ] && [ $n -gt 0 ]; do
		verify "phase$n.fio" "mnt/snapshots/$n"
		n=$((n - 1))
	done
	[ "$kind" = scratch ] || qemu-img compare -q -f raw -F $format mnt/disk.raw $file ||
		fail "qemu-img sees other bytes"
	unmount mnt
	[ "$kind" = scratch ] || [ $format = raw ] || qemu-img check -q $file ||
		fail "qemu-img check"
	[ ! -e base.sum ] || sha256sum -c --quiet base.sum
	rm -f base.sum
}

# ---- by hand

pick() { # VARIABLE WORD...
	local -n to=$1
	shift $((RANDOM % ($# - 1) + 1))
	to=$1
}
random_phase() { # -> $words
	local target rw bs engine direct
	pick target disk partitions same
	pick rw write randwrite randrw
	pick bs 4k 8k 64k 1m 4k-64k 4k-1m 512-64k 4k-4m 1000-70000u
	pick engine psync libaio io_uring mmap pvsync2
	pick direct 0 1
	# One size of blocks, or one would lie across the end of another.
	[ "$target" != same ] || pick bs 4k 16k 64k 256k 1m
	[ "$target" != same ] || pick rw write randwrite
	# fio 3.33 maps the wrong place of a file when a job does not begin at 0.
	[ "$engine" != mmap ] || [ "$target" = partitions ] || engine=psync
	[ "$engine" != mmap ] || direct=0
	[[ $bs != *u ]] || direct=0
	words=$target:$rw:$bs:$engine:$direct:$RANDOM
}
long() { # SECONDS SEED
	local until=$((SECONDS + $1)) rounds=0 kind phases words size
	RANDOM=$2
	while [ $SECONDS -lt $until ]; do
		pick kind "${kinds[@]}"
		phases=()
		while [ ${#phases[@]} -eq 0 ] || [ $((RANDOM % 3)) -ne 0 ]; do
			random_phase
			phases+=("$words")
		done
		# io_uring asks by a request of its own whether a file on FUSE is ready, twice for
		# each buffered read or write.
		size=256
		[[ ${phases[*]} != *:io_uring:0:* ]] || size=64
		round "$kind" $size "${phases[@]}"
		rounds=$((rounds + 1))
	done
	echo "$rounds rounds"
}

cleanup_add unmount_now "$SCRATCH/mnt"
seconds= seed=1
while getopts t:s: option; do
	case $option in
	t) seconds=$OPTARG ;;
	s) seed=$OPTARG ;;
	*) exit 2 ;;
	esac
done
shift $((OPTIND - 1))
if [ -n "$seconds" ]; then
	long "$seconds" "$seed"
elif [ $# -gt 0 ]; then
	round "$1" 256 "${@:2}"
else
	round 64k 32 disk:randwrite:4k-1m:libaio:1:11 partitions:write:64k:mmap:0:12
	round 4k 32 same:randwrite:4k:psync:0:21 disk:randrw:512-64k:io_uring:0:22
	round overlay 32 partitions:randwrite:1000-70000u:psync:0:31
	round raw 32 disk:write:1m:libaio:1:41
	! long_mode || long 120 1
fi
