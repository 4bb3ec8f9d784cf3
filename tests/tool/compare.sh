#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# compare: the five exit statuses and the words of qemu-img.
. "$IMGFS_SRCDIR/tests/functions.sh"
. "$IMGFS_SRCDIR/tests/agree.sh"
requires_qemu

qemu-img create -q -f qcow2 a.qcow2 64M
qemu-io -c 'write -P 1 0 1M' -c 'write -P 9 40M 128k' a.qcow2 >/dev/null
cp a.qcow2 b.qcow2
qemu-io -c 'write -P 3 1500000 1' b.qcow2 >/dev/null
qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 longer.qcow2 80M
cp longer.qcow2 tail.qcow2
qemu-io -c 'write -P 1 70M 512' tail.qcow2 >/dev/null
qemu-img convert -O raw a.qcow2 a.raw
qemu-img convert -c -O qcow2 a.qcow2 coded.qcow2
for other in a.qcow2 a.raw coded.qcow2 b.qcow2 longer.qcow2 tail.qcow2; do
	same_text compare a.qcow2 $other
	same_text compare $other a.qcow2
	same_text compare -q a.qcow2 $other
done
same_text compare -s a.qcow2 longer.qcow2
same_text compare -s a.qcow2 b.qcow2
same_text compare -s a.qcow2 a.qcow2
same_text compare -f qcow2 -F raw a.qcow2 a.raw
# Each byte of a difference counts, wherever it is: the sector is told.
for at in 0 511 1048575 1048576 41943040 67108863; do
	cp --sparse=always a.raw changed.raw
	printf '\377' | dd of=changed.raw bs=1 seek=$at conv=notrunc status=none
	same_text compare -F raw a.qcow2 changed.raw
done
expect_status 2 imgtool compare a.qcow2 nosuch
imgtool compare -p a.qcow2 a.raw | tr '\r' '\n' >out
expect_output out "    (0.00/100%)" "    (100.00/100%)"
# Data that cannot be read: 4 and a sentence, never "identical".
truncate -s 384k a.qcow2
status=0
imgtool compare a.qcow2 a.raw >out 2>err || status=$?
[ $status -ge 3 ] || fail "a truncated image: status $status"
if grep -q identical out; then fail "a truncated image is identical"; fi
