#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# compare --all: every differing range, and no reading of what both images have in common.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_qemu

# ranges A B: judged by Python on the flat disks, in sectors; "start length" lines.
ranges() {
	local i
	for i in 1 2; do # qemu-img would make a raw file of 1000 bytes 1024 long
		case ${!i} in
		*.raw) cp "${!i}" judge.$i ;;
		*) qemu-img convert -O raw "${!i}" judge.$i ;;
		esac
	done
	python3 - <<-'END'
		a, b = open("judge.1", "rb").read(), open("judge.2", "rb").read()
		total = max(len(a), len(b))
		a, b = a.ljust(total, b"\0"), b.ljust(total, b"\0")
		start = None
		for s in range(0, total + 512, 512):
		    differs = s < total and a[s:s + 512] != b[s:s + 512]
		    if differs and start is None: start = s
		    if not differs and start is not None:
		        print(start, min(s, total) - start); start = None
	END
}
told() { python3 -c 'import json; d = json.load(open("out"))
for r in d["differences"]: print(r["start"], r["length"])
assert d["complete"] and d["identical"] == (not d["differences"])
assert d["differing-bytes"] == sum(r["length"] for r in d["differences"])'; }
# check A B: both outputs and the status.
check() {
	local want=0
	ranges "$1" "$2" >want
	[ ! -s want ] || want=1
	expect_status $want imgtool compare --all --output=json "$1" "$2"
	told | diff -u want - >&2 || fail "compare --all --output=json $1 $2"
	expect_status $want imgtool compare --all "$1" "$2"
	sed -n 's/^\(0x[0-9a-f]*\|0\) *0x/\1 0x/p' out |
		while read -r start len; do echo $((start)) $((len)); done | diff -u want - >&2 ||
		fail "compare --all $1 $2"
	if [ $want -eq 0 ]; then expect_output out "Images are identical."; fi
	expect_status $want imgtool compare -q --all "$1" "$2"
	[ ! -s out ] || fail "-q printed"
}

qemu-img create -q -f qcow2 base.qcow2 16M
random_data 2 4194304 >data
qemu-io -c 'write -s data 0 4M' -c 'write -z 4M 64k' base.qcow2 >/dev/null
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 a.qcow2
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 b.qcow2 20M
check a.qcow2 b.qcow2
qemu-io -c 'write -P 1 0 1' -c 'write -P 2 511 2' -c 'write -P 3 131072 70000' \
	-c 'write -P 4 8M 3' -c 'write -P 0 9M 64k' a.qcow2 >/dev/null
qemu-io -c 'write -P 5 131000 512' -c 'write -P 6 16777215 513' -c 'write -P 7 20971519 1' \
	-c 'write -z 1M 1M' b.qcow2 >/dev/null
check a.qcow2 b.qcow2
check b.qcow2 a.qcow2
check base.qcow2 a.qcow2
qemu-img convert -c -O qcow2 a.qcow2 coded.qcow2
check coded.qcow2 a.qcow2
check coded.qcow2 base.qcow2
truncate -s 1000 one.raw
printf x | dd of=one.raw bs=1 seek=999 conv=notrunc status=none
truncate -s 700 two.raw
check one.raw two.raw

# What the overlays share is not read: damage there is not noticed.
seq 1 400000 >text
qemu-img convert -c -O qcow2 text coded-base.qcow2
qemu-img create -q -f qcow2 -b coded-base.qcow2 -F qcow2 c.qcow2 16M
qemu-img create -q -f qcow2 -b coded-base.qcow2 -F qcow2 d.qcow2 16M
qemu-io -c 'write -P 9 12M 64k' d.qcow2 >/dev/null
poke coded-base.qcow2 0x52000 "$(printf 'ff%.0s' {1..64})"
if imgtool convert coded-base.qcow2 x.raw 2>/dev/null; then fail "the damage did nothing"; fi
expect_status 1 imgtool compare --all c.qcow2 d.qcow2
expect_output out "0xc00000        0x10000"
expect_status 1 imgtool compare c.qcow2 d.qcow2
# Where it has to be read, it is an error, and JSON says that it is not complete.
expect_status 4 imgtool compare --all --output=json c.qcow2 text
python3 -c 'import json; d = json.load(open("out")); assert not d["complete"] and not d["identical"]'
one_sentence err imgtool c.qcow2

expect_status 1 imgtool compare --all -s a.qcow2 b.qcow2
expect_status 1 imgtool compare --output=json a.qcow2 b.qcow2
expect_status 2 imgtool compare --all a.qcow2 nosuch
