#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Which words make a mount writable, and what is refused. mount(8) says rw wherever nobody said ro:
# an image that is mounted from there without the word writable must not get a byte.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_fuse
requires_root
requires_qemu
requires_program mount.fuse3 pgrep
requires_unshare

qemu-img create -q -f qcow2 d.qcow2 16M
qemu-io -c 'write -P 3 0 1M' d.qcow2 >/dev/null
sum=$(sha256sum <d.qcow2)
unchanged() { [ "$(sha256sum <d.qcow2)" = "$sum" ] || fail "$*: the image has changed"; }
mkdir m
cleanup_add unmount_now "$SCRATCH/m"

# mounted MODE COMMAND...: what the mount says of itself.
mounted() {
	local mode=$1 flag=rw
	shift
	"$@" 2>err || fail "$*: $(cat err)"
	[ "$mode" != ro ] || flag=ro
	grep -q " $SCRATCH/m fuse.imgfs $flag," /proc/mounts || fail "$*: $(grep imgfs /proc/mounts)"
	expect_output m/control/status "\"mode\": \"$mode\""
	unmount m
}
mounted ro imgfs d.qcow2 "$SCRATCH/m"
mounted ro imgfs -o rw,ro d.qcow2 "$SCRATCH/m"
mounted ro imgfs -o ro,sync,cache=none d.qcow2 "$SCRATCH/m"
unchanged "ro"
mounted overlay imgfs -o rw,overlay=o.qcow2 d.qcow2 "$SCRATCH/m"
mounted scratch imgfs -o rw,scratch=1M d.qcow2 "$SCRATCH/m"
mounted scratch imgfs -o scratch,discard=ignore,detect_zeroes=on,cache=unsafe d.qcow2 "$SCRATCH/m"
unchanged "overlay and scratch"
cp d.qcow2 rw.qcow2
mounted rw imgfs -o ro,rw,discard=unmap,detect_zeroes=unmap rw.qcow2 "$SCRATCH/m"
mounted rw imgfs -o writable,sync,cache=none rw.qcow2 "$SCRATCH/m"
mounted rw imgfs -o rw,cache=writethrough rw.qcow2 "$SCRATCH/m"
imgtool check rw.qcow2 >/dev/null

# ---- mount(8)

ln -s "$(type -P imgfs)" mount.imgfs
ln -s "$(type -P imgfs)" mount.fuse.imgfs
for name in mount.imgfs mount.fuse.imgfs; do
	mounted ro "./$name" "$SCRATCH/d.qcow2" "$SCRATCH/m" -o rw,noatime
	one_sentence err imgfs "-o writable"
	mounted ro "./$name" "$SCRATCH/d.qcow2" "$SCRATCH/m" -o ro
	[ ! -s err ] || fail "ro: $(cat err)"
	mounted ro "./$name" "$SCRATCH/d.qcow2" "$SCRATCH/m" -o ro,writable
	mounted rw "./$name" "$SCRATCH/rw.qcow2" "$SCRATCH/m" -o rw,writable
	mounted scratch "./$name" "$SCRATCH/d.qcow2" "$SCRATCH/m" -o rw,scratch
	expect_status 1 "./$name" "$SCRATCH/d.qcow2" "$SCRATCH/m" -o rw,remount
	one_sentence err imgfs "-o remount"
done
# Through mount.fuse3, which has its own way to say rw; and by both from fstab.
mkdir bin
cp "$(type -P imgfs)" bin/
cat >fstab <<-END
	$SCRATCH/d.qcow2 $SCRATCH/m fuse.imgfs defaults 0 0
END
cat >fstab.rw <<-END
	$SCRATCH/rw.qcow2 $SCRATCH/m fuse.imgfs writable,nosuid 0 0
END
cat >fstab.overlay <<-END
	$SCRATCH/d.qcow2 $SCRATCH/m fuse.imgfs overlay=$SCRATCH/o.qcow2,nofail 0 0
END
cat >inside <<'SH'
set -eu
check() {
	grep -q " $PWD/m fuse.imgfs $1," /proc/mounts || { grep imgfs /proc/mounts; exit 1; }
	grep -q "\"mode\": \"$2\"" m/control/status
	pid=$(pgrep -f "imgfs .*$PWD/m " | head -n 1)
	umount m
	while grep -q '^State:[[:space:]]*[RSDTtI]' "/proc/$pid/status" 2>/dev/null; do sleep 0.05; done
}
both_ways() {
	mount -t fuse.imgfs "$PWD/d.qcow2" "$PWD/m"
	check ro ro
	mount -t fuse.imgfs -o rw,nosuid "$PWD/d.qcow2" "$PWD/m"
	check ro ro
	mount -T fstab "$PWD/m"
	check ro ro
	mount -T fstab.rw "$PWD/m"
	check rw rw
	mount -T fstab.rw -o ro "$PWD/m"
	check ro ro
	mount -T fstab.overlay "$PWD/m"
	! mount -t fuse.imgfs -o remount,ro "$PWD/d.qcow2" "$PWD/m" 2>err
	grep -q -e "-o remount: not supported" err
	check rw overlay
}
mount --bind bin /usr/local/bin
both_ways
# The same with helpers of our own; /sbin may be all of /usr/sbin.
mkdir upper work
mount -t tmpfs none work
mkdir work/u work/w
mount -t overlay -o "lowerdir=/usr/sbin,upperdir=work/u,workdir=work/w" none /usr/sbin 2>/dev/null || exit 77
ln -s /usr/local/bin/imgfs /usr/sbin/mount.fuse.imgfs
[ -e /sbin/mount.fuse.imgfs ] || exit 77
both_ways
SH
status=0
unshare -m bash -x inside 2>trace || status=$?
[ $status -eq 0 ] || [ $status -eq 77 ] || {
	tail -n 20 trace >&2
	fail "mount -t fuse.imgfs: status $status"
}
unchanged "mount(8)"

# ---- refusals

refused() { # STATUS NAME OPTIONS [IMAGE]
	expect_status "$1" imgfs -o "$3" "${4-d.qcow2}" m
	one_sentence err imgfs "$2"
}
refused 1 "exclude each other" overlay=x.qcow2,scratch
refused 1 "exclude each other" ro,overlay=x.qcow2
refused 1 "exclude each other" ro,scratch
refused 1 "exclude each other" writable,scratch
refused 1 "exclude each other" rw,sync,cache=unsafe
refused 1 "exclude each other" rw,discard=ignore,detect_zeroes=unmap
refused 1 "writable mount" discard=unmap
refused 1 "writable mount" detect_zeroes=on
refused 1 "snapshot=" rw,snapshot=s
refused 1 "snapshot=" scratch,snapshot=s
refused 1 "discard=always" rw,discard=always
refused 1 "cache=big" cache=big
refused 1 "scratch=much" scratch=much
refused 1 "remount" remount,ro
unchanged "refusals"

# Somebody else has it.
qemu-io -c 'sleep 20000' d.qcow2 >/dev/null &
holder=$!
cleanup_add kill $holder
wait_for_lock d.qcow2
for options in rw ro scratch; do
	refused 32 d.qcow2 $options
	expect_output err "In use by qemu-io"
done
kill -9 $holder
wait $holder 2>/dev/null || true
imgfs d.qcow2 "$SCRATCH/m"
refused 32 d.qcow2 rw
expect_output err "In use by imgfs"
unmount m
# Nor can it be written to while we do.
mounted_by_us() { imgfs -o "$1" "$2" "$SCRATCH/m"; }
mounted_by_us rw rw.qcow2
qemu-io -c 'write 0 4k' rw.qcow2 >/dev/null 2>&1 && fail "qemu-io writes to what is mounted"
qemu-io -r -c 'read 0 4k' rw.qcow2 >/dev/null 2>&1 && fail "qemu-io reads what is being written"
unmount m
mounted_by_us scratch d.qcow2
qemu-io -r -c 'read 0 4k' d.qcow2 >/dev/null || fail "the image of a scratch mount is not shared"
qemu-io -c 'write 0 4k' d.qcow2 >/dev/null 2>&1 && fail "the image of a scratch mount is written"
unmount m

# Damaged images: the bit that says so forbids writing.
cp d.qcow2 corrupt.qcow2
poke corrupt.qcow2 79 02
refused 32 corrupt.qcow2 rw corrupt.qcow2
expect_output err "corrupt"
mounted ro imgfs corrupt.qcow2 "$SCRATCH/m"

# No permission, and a file system that is read-only.
cat >inside <<'SH'
set -u
mkdir -p ro
mount -t tmpfs none ro
cp d.qcow2 ro/
mount -o remount,ro ro
imgfs -o rw ro/d.qcow2 m 2>err && exit 1
grep -q "^imgfs: .*ro/d.qcow2.*Read-only file system" err || exit 2
[ "$(wc -l <err)" -eq 1 ] || exit 3
imgfs -o overlay=o2.qcow2 ro/d.qcow2 m || exit 4
umount m
imgfs -o overlay=ro/o.qcow2 d.qcow2 m 2>err && exit 5
grep -q "^imgfs: .*ro/o.qcow2.*Read-only file system" err || exit 6
SH
unshare -m bash inside || fail "read-only file system: status $?: $(cat err)"

# ---- what the words do

# Read-only, nothing is written however it is tried, and however it ends.
imgfs --pidfile pid d.qcow2 "$SCRATCH/m"
for flags in "" ,direct; do
	expect_status 1 dd if=/dev/zero of=m/disk.raw bs=4k count=1 conv=notrunc oflag=nonblock$flags
done
! mount -o remount,rw "$SCRATCH/m" 2>/dev/null || expect_status 1 dd if=/dev/zero of=m/disk.raw \
	bs=4k count=1 conv=notrunc
kill -9 "$(cat pid)"
fusermount3 -uz m
unchanged "read-only, SIGKILL"

# What was written with sync is in the image when write(2) returns: nobody flushes before the end.
for options in rw,sync rw,cache=writethrough rw,cache=directsync; do
	cp d.qcow2 sync.qcow2
	imgfs -o "$options" --pidfile pid sync.qcow2 "$SCRATCH/m"
	python3 -c 'import os, signal
fd = os.open("m/disk.raw", os.O_RDWR)
for i in range(4):
    os.pwrite(fd, b"\7" * 5000, i * 3000000 + 100)
os.kill(int(open("pid").read()), signal.SIGKILL)'
	fusermount3 -uz m
	for i in 0 1 2 3; do
		qemu-io -r -c "read -P 7 $((i * 3000000 + 100)) 5000" sync.qcow2 >read || true
		! grep -q "verification failed" read || fail "$options: write $i is lost"
	done
done

# A raw image whose format nobody gave does not become another one.
truncate -s 1M guest.raw
imgfs -o rw guest.raw "$SCRATCH/m"
expect_status 1 dd if=d.qcow2 of=m/disk.raw bs=4k count=1 conv=notrunc,fsync
expect_output err "Operation not permitted"
expect_output m/control/status "taken for qcow2" "-o format=raw"
printf data | dd of=m/disk.raw bs=1 seek=8192 conv=notrunc,fsync status=none
unmount m
[ "$(imgtool info guest.raw | sed -n 's/^file format: //p')" = raw ] || fail "guest.raw is not raw"
[ "$(tail -c +8193 guest.raw | head -c 4)" = data ] || fail "guest.raw was not written"
imgfs -o rw,format=raw guest.raw "$SCRATCH/m"
dd if=d.qcow2 of=m/disk.raw bs=4k count=1 conv=notrunc,fsync status=none
unmount m
cmp -n 4096 d.qcow2 guest.raw || fail "format=raw was not written"
