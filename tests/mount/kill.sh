#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# SIGKILL of imgfs under a load with fsyncs, snapshots, resizes and commits: what was durable is
# there, and nothing is corrupt. See kill.py.
#
# usage: kill.sh [OPTION... [KIND...]]      such as "-n 500 -s 7 -v", "-n 50 overlay commit"
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_fuse
requires_qemu
requires_program python3
requires_root # umount -l of a mount whose program is gone
[ $# -gt 0 ] || set -- -n 8
cleanup_add unmount_now "$SCRATCH/image/m"
PYTHONDONTWRITEBYTECODE=1 python3 "$IMGFS_SRCDIR/tests/mount/kill.py" "$@"
