#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Snapshots in info, snapshot -l, measure -l and convert -l, beside qemu-img.
. "$IMGFS_SRCDIR/tests/functions.sh"
. "$IMGFS_SRCDIR/tests/agree.sh"
requires_qemu
qemu-img create -q -f qcow2 a.qcow2 8M
qemu-io -c 'write -P 1 0 1M' a.qcow2 >/dev/null
qemu-img snapshot -c first a.qcow2
qemu-io -c 'write -P 2 512k 1M' a.qcow2 >/dev/null
qemu-img snapshot -c 2 a.qcow2
qemu-img snapshot -c a-name-that-is-longer-than-its-column a.qcow2
qemu-io -c 'write -P 3 4M 1M' a.qcow2 >/dev/null
qemu-img bitmap --add a.qcow2 changed
same_text info a.qcow2
same_json info --output=json a.qcow2
same_text snapshot -l a.qcow2
same_text snapshot a.qcow2
same_text measure -l first a.qcow2
for param in first 1 2 3 snapshot.id=1,snapshot.name=first snapshot.name=2; do
	same_convert -l "$param" a.qcow2
done
same_text convert -l none a.qcow2 o.raw
same_text convert -l snapshot.id=1,snapshot.name=2 a.qcow2 o.raw
same_text convert -l first a.qcow2 a.qcow2 o.raw
truncate -s 1M b.raw
same_text snapshot -l b.raw
