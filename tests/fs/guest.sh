#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# What a guest would have: an ext4 file system in a GPT partition, in a qcow2
# overlay on a compressed base. Seen through the mount it is clean to e2fsck,
# and debugfs and a loop mount give the files that went in.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_fuse
requires_qemu
requires_program mke2fs e2fsck debugfs sgdisk python3

# The files: many small ones, deep, sparse, linked, of odd sizes.
mkdir -p tree/deep/er/and/deeper tree/many
cp -r "$IMGFS_SRCDIR/image" "$IMGFS_SRCDIR/io" tree/
for i in $(seq 300); do echo "file $i" >"tree/many/$i"; done
random_data 1 5000001 >tree/noise
random_data 2 70000 | dd of=tree/deep/er/sparse bs=64k seek=100 status=none
ln tree/noise tree/hard
ln -s ../noise tree/deep/soft
echo "a name" >"tree/deep/with space and ümlaut"

# First state: the base, compressed. Second: a file more, in the overlay only.
mke2fs -q -t ext4 -d tree -E root_owner=0:0 part.raw 40M
truncate -s 48M first.raw
sgdisk -a 2048 -n 1:2048:+40M -t 1:8300 -c 1:guest first.raw >/dev/null
dd if=part.raw of=first.raw bs=1M seek=1 conv=notrunc status=none
qemu-img convert -c -O qcow2 first.raw base.qcow2
cp first.raw second.raw
random_data 3 900000 >tree/later
debugfs -w -R "write tree/later later" "second.raw?offset=1048576" >debugfs.log 2>&1
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 disk.qcow2
python3 - <<'EOP'
import subprocess
C = 65536
with open("first.raw", "rb") as a, open("second.raw", "rb") as b:
    one, two = a.read(), b.read()
words = []
for at in range(0, len(one), C):
    if one[at:at + C] != two[at:at + C]:
        name = f"piece{at}"
        with open(name, "wb") as f:
            f.write(two[at:at + C])
        words += ["-c", f"write -q -s {name} {at} {C}"]
assert words
subprocess.run(["qemu-io", "-f", "qcow2", *words, "disk.qcow2"], check=True)
EOP
rm -f piece*

mount_imgfs disk.qcow2 mnt
same_bytes second.raw mnt/disk.raw
[ "$(ls mnt/partitions)" = 1.raw ] || fail "partitions: $(ls mnt/partitions)"
[ "$(stat -c %s mnt/partitions/1.raw)" -eq $((40 << 20)) ] || fail "size of 1.raw"
same_bytes first.raw "$(echo mnt/layers/1-*)"

e2fsck -fn mnt/partitions/1.raw >e2fsck.log 2>&1 || { cat e2fsck.log; fail "e2fsck: status $?"; }
debugfs -R "cat /later" mnt/partitions/1.raw 2>/dev/null >later
same_bytes tree/later later
mkdir dumped
debugfs -R "rdump /image /many /deep dumped" mnt/partitions/1.raw >/dev/null 2>&1
diff -r tree/image dumped/image
diff -r tree/many dumped/many
debugfs -R "cat /noise" "mnt/disk.raw?offset=1048576" 2>/dev/null | cmp - tree/noise

if [ "$(id -u)" -eq 0 ] && losetup -f >/dev/null 2>&1; then
	mkdir inside
	cleanup_add umount inside
	mount -o ro,loop,noload mnt/partitions/1.raw inside
	diff -r --no-dereference --exclude=lost+found tree inside
	cmp tree/deep/er/sparse inside/deep/er/sparse
	umount inside
else
	echo "no loop mount: not root, or no loop device"
fi
unmount mnt
# The image was only read.
qemu-img check -q disk.qcow2
