#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# map agrees with qemu-img, row for row.
. "$IMGFS_SRCDIR/tests/functions.sh"
. "$IMGFS_SRCDIR/tests/agree.sh"
requires_qemu

qemu-img create -q -f qcow2 base.qcow2 64M
qemu-io -c 'write -P 1 0 1M' -c 'write -z 2M 64k' -c 'write -P 2 33M 3M' base.qcow2 >/dev/null
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2 80M
qemu-io -c 'write -P 3 512k 64k' -c 'write -z 34M 1M' top.qcow2 >/dev/null
qemu-img convert -c -O qcow2 base.qcow2 coded.qcow2
truncate -s 4M sparse.raw
printf data | dd of=sparse.raw bs=1 seek=2M conv=notrunc status=none
truncate -s 0 empty.raw
for f in base.qcow2 top.qcow2 coded.qcow2 sparse.raw; do
	same_text map --output=json $f
done
for f in base.qcow2 top.qcow2 sparse.raw; do
	same_text map $f
done
same_text map -f raw empty.raw
same_text map --output=json -f raw empty.raw
same_text map --output=json -s 1M -l 2M top.qcow2
same_text map --output=json --start-offset=1000 --max-length=1000 top.qcow2
same_text map --output=json -s 100M top.qcow2
same_text map -l 0 top.qcow2
same_text map -s 1x top.qcow2
# Text has no row for what is compressed, says so and fails, as qemu-img does.
run_both map coded.qcow2
diff q.err i.err
expect_status 1 sh -c 'imgtool map --output=json top.qcow2 >/dev/full'
