#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# What fsync, O_SYNC, msync, -o sync, snapshots and the end of a mount promise is synced before they
# answer. See durable.py.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_fuse
requires_qemu
requires_program python3
for kind in raw qcow2 data-file overlay directory; do
	cleanup_add unmount_now "$SCRATCH/$kind/m"
done
PYTHONDONTWRITEBYTECODE=1 python3 "$IMGFS_SRCDIR/tests/mount/durable.py" "$IMGFS_BUILDDIR/tests/crash/imgfs-faulty"
