#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Nowhere to write to: behind the end of a partition, and on a host that is full. The writer is told,
# the log once, the mount goes on, and the image is whole.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_fuse
requires_qemu
requires_root
requires_unshare
requires_program sfdisk

if [ "${1-}" != inside ]; then
	unshare -m "$0" inside
	exit
fi

truncate -s 64M g.raw
sfdisk -q g.raw <<'EOF'
label: gpt
start=2048, size=32768
EOF
qemu-img convert -f raw -O qcow2 g.raw g.qcow2
mount_imgfs -o rw g.qcow2 g
part=g/partitions/1.raw
# One who writes on and on comes to an end, and the partition has its size again.
expect_status 1 timeout 20 dd if=/dev/zero of=$part bs=1M conv=notrunc
expect_output err "File too large"
for ((i = 0; i < 40; i++)); do
	[ "$(stat -c %s $part)" -ne $((16 << 20)) ] || break
	sleep 0.1
done
[ "$(stat -c %s $part)" -eq $((16 << 20)) ] || fail "size of the partition: $(stat -c %s $part)"
expect_status 1 truncate -s +4K $part
expect_output err "Operation not permitted"
expect_status 1 fallocate -l 17M $part
expect_output err "File too large"
# Nobody has asked for the error by fsync yet, so the next one who does is told.
sync $part 2>/dev/null || true
random_data p 65536 | dd of=$part bs=64k conv=notrunc,fsync status=none
unmount g
qemu-img check -q g.qcow2

# full_host NAME: the writer is told, what was durable stays, and with room again all goes on.
full_host() {
	local told=0 i
	# What is removed later.
	head -c 6M /dev/urandom >small/ballast
	qemu-img create -q -f qcow2 -o cluster_size=4k small/d.qcow2 64M
	imgfs -f -o rw small/d.qcow2 g 2>log &
	pid=$!
	cleanup_add unmount_now "$SCRATCH/g"
	for ((i = 0; i < 100; i++)); do
		[ -e g/disk.raw ] && break
		sleep 0.05
	done
	random_data first 1048576 >first
	dd if=first of=g/disk.raw conv=notrunc,fsync status=none
	mkdir g/snapshots/early
	python3 - g/disk.raw <<'EOF'
import errno, os, random, sys
fd, other = os.open(sys.argv[1], os.O_RDWR), os.open(sys.argv[1], os.O_RDWR)
told = []
data = random.Random(2).randbytes(1 << 20)
for mib in range(1, 40):
    try:
        os.pwrite(fd, data, mib << 20)
    except OSError as e:
        told.append(e.errno)
        break
for do, file in ((os.fsync, fd), (os.fsync, other), (os.close, fd), (os.close, other)):
    try:
        do(file)
    except OSError as e:
        told.append(e.errno)
assert len(told) >= 2 and all(e in (errno.ENOSPC, errno.EIO) for e in told), told
assert errno.ENOSPC in told, told
EOF
	cmp -n 1048576 first g/disk.raw || fail "$1: what was there before cannot be read"
	cmp -n 1048576 first g/snapshots/early/disk.raw || fail "$1: the snapshot cannot be read"
	[ "$(grep -c "No space left on device" log)" -eq 1 ] || fail "$1: log: $(cat log)"
	expect_output log d.qcow2 offset
	grep -q "No space left on device" g/control/status || fail "$1: control/status: $(cat g/control/status)"
	# Commands are told too, or have still found room. Each needs some: at last there is none.
	for ((i = 0; i < 200 && told == 0; i++)); do
		mkdir g/snapshots/full-$i 2>err || told=1
	done
	[ $told -eq 1 ] || fail "$1: 200 snapshots on a full host"
	expect_output err "No space left on device"
	# With room again it is written to again.
	rm small/ballast
	random_data second 3000000 >second
	dd if=second of=g/disk.raw bs=1M seek=20 conv=notrunc,fsync status=none
	mkdir g/snapshots/late
	rmdir g/snapshots/early
	fusermount3 -u g
	wait $pid || fail "$1: status $? after a full host: $(cat log)"
	qemu-img check small/d.qcow2 >check || [ $? -eq 3 ] || fail "$1: check: $(cat check)"
	for i in 0 1; do
		[ $i = 0 ] || set -- "$1" -l late
		qemu-img convert "${@:2}" -O raw small/d.qcow2 got
		cmp -n 1048576 first got
		cmp -n 3000000 -i 0:$((20 << 20)) second got
	done
	# The last snapshot is deleted without any room, by which there is some.
	for i in $(imgtool snapshot -l --output=json small/d.qcow2 | sed -n 's/.*"name": "\(full.*\)".*/\1/p'); do
		imgtool snapshot -d "$i" small/d.qcow2
	done
	cat /dev/zero >small/ballast 2>/dev/null || true
	imgtool snapshot -d late small/d.qcow2 || fail "$1: deleting on a full host"
	qemu-img check -q small/d.qcow2 || fail "$1: check after deleting on a full host"
}

mkdir small
mount -t tmpfs -o size=12M none small
full_host tmpfs
umount small
if losetup -f >/dev/null 2>&1 && [ -n "$(type -P mkfs.ext4)" ]; then
	truncate -s 14M host
	mkfs.ext4 -q -O ^has_journal -m 0 host
	mount -o loop host small
	full_host ext4
	umount small
fi
