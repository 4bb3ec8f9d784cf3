#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# measure for raw.
. "$IMGFS_SRCDIR/tests/functions.sh"
. "$IMGFS_SRCDIR/tests/agree.sh"
requires_qemu

qemu-img create -q -f qcow2 a.qcow2 70000k
same_text measure --size 1G
same_text measure --size 1
same_text measure -O raw a.qcow2
same_json measure --output=json --size 1.5k
same_json measure --output=json -f qcow2 a.qcow2
expect_status 1 imgtool measure -l nosuch a.qcow2
