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

mkdir small
mount -t tmpfs -o size=8M none small
qemu-img create -q -f qcow2 small/d.qcow2 64M
imgfs -f -o rw small/d.qcow2 g 2>log &
pid=$!
cleanup_add unmount_now "$SCRATCH/g"
for ((i = 0; i < 100; i++)); do
	[ -e g/disk.raw ] && break
	sleep 0.05
done
random_data first 1048576 >first
dd if=first of=g/disk.raw conv=notrunc,fsync status=none
python3 - g/disk.raw <<'EOF'
import errno, os, random, sys
fd = os.open(sys.argv[1], os.O_RDWR)
told = []
data = random.Random(2).randbytes(1 << 20)
for mib in range(1, 40):
    try:
        os.pwrite(fd, data, mib << 20)
    except OSError as e:
        told.append(e.errno)
        break
for do in (os.fsync, os.close):
    try:
        do(fd)
    except OSError as e:
        told.append(e.errno)
assert told and all(e in (errno.ENOSPC, errno.EIO) for e in told), told
assert errno.ENOSPC in told, told
EOF
cmp -n 1048576 first g/disk.raw || fail "what was there before cannot be read"
[ "$(grep -c "No space left on device" log)" -eq 1 ] || fail "log: $(cat log)"
expect_output log d.qcow2 offset
grep -q "No space left on device" g/control/status || fail "control/status: $(cat g/control/status)"
# With room again it is written to again.
mount -o remount,size=64M small
random_data second 3000000 >second
dd if=second of=g/disk.raw bs=1M seek=20 conv=notrunc,fsync status=none
fusermount3 -u g
wait $pid || fail "status $? after a full host: $(cat log)"
qemu-img check small/d.qcow2 >check || [ $? -eq 3 ] || fail "check: $(cat check)"
qemu-img dd -f qcow2 -O raw if=small/d.qcow2 of=got bs=1M skip=20
cmp -n 3000000 second got
umount small
