#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# check -r: what is damaged by hand is put right, said as qemu-img says it, and stays readable.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_qemu

# Header 0, refcount table 0x10000, block 0x20000, L1 0x30000, L2 0x40000, data from 0x50000 on.
qemu-img create -q -f qcow2 whole.qcow2 64M
qemu-io -c 'write -q -P 1 0 1M' whole.qcow2
imgtool convert whole.qcow2 whole.raw

clean() {
	expect_status 0 imgtool check "$1"
	expect_status 0 qemu-img check "$1"
	expect_output out "No errors were found"
}
# repaired NAME [OFFSET HEX]...: after -r all the disk is as it was whole.
repaired() {
	local name=$1
	cp whole.qcow2 d.qcow2
	shift
	while [ $# -gt 0 ]; do
		poke d.qcow2 "$1" "$2"
		shift 2
	done
	expect_status 0 imgtool check -r all d.qcow2
	cp out "$name.out"
	clean d.qcow2
	imgtool convert d.qcow2 d.raw
	same_bytes d.raw whole.raw
}

repaired nothing
[ "$(head -n 1 nothing.out)" = "No errors were found on the image." ] || fail "a clean image: $(cat nothing.out)"
repaired copied 0x40000 0000000000050000 0x30000 0000000000040000
head -n 7 copied.out | diff - <(printf '%s\n' "The following inconsistencies were found and repaired:" "" \
	"    0 leaked clusters" "    2 corruptions" "" "Double checking the fixed image now..." \
	"No errors were found on the image.")
repaired counts $((0x20000 + 12)) 0000000200000001
expect_output counts.out "    1 leaked clusters" "    4 corruptions"
repaired reserved-bits 0x30000 8000000000040001 0x40008 9000000000060000
repaired no-block 0x10000 0000000000000000
repaired block-outside 0x10000 00ff000000000000
repaired block-unaligned 0x10000 0000000000020200
repaired block-is-data 0x10000 0000000000050000
repaired block-zero 0x20000 "$(printf '0%.0s' {1..128})"
repaired table-outside 48 0000000100000000
repaired table-unaligned 48 0000000000010200
repaired table-is-data 48 0000000000050000
repaired no-table 56 00000000
repaired dirty 72 0000000000000001
repaired corrupt 72 0000000000000002
imgtool info d.qcow2 >out
expect_output out "corrupt: false"

# Leaks only.
cp whole.qcow2 d.qcow2
poke d.qcow2 $((0x20000 + 2 * 6)) 0002
poke d.qcow2 $((0x20000 + 2 * 30)) 0001
truncate -s 4M d.qcow2
cp d.qcow2 e.qcow2
expect_status 0 imgtool check -r leaks d.qcow2
expect_output out "    2 leaked clusters" "    0 corruptions"
clean d.qcow2
expect_status 0 imgtool check -r leaks --output=json e.qcow2
python3 -c 'import json; r = json.load(open("out"))
assert r["leaks-fixed"] == 2 and r["check-errors"] == 0 and "leaks" not in r, r'
# A flag that agrees with the references is no corruption while the count is too high; one that
# agrees with neither is.
cp whole.qcow2 d.qcow2
poke d.qcow2 $((0x20000 + 2 * 6)) 0002
expect_status 3 imgtool check d.qcow2
poke d.qcow2 0x40008 0000000000060000
expect_status 3 imgtool check d.qcow2
expect_status 0 imgtool check -r leaks d.qcow2
clean d.qcow2
# What -r leaks must not touch.
cp whole.qcow2 d.qcow2
poke d.qcow2 0x10000 0000000000000000
cp d.qcow2 e.qcow2
expect_status 1 imgtool check -r leaks d.qcow2
expect_output err "need to rebuild refcount structures" "Check failed: "
same_bytes d.qcow2 e.qcow2
cp whole.qcow2 d.qcow2
poke d.qcow2 0x30000 8000000000040200
cp d.qcow2 e.qcow2
expect_status 2 imgtool check -r leaks d.qcow2
expect_output err "Leaks are not repaired"
same_bytes d.qcow2 e.qcow2
# A wrong entry stays as it is; the leak beside it goes.
for entry in 8000000000050200 8010000000000000 9000000000050000; do
	cp whole.qcow2 d.qcow2
	poke d.qcow2 0x40000 $entry
	poke d.qcow2 $((0x20000 + 2 * 30)) 0001
	truncate -s 4M d.qcow2
	cp d.qcow2 e.qcow2
	expect_status 2 imgtool check -r leaks d.qcow2
	expect_output err "Repairing cluster 30 refcount=1 reference=0"
	cmp -i $((0x30000)) d.qcow2 e.qcow2 || fail "-r leaks changed more than counts"
done

# An entry that nobody could read becomes zeroes, and that is said; its neighbours stay.
for entry in 8000000000050200 8010000000000000 8000000000030000; do
	cp whole.qcow2 d.qcow2
	poke d.qcow2 0x40000 $entry
	expect_status 0 imgtool check -r all d.qcow2
	expect_output err "could never be read; it becomes zeroes"
	clean d.qcow2
	imgtool convert d.qcow2 d.raw
	cmp -i 65536 d.raw whole.raw
	cmp -n 65536 d.raw /dev/zero
done
# An L2 table that is the data of another cluster is copied, not changed.
qemu-img create -q -f qcow2 d.qcow2 1G
qemu-io -c 'write -q -P 1 0 1M' d.qcow2
poke d.qcow2 0x30008 8000000000060000
expect_status 0 imgtool check -r all d.qcow2
expect_output err "gets a place of its own"
clean d.qcow2
imgtool convert d.qcow2 d.raw
cmp -n 67108864 d.raw whole.raw

# A fixed schema.
expect_status 0 imgtool check --output=json --all-fields whole.qcow2
python3 -c 'import json; r = json.load(open("out"))
assert set(r) == set("""filename format check-errors image-end-offset corruptions leaks corruptions-fixed
	leaks-fixed total-clusters allocated-clusters fragmented-clusters compressed-clusters""".split()), r'

expect_status 1 imgtool check -r some whole.qcow2
expect_output err "Unknown option value for -r (expecting 'leaks' or 'all'): some"
expect_status 1 imgtool check -U -r all whole.qcow2
expect_output err "force-share=on can only be used with read-only images"
truncate -s 1M a.raw
expect_status 63 imgtool check -r all -f raw a.raw
