#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Random sequences of what changes an image's structure, by imgtool, between writes by qemu-io: after
# each step qemu-img check is clean, and the disk and every snapshot are what they must be.
#
# usage: maintain.sh [SEED...]
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_program python3
requires_qemu

[ $# -gt 0 ] || set -- $(seq 0 5)
oracle maintain "$SCRATCH" "$@"
