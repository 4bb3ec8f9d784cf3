#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Malformed images: every command and the mount end in one sentence, the right
# status, within 1 GiB of address space and 10 seconds; damage is an I/O error
# where it is, and the rest stays readable. See tests/oracle/hostile.py.
#
# usage: hostile.sh [-v] [PATTERN]
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_program python3

options=()
if sanitized imgtool; then options+=(-u); fi
if [ -w /dev/fuse ] && type -P fusermount3 >/dev/null; then
	options+=(-m)
	cleanup_add unmount_now "$SCRATCH/mnt"
fi
oracle hostile_run "${options[@]}" "$@"
