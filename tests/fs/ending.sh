#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Each way to end a mount is clean: exit 0, nothing mounted, the image unlocked.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_fuse
requires_qemu

qemu-img create -q -f qcow2 d.qcow2 8M
mkdir m
for how in TERM INT HUP umount; do
	imgfs -f --pidfile pid d.qcow2 m 2>err &
	pid=$!
	cleanup_add unmount_now "$SCRATCH/m"
	for ((i = 0; i < 100; i++)); do
		[ -s pid ] && break
		sleep 0.05
	done
	[ "$(cat pid)" = $pid ] || fail "pidfile: $(cat pid) is not $pid"
	cmp -n 1000 m/disk.raw /dev/zero
	if [ $how = umount ]; then fusermount3 -u m; else kill -$how $pid; fi
	wait $pid || fail "$how: status $?"
	! mountpoint -q m || fail "$how: still mounted"
	[ ! -s err ] || fail "$how: $(cat err)"
	qemu-io -c 'write 0 64k' d.qcow2 >/dev/null || fail "$how: the image is still locked"
	rm -f pid
	qemu-img create -q -f qcow2 d.qcow2 8M
done

# In the background it ends by a signal as well.
mount_imgfs --pidfile "$SCRATCH/pid" d.qcow2 m
kill "$(cat pid)"
for ((i = 0; i < 100; i++)); do
	mountpoint -q m || break
	sleep 0.05
done
! mountpoint -q m || fail "background: still mounted after SIGTERM"
