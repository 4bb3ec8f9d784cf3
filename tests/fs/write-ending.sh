#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# However a writable mount ends, what was written is in the image: also what the kernel still keeps,
# of files that are closed, open, or mapped.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_fuse
requires_qemu

cat >writer.py <<'EOF'
"""Writes without fsync, by write and by a mapping, says so and keeps the file open."""
import mmap, os, random, sys, time
fd = os.open(sys.argv[1], os.O_RDWR)
data = random.Random(1).randbytes(8 << 20)
os.pwrite(fd, data[:6 << 20], 0)
m = mmap.mmap(fd, 8 << 20)
m[6 << 20:] = data[6 << 20:]
open("written", "w").close()
if len(sys.argv) > 2:
    time.sleep(60)
EOF
python3 -c 'import random,sys; sys.stdout.buffer.write(random.Random(1).randbytes(8 << 20))' >want.raw
mkdir m
for how in TERM INT umount open; do
	rm -f pid written d.qcow2
	qemu-img create -q -f qcow2 d.qcow2 8M
	imgfs -f -o rw --pidfile pid d.qcow2 m 2>err &
	pid=$!
	cleanup_add unmount_now "$SCRATCH/m"
	for ((i = 0; i < 100; i++)); do
		[ -s pid ] && break
		sleep 0.05
	done
	if [ $how = open ]; then
		python3 writer.py m/disk.raw stay &
		writer=$!
		cleanup_add kill $writer
		for ((i = 0; i < 200; i++)); do
			[ -e written ] && break
			sleep 0.05
		done
		kill -TERM $pid
	else
		python3 writer.py m/disk.raw
		if [ $how = umount ]; then fusermount3 -u m; else kill -$how $pid; fi
	fi
	wait $pid || fail "$how: status $?: $(cat err)"
	! mountpoint -q m || fail "$how: still mounted"
	[ ! -s err ] || fail "$how: $(cat err)"
	[ $how != open ] || kill $writer
	qemu-img check -q d.qcow2 || fail "$how: check"
	qemu-img compare -q -f raw -F qcow2 want.raw d.qcow2 || fail "$how: contents"
done
