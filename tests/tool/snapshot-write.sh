#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# snapshot -c -a -d -r: qemu-img finds nothing wrong after each, and shows the same disks.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_qemu

sound() {
	expect_status 0 qemu-img check s.qcow2
	expect_status 0 imgtool check s.qcow2
}
# shows FILE [SNAPSHOT]: qemu-img and imgtool read the same, namely this.
shows() {
	local p
	for p in qemu-img imgtool; do
		$p convert ${2:+-l "$2"} -O raw s.qcow2 x.raw
		same_bytes x.raw "$1"
	done
}
write() { qemu-io -c "write -q -P $1 $2 $3" s.qcow2; }

# life OPTIONS: of an image with these.
life() {
	rm -f s.qcow2
	qemu-img create -q -f qcow2 -o "$1" s.qcow2 16M
	write 1 0 4M
	qemu-img convert -O raw s.qcow2 1.raw
	imgtool snapshot -c one s.qcow2
	sound
	shows 1.raw one
	write 2 1M 4M
	qemu-img convert -O raw s.qcow2 2.raw
	imgtool snapshot -c two s.qcow2
	sound
	write 3 2M 8M
	qemu-img convert -O raw s.qcow2 3.raw
	shows 1.raw one
	shows 2.raw two
	shows 3.raw
	imgtool snapshot -l s.qcow2 >ours
	qemu-img snapshot -l s.qcow2 | diff - ours
	imgtool snapshot -a one s.qcow2
	sound
	shows 1.raw
	shows 2.raw two
	imgtool snapshot -a 2 s.qcow2
	sound
	shows 2.raw
	imgtool snapshot -r two "a new name" s.qcow2
	sound
	shows 2.raw "a new name"
	imgtool snapshot -d one s.qcow2
	sound
	shows 2.raw
	write 4 0 16M
	shows 2.raw "a new name"
	imgtool snapshot -d 2 s.qcow2
	sound
	[ -z "$(imgtool snapshot -l s.qcow2)" ] || fail "snapshots are left"
}
life compat=1.1
life compat=0.10
life cluster_size=512,refcount_bits=8
life cluster_size=2M,refcount_bits=64
life cluster_size=32k,extended_l2=on

# IDs go on from the greatest; the state of a machine is not ours to make.
for name in x y z; do imgtool snapshot -c $name s.qcow2; done
imgtool snapshot -d y s.qcow2
imgtool snapshot -c z s.qcow2
imgtool info --output=json s.qcow2 >out
python3 -c 'import json
s = json.load(open("out"))["snapshots"]
assert [(t["id"], t["name"], t["vm-state-size"], t["icount"]) for t in s] == [
    ("1", "x", 0, 0), ("3", "z", 0, 0), ("4", "z", 0, 0)], s'

# Own and shared space: what deleting frees, and what not.
qemu-img create -q -f qcow2 s.qcow2 64M
write 1 0 4M
imgtool snapshot -c a s.qcow2
imgtool snapshot -l --output=json s.qcow2 >out
write 1 0 1M
imgtool snapshot -l --output=json s.qcow2 >out2
python3 -c 'import json
a, b = (json.load(open(f))[0] for f in ("out", "out2"))
k = 65536
# its L1 and L2 table, and the 64 clusters that the disk has too
assert (a["own-size"], a["shared-size"], a["disk-size"]) == (2 * k, 64 * k, 64 << 20), a
# its L1 and L2 table and the 16 clusters that were written since
assert (b["own-size"], b["shared-size"]) == (18 * k, 48 * k), b'

# Another size than the disk has now.
qemu-img convert -O raw s.qcow2 1.raw
qemu-img resize -q s.qcow2 1G
write 7 900M 1M
imgtool snapshot -a a s.qcow2
sound
shows 1.raw
[ "$(stat -c %s x.raw)" -eq $((64 << 20)) ] || fail "applied, but not its size"

# Compressed clusters share host clusters: each counts for itself.
qemu-img create -q -f qcow2 s.qcow2 64M
random_data 1 3000000 | sed 's/[^0-9]/0/g' >text
qemu-img convert -c -O qcow2 text s.qcow2
qemu-img convert -O raw s.qcow2 1.raw
imgtool snapshot -c a s.qcow2
sound
write 9 0 1M
imgtool snapshot -a a s.qcow2
sound
shows 1.raw
imgtool snapshot -d a s.qcow2
sound
shows 1.raw

# A count that cannot be raised: nothing has changed.
qemu-img create -q -f qcow2 -o refcount_bits=1 s.qcow2 1M
write 1 0 64k
cp s.qcow2 t.qcow2
expect_status 1 imgtool snapshot -c a s.qcow2
expect_output err "Could not create snapshot 'a': " "refcounts of 1 bits"
sound
imgtool compare -s s.qcow2 t.qcow2 >/dev/null

# What the disk shares with the snapshot already needs no count to be raised, however full it is.
qemu-img create -q -f qcow2 -o refcount_bits=2 s.qcow2 1M
write 1 0 256k
qemu-img convert -O raw s.qcow2 1.raw
imgtool snapshot -c a s.qcow2
imgtool snapshot -c b s.qcow2
expect_status 1 imgtool snapshot -c c s.qcow2
write 2 64k 64k
imgtool snapshot -a a s.qcow2
sound
shows 1.raw
imgtool snapshot -a b s.qcow2
sound
shows 1.raw

# Refusals in qemu-img's words.
expect_status 1 imgtool snapshot -d nosuch s.qcow2
expect_output err "Could not delete snapshot 'nosuch': snapshot not found"
expect_status 1 imgtool snapshot -a nosuch s.qcow2
expect_output err "Could not apply snapshot 'nosuch': Failed to load snapshot: No such file or directory"
expect_status 1 imgtool snapshot -c a -d b s.qcow2
expect_output err "Cannot mix '-l', '-a', '-c', '-d'"
expect_status 1 imgtool snapshot -U -c a s.qcow2
expect_output err "force-share=on can only be used with read-only images"
truncate -s 1M a.raw
expect_status 1 imgtool snapshot -f raw -c a a.raw
expect_output err "Could not create snapshot 'a': "
expect_status 1 imgtool snapshot -f raw -a a a.raw
expect_output err "Could not apply snapshot 'a': Block driver does not support snapshots"
qemu-img create -q -f qcow2 -o data_file=d.raw d.qcow2 1M
expect_status 1 imgtool snapshot -c a d.qcow2
expect_output err "data file"
expect_status 1 imgtool snapshot -c "$(printf 'n%.0s' {1..300})" s.qcow2
