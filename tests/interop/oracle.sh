#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Images of the Python oracle, made from the specification with features that
# qemu-img cannot make: imgtool and the mount show what the oracle says, check
# agrees that they are sound, and map tells holes from data truthfully.
#
# usage: oracle.sh [SEED...]
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_program python3

[ $# -gt 0 ] || set -- $(seq 0 25)
mounting=no
if [ -w /dev/fuse ] && type -P fusermount3 >/dev/null; then mounting=yes; fi
bad=0
wrong() {
	echo "seed $seed: $*: $(python3 -c 'import json; print(*json.load(open("manifest.json"))["features"], sep=", ")')" >&2
	bad=$((bad + 1))
}

for seed in "$@"; do
	oracle qcow2_random "$seed" "$SCRATCH/s$seed"
	cd "$SCRATCH/s$seed"
	imgtool convert -f qcow2 -O raw image.qcow2 out.raw || wrong "convert: status $?"
	cmp out.raw flat.raw || wrong "convert differs"
	imgtool check -f qcow2 image.qcow2 >check.out 2>&1 || {
		# An image marked corrupt whose tables are sound is still worth a warning.
		cat check.out
		wrong "check: status $?"
	}
	imgtool compare -f qcow2 -F raw image.qcow2 flat.raw >compare.out || wrong "compare: status $?"
	imgtool map --output=json -f qcow2 image.qcow2 >map.json || wrong "map: status $?"
	oracle map_check map.json flat.raw || wrong "map lies"
	for flat in snapshot-*.raw; do
		[ -e "$flat" ] || continue
		id=${flat#snapshot-} id=${id%.raw}
		imgtool convert -f qcow2 -l "snapshot.id=$id" -O raw image.qcow2 out.raw ||
			wrong "convert of snapshot $id: status $?"
		cmp out.raw "$flat" || wrong "convert of snapshot $id differs"
	done
	if [ $mounting = yes ]; then
		mount_imgfs -o ro,format=qcow2 image.qcow2 mnt
		cmp mnt/disk.raw flat.raw || wrong "the mount's disk.raw differs"
		oracle holes_check mnt/disk.raw || wrong "holes of the mount's disk.raw hide data"
		python3 -c 'import json
for s in json.load(open("manifest.json"))["snapshots"].values(): print(s["flat"], s["name"])' |
			while read -r flat name; do
				cmp "mnt/snapshots/$name/disk.raw" "$flat" || exit 1
			done || wrong "a snapshot in the mount differs"
		unmount mnt
	fi
	cd "$SCRATCH"
	rm -rf "s$seed"
done
echo "$# seeds, $bad wrong, mounts: $mounting"
[ $bad -eq 0 ]
