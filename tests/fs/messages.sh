#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# What is said to a word of -o that is nearly right, and of an image that is in doubt: one sentence
# that helps, and where it is refused no mount and no byte written.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_fuse
requires_qemu

qemu-img create -q -f qcow2 d.qcow2 8M
mkdir m
cleanup_add unmount_now "$SCRATCH/m"
sum=$(sha256sum <d.qcow2)

# refused STATUS WORDS OPTIONS [IMAGE]
refused() {
	expect_status "$1" imgfs -o "$3" "${4:-d.qcow2}" m
	one_sentence err imgfs "$2"
	mountpoint -q m && fail "-o $3: mounted"
	[ "$(sha256sum <d.qcow2)" = "$sum" ] || fail "-o $3: the image has changed"
}
refused 1 "-o overlay= needs a value" overlay
refused 1 "-o discard= needs a value, one of unmap, ignore" rw,discard
refused 1 "-o detect_zeroes=yes: not one of off, on, unmap" rw,detect_zeroes=yes
refused 1 "-o rw=1: rw takes no value" rw=1
refused 1 "-o scratch=many: not a size" scratch=many
refused 1 "-o nonsense: unknown option" nonsense
ln -s nowhere.qcow2 dangling
refused 32 "a symbolic link to what is not there" overlay=dangling
[ ! -e nowhere.qcow2 ] || fail "an overlay was made behind a symbolic link"
# An image's own options are not overruled.
refused 32 "its read-only option" rw \
	'json:{"driver":"qcow2","file":{"driver":"file","filename":"d.qcow2"},"read-only":true}'

# scratch=0 keeps nothing in memory, and is a scratch mount as well (once it was a read-only one).
mount_imgfs -o scratch=0 d.qcow2 m
dd if=/dev/zero of=m/disk.raw bs=64k count=1 conv=notrunc,fsync status=none
expect_output m/control/status '"mode": "scratch"'
unmount m
[ "$(sha256sum <d.qcow2)" = "$sum" ] || fail "scratch=0: the image has changed"

# status tells both files of an overlay mount.
mount_imgfs -o overlay=o.qcow2 d.qcow2 m
expect_output m/control/status "\"image\": \"$SCRATCH/d.qcow2\"" "\"overlay\": \"$SCRATCH/o.qcow2\""
unmount m

# An image that was not closed properly is told of and left alone, unless it is to be written to.
cp d.qcow2 dirty.qcow2
poke dirty.qcow2 79 01
before=$(sha256sum <dirty.qcow2)
for mode in ro scratch overlay=od.qcow2; do
	imgfs -o $mode dirty.qcow2 "$PWD/m" 2>err
	one_sentence err imgfs "was not closed properly"
	cat m/disk.raw >/dev/null
	unmount m
	[ "$(sha256sum <dirty.qcow2)" = "$before" ] || fail "-o $mode repaired an image"
done
imgfs -o rw dirty.qcow2 "$PWD/m" 2>err
one_sentence err imgfs "its refcounts were repaired"
unmount m
qemu-img check -q dirty.qcow2
cp d.qcow2 corrupt.qcow2
poke corrupt.qcow2 79 02
imgfs corrupt.qcow2 "$PWD/m" 2>err
one_sentence err imgfs "is marked as corrupt"
unmount m
refused 32 "Image is corrupt" rw corrupt.qcow2

# Who has an image in use is named, as is the process by which to find it.
mount_imgfs -o rw d.qcow2 m
pid=$(imgfs_pids "$SCRATCH/m")
mkdir m2
expect_status 32 imgfs -o overlay=o2.qcow2 d.qcow2 m2
one_sentence err imgfs "In use by imgfs -o rw d.qcow2 $SCRATCH/m (process $pid): Could not open 'd.qcow2'"
[ ! -e o2.qcow2 ] || fail "an overlay was made of an image that is in use"
# The search does not wait for a mount that answers nobody.
sleep 60 <m/info.json &
reader=$!
wait_until_waits $reader sleep
cleanup_add kill -CONT "$pid"
kill -STOP "$pid"
expect_status 32 timeout 20 imgfs -o overlay=o2.qcow2 d.qcow2 m2
one_sentence err imgfs "(process $pid)"
kill -CONT "$pid"
kill $reader
unmount m
qemu-img create -q -f qcow2 -b d.qcow2 -F qcow2 top.qcow2
mkfifo say
qemu-io top.qcow2 <say >/dev/null &
qemu=$!
exec 6>say
wait_for_lock top.qcow2
expect_status 32 imgfs -o rw d.qcow2 m
one_sentence err imgfs "In use by qemu-io top.qcow2 (process $qemu): Could not open 'd.qcow2'"
expect_status 32 imgfs top.qcow2 m
one_sentence err imgfs "(process $qemu): Could not open 'top.qcow2'"
exec 6>&-
wait $qemu
