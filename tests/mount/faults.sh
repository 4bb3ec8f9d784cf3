#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# EIO and ENOSPC of the host under writable mounts. See faults.py.
#
# usage: faults.sh [OPTION... [KIND...]]      such as "-n 500 -s 7 -v"
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_fuse
requires_qemu
requires_program python3
cleanup_add unmount_now "$SCRATCH/trial/m"
PYTHONDONTWRITEBYTECODE=1 python3 "$IMGFS_SRCDIR/tests/mount/faults.py" "$IMGFS_BUILDDIR/tests/crash/imgfs-faulty" "$@"
