#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Images of the Python oracle, damaged: after check -r all qemu-img finds nothing wrong, and what
# was readable before, in the disk and in every snapshot, reads the same.
#
# usage: repair.sh [SEED...]
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_program python3
requires_qemu

[ $# -gt 0 ] || set -- $(seq 0 11)
bad=0
wrong() {
	echo "seed $seed ($(cat damage)): $*" >&2
	bad=$((bad + 1))
}
snapshots() {
	imgtool info --output=json -f qcow2 damaged.qcow2 2>/dev/null |
		python3 -c 'import json, sys
for s in json.load(sys.stdin).get("snapshots", []): print(s["id"])' 2>/dev/null || true
}

for seed in "$@"; do
	oracle qcow2_random "$seed" "$SCRATCH/s$seed"
	cd "$SCRATCH/s$seed"
	mv image.qcow2 whole.qcow2
	cp whole.qcow2 damaged.qcow2
	oracle damage damaged.qcow2 "$seed" >damage
	# What can be read does not depend on where the refcounts are.
	cp damaged.qcow2 before.qcow2
	dd if=whole.qcow2 of=before.qcow2 bs=1 skip=48 seek=48 count=12 conv=notrunc status=none
	ids=$(snapshots)
	for id in "" $ids; do
		imgtool convert ${id:+-l snapshot.id=$id} --salvage -f qcow2 -O raw before.qcow2 \
			"before$id.raw" 2>"before$id.log" || : >"before$id.failed"
	done
	imgtool check -r all -f qcow2 damaged.qcow2 >repair.out 2>&1 || wrong "status $?: $(tail -n 3 repair.out)"
	qemu-img check -f qcow2 damaged.qcow2 >check.out 2>&1 || wrong "qemu-img check: $? $(head -n 3 check.out)"
	imgtool check -f qcow2 damaged.qcow2 >check.out 2>&1 || wrong "check: $?"
	for id in "" $ids; do
		[ ! -e "before$id.failed" ] || continue
		imgtool convert ${id:+-l snapshot.id=$id} -f qcow2 -O raw damaged.qcow2 after.raw ||
			wrong "convert $id: $?"
		oracle readable_same "before$id.raw" after.raw "before$id.log" || wrong "content $id"
	done
	cd "$SCRATCH"
	rm -rf "s$seed"
done
echo "$# seeds, $bad wrong"
[ $bad -eq 0 ]
