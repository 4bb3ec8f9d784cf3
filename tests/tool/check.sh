#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# check agrees with qemu-img: clean, leaked, corrupt, not for this format.
. "$IMGFS_SRCDIR/tests/functions.sh"
. "$IMGFS_SRCDIR/tests/agree.sh"
requires_qemu

truncate -s 1M a.raw
same_text check a.raw
same_text check --output=json a.raw
qemu-img create -q -f qcow2 a.qcow2 64M
expect_status 63 imgtool check -r all a.qcow2
expect_output err "not available"
expect_status 1 imgtool check nosuch
