#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# check -r all of a damaged snapshot table: snapshots that can be told to be there are kept with all
# their data, and what others had is not freed before the user says so.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_qemu

for i in 1 2 3; do random_data $i 262144 >$i.part; done
qemu-img create -q -f qcow2 whole.qcow2 4M
for i in 1 2; do
	qemu-io -c "write -q -s $i.part ${i}00k 256k" whole.qcow2
	qemu-img snapshot -c "state $i" whole.qcow2
	qemu-img convert -l "state $i" -O raw whole.qcow2 "$i.raw"
done
qemu-io -c 'write -q -s 3.part 64k 256k' whole.qcow2
qemu-img convert -O raw whole.qcow2 now.raw
table=$((16#$(od -An -tx1 -j64 -N8 whole.qcow2 | tr -d ' ')))
second=$((table + 72)) # an entry: 40 bytes, 24 of extra data, 1 of the ID, 7 of the name

shows() {
	imgtool convert "${@:2}" d.qcow2 d.raw
	same_bytes d.raw "$1"
}
# damaged NAME KEPT [OFFSET HEX]...: KEPT of the two snapshots are there after -r all
damaged() {
	local name=$1 kept=$2
	cp whole.qcow2 d.qcow2
	shift 2
	while [ $# -gt 0 ]; do
		poke d.qcow2 "$1" "$2"
		shift 2
	done
	cp d.qcow2 before
	# Zeroes can be read as entries of empty disks.
	case $name in more | zero) ;; *) expect_status 1 imgtool map d.qcow2 ;; esac
	expect_status 2 imgtool check d.qcow2
	expect_output err "ERROR the snapshot table is damaged: ${#kept} of its"
	expect_status 2 imgtool check -r leaks d.qcow2
	cmp before d.qcow2 || fail "$name: -r leaks changed it"
	if [ "${#kept}" -eq 2 ]; then
		expect_status 0 imgtool check -r all d.qcow2
	else
		expect_status 3 imgtool check -r all d.qcow2
		expect_output err "Leaks are kept"
	fi
	for i in 1 2; do
		case $kept in *$i*) shows $i.raw -l "state $i" ;; esac
	done
	shows now.raw
	[ "$(imgtool snapshot -l d.qcow2 | grep -c state)" -eq ${#kept} ] || fail "$name: $(imgtool snapshot -l d.qcow2)"
	expect_status 0 imgtool check -r leaks d.qcow2
	expect_status 0 imgtool check d.qcow2
	expect_status 0 qemu-img check d.qcow2
	shows now.raw
}
damaged more 12 60 00000005
damaged too-many 12 60 00011170
damaged extra 12 $((table + 36)) 00001388
damaged extra-last 12 $((second + 36)) 00001388
damaged extra-and-size 12 $((table + 36)) 7fffffff $((second + 36)) 00001388
damaged first-gone 2 "$table" "$(printf 'fe%.0s' {1..64})"
damaged last-gone 1 $((second + 36)) 00001388 $((second + 1)) ff
damaged all-gone '' "$table" "$(printf 'fe%.0s' {1..160})"
damaged zero '' "$table" "$(printf '00%.0s' {1..160})"
damaged nowhere '' 64 0000010000000000
damaged unaligned '' 64 "$(printf %016x $((table + 512)))"
damaged header '' 64 0000000000000000

# A name that would go on into the next entry is cut.
cp whole.qcow2 d.qcow2
poke d.qcow2 $((table + 14)) ffff
expect_status 0 imgtool check -r all d.qcow2
expect_status 0 qemu-img check d.qcow2
shows 1.raw -l "state 1"
shows 2.raw -l "state 2"

# Version 3 wants the disk's size in each entry: qemu-img writes such a table anew too.
cp whole.qcow2 d.qcow2
dd if=whole.qcow2 bs=1 skip="$table" count=40 status=none >entry
dd if=whole.qcow2 bs=1 skip=$((table + 64)) count=8 status=none >>entry
dd if=whole.qcow2 bs=1 skip="$second" count=80 status=none >>entry
dd if=entry of=d.qcow2 bs=1 seek="$table" conv=notrunc status=none
poke d.qcow2 $((table + 36)) 00000000
expect_status 2 imgtool check d.qcow2
expect_output err "ERROR snapshot table entry 0 is incomplete"
expect_status 0 imgtool check -r all d.qcow2
expect_status 0 qemu-img check d.qcow2
shows 1.raw -l "state 1"
shows 2.raw -l "state 2"
