#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# -o overlay=: made complete or not at all, named so that others find its backing file, continued
# only above the image that it was made for.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_fuse
requires_qemu

mkdir m images images/below other
qemu-img create -q -f qcow2 images/d.qcow2 16M
qemu-io -c 'write -P 3 0 1M' images/d.qcow2 >/dev/null
qemu-img create -q -f raw images/r.raw 3M
sum=$(sha256sum <images/d.qcow2)
cleanup_add unmount_now "$SCRATCH/m"

# made OVERLAY NAME IMAGE FORMAT
made() {
	imgfs -o "overlay=$1" "$3" "$SCRATCH/m"
	[ "$(ls m/layers | wc -l)" -eq 2 ] || fail "layers of $1: $(ls m/layers)"
	[ "$(stat -c %s m/disk.raw)" -eq "$(qemu-img info --output=json -U "$3" |
		sed -n 's/.*"virtual-size": \([0-9]*\).*/\1/p' | head -n 1)" ] || fail "$1: size"
	unmount m
	qemu-img info --output=json "$1" >info
	expect_output info '"format": "qcow2"' "\"backing-filename\": \"$2\"" \
		"\"backing-filename-format\": \"$4\""
	qemu-img check -q "$1" || fail "qemu-img check $1"
	qemu-img compare -q -f qcow2 -F "$4" "$1" "$3" || fail "$1 reads otherwise than $3"
}
made images/o1.qcow2 d.qcow2 images/d.qcow2 qcow2
made other/o2.qcow2 "$SCRATCH/images/d.qcow2" images/d.qcow2 qcow2
made o3.qcow2 images/d.qcow2 images/d.qcow2 qcow2
made images/below/o4.qcow2 "$SCRATCH/images/d.qcow2" images/d.qcow2 qcow2
made o5.qcow2 images/r.raw images/r.raw raw
(cd images && imgfs -o overlay=../other/o6.qcow2 d.qcow2 "$SCRATCH/m")
unmount m
imgtool compare -q --allow-references=any other/o6.qcow2 images/d.qcow2
# Names that would mean something else.
cp images/d.qcow2 "images/a:b,c.qcow2"
made "images/o7.qcow2" "./a:b,c.qcow2" "images/a:b,c.qcow2" qcow2 2>/dev/null || true

# What is there is continued.
imgfs -o overlay=images/o1.qcow2 images/d.qcow2 "$SCRATCH/m"
unmount m
ln -s ../images/d.qcow2 other/link.qcow2
imgfs -o overlay=images/o1.qcow2 other/link.qcow2 "$SCRATCH/m"
unmount m
[ "$(sha256sum <images/d.qcow2)" = "$sum" ] || fail "the image has changed"

# What is not its overlay is not touched, and both are named.
refused() { # OVERLAY IMAGE WHY
	local before
	before=$(sha256sum <"$1")
	expect_status 32 imgfs -o "overlay=$1" "$2" m
	one_sentence err imgfs "$1"
	expect_output err "$2" "$3"
	[ "$(sha256sum <"$1")" = "$before" ] || fail "$1 has changed"
}
qemu-img create -q -f qcow2 alone.qcow2 16M
cp images/d.qcow2 images/twin.qcow2
refused images/o1.qcow2 images/twin.qcow2 "its backing file is 'images/d.qcow2'"
refused alone.qcow2 images/d.qcow2 "no backing file"
refused images/d.qcow2 images/d.qcow2 "the image itself"
refused images/r.raw images/d.qcow2 "not in qcow2 format"
# The base of the image is no overlay of it, whatever would be done to it.
refused images/d.qcow2 images/o1.qcow2 "no backing file"
expect_status 32 imgfs -o format=raw,overlay=images/o1.qcow2 images/d.qcow2 m
expect_output err "images/o1.qcow2" "images/d.qcow2" "format is qcow2, not raw"
mv images/d.qcow2 images/gone.qcow2
cp images/twin.qcow2 images/d.qcow2
imgfs -o overlay=images/o1.qcow2 images/d.qcow2 "$SCRATCH/m"
unmount m

# A mount that fails leaves none behind, and no half of one.
expect_status 32 imgfs -o overlay=new.qcow2 images/d.qcow2 nowhere
expect_status 32 imgfs -o overlay=new.qcow2 missing.qcow2 m
expect_status 32 imgfs -o overlay=new.qcow2,format=nosuch images/d.qcow2 m
expect_status 32 imgfs -o overlay=missing/new.qcow2 images/d.qcow2 m
one_sentence err imgfs missing/new.qcow2
expect_status 32 imgfs -o overlay=m images/d.qcow2 m
# /dev/fuse that cannot be had is noticed after the overlay was made.
if [ "$(id -u)" -eq 0 ] && unshare -m true 2>/dev/null; then
	unshare -m bash -c 'mount --bind /dev/null /dev/fuse && imgfs -o overlay=new.qcow2 images/d.qcow2 m' \
		2>err && fail "mounted without /dev/fuse"
	grep -q "^imgfs: " err || fail "no sentence: $(cat err)"
fi
[ -z "$(find . -name 'new.qcow2*')" ] || fail "left behind: $(find . -name 'new.qcow2*')"
# One that was there before stays.
if [ "$(id -u)" -eq 0 ] && unshare -m true 2>/dev/null; then
	unshare -m bash -c 'mount --bind /dev/null /dev/fuse && imgfs -o overlay=o3.qcow2 images/d.qcow2 m' \
		2>err && fail "mounted without /dev/fuse"
	[ -e o3.qcow2 ] || fail "o3.qcow2 is gone"
fi

# Locks: the overlay is ours alone, the image may be read by others, and written by none.
imgfs -o overlay=images/o1.qcow2 images/d.qcow2 "$SCRATCH/m"
qemu-io -r -c 'read 0 4k' images/d.qcow2 >/dev/null || fail "the image is not shared"
qemu-io -c 'write 0 4k' images/d.qcow2 >/dev/null 2>&1 && fail "the image can be written to"
qemu-io -r -c 'read 0 4k' images/o1.qcow2 >/dev/null 2>&1 && fail "the overlay is shared"
mkdir m2
expect_status 32 imgfs -o overlay=images/o1.qcow2 images/d.qcow2 m2
one_sentence err imgfs images/o1.qcow2
expect_output err "In use by "
# Two overlays of one image do not disturb each other.
mount_imgfs -o overlay=o3.qcow2 images/d.qcow2 m2
unmount m2
unmount m

# Bytes of the image come into the overlay: whoever may not read the one may not read the other.
cp images/d.qcow2 secret.qcow2
chmod 600 secret.qcow2
imgfs -o overlay=secret.overlay secret.qcow2 "$SCRATCH/m"
unmount m
[ "$(stat -c %a secret.overlay)" = 600 ] || fail "secret.overlay has mode $(stat -c %a secret.overlay)"

# On a file system that knows neither files without a name nor links.
if [ "$(id -u)" -eq 0 ] && [ -n "$(type -P mkfs.vfat)" ] && losetup -f >/dev/null 2>&1; then
	truncate -s 8M vfat.img
	mkfs.vfat vfat.img >/dev/null
	mkdir vfat
	if mount -o loop vfat.img vfat 2>/dev/null; then
		cleanup_add umount -l vfat
		made vfat/o.qcow2 "$SCRATCH/images/d.qcow2" images/d.qcow2 qcow2
		[ "$(ls vfat)" = o.qcow2 ] || fail "left behind: $(ls vfat)"
		umount vfat
	fi
fi

# ---- writing

cp images/gone.qcow2 w.qcow2
sum=$(sha256sum <w.qcow2)
qemu-img convert -O raw w.qcow2 before
cat >writer.py <<'EOP'
"""Writes numbered blocks at random places; a line for each that was fsynced."""
import os, random, sys
fd = os.open(sys.argv[1], os.O_RDWR)
r = random.Random(sys.argv[2])
for i in range(1, 100000):
    offset = r.randrange(2048) * 4096
    os.pwrite(fd, i.to_bytes(8, "little") * 512, offset)
    if i % 5 == 0:
        os.fsync(fd)
        print(i, flush=True)
EOP
cat >judge.py <<'EOP'
"""What was fsynced is there, or what was written to that place later."""
import random, sys
disk = open(sys.argv[1], "rb").read()
before = open(sys.argv[2], "rb").read()
r = random.Random(sys.argv[3])
synced = int(sys.argv[4])
places = {}
for i in range(1, synced + 200):
    places.setdefault(r.randrange(2048) * 4096, []).append(i)
for offset, numbers in places.items():
    found = disk[offset:offset + 4096]
    must = [i for i in numbers if i <= synced]
    may = [i for i in numbers if not must or i >= must[-1]]
    allowed = [i.to_bytes(8, "little") * 512 for i in may] + ([] if must else [before[offset:offset + 4096]])
    if found not in allowed:
        sys.exit("offset %d: not one of %s" % (offset, may))
EOP
cp before now
for seed in 1 2 3; do
	imgfs -o overlay=w.overlay --pidfile pid w.qcow2 "$SCRATCH/m"
	python3 writer.py m/disk.raw $seed >synced 2>/dev/null &
	writer=$!
	sleep 0.$((seed * 3))
	kill_imgfs "$(cat pid)" w.overlay
	wait $writer && fail "the writer did not notice"
	fusermount3 -uz m
	[ "$(sha256sum <w.qcow2)" = "$sum" ] || fail "SIGKILL: the image has changed"
	qemu-img check w.overlay >check 2>&1 || grep -q "^[0-9]* leaked clusters" check ||
		fail "SIGKILL: $(cat check)"
	! grep -q "^[1-9][0-9]* errors were found" check || fail "SIGKILL: $(cat check)"
	qemu-img convert -O raw w.overlay after
	python3 judge.py after now $seed "$(tail -n 1 synced | grep . || echo 0)" || fail "SIGKILL $seed"
	mv after now
done
imgfs -o overlay=w.overlay w.qcow2 "$SCRATCH/m"
same_bytes now m/disk.raw
same_bytes now m/layers/0-*
same_bytes before m/layers/1-*
dd if=/dev/zero of=m/disk.raw bs=1M count=1 conv=notrunc,fsync status=none
dd if=/dev/zero of=now bs=1M count=1 conv=notrunc status=none
unmount m
[ "$(sha256sum <w.qcow2)" = "$sum" ] || fail "the image has changed"
imgtool check -q -r leaks w.overlay >check
# It is an overlay as any other.
imgtool commit -q w.overlay
qemu-img compare -q -f raw -F qcow2 now w.qcow2 || fail "after commit"
