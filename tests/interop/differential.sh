#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Random sequences of commands, by imgtool and by qemu-img; more by hand: differential.py -n 500 -j 2
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_qemu
requires_program python3

"$IMGFS_SRCDIR/tests/interop/differential.py" ${IMGFS_DIFFERENTIAL:--n 12 -s 1}
