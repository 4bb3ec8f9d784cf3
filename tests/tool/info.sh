#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# info agrees with qemu-img, as text and as JSON, with backing chains.
. "$IMGFS_SRCDIR/tests/functions.sh"
. "$IMGFS_SRCDIR/tests/agree.sh"
requires_qemu

qemu-img create -q -f qcow2 base.qcow2 64M
qemu-io -c 'write -P 1 0 1M' -c 'write -z 2M 64k' base.qcow2 >/dev/null
mkdir sub
qemu-img create -q -f qcow2 -b ../base.qcow2 -F qcow2 sub/mid.qcow2
qemu-img create -q -f qcow2 -o compat=0.10,cluster_size=4k -b sub/mid.qcow2 -F qcow2 top.qcow2 80M
truncate -s 1000448 disk.raw
for f in base.qcow2 sub/mid.qcow2 top.qcow2 disk.raw; do
	same_text info $f
	same_json info --output=json $f
	same_text info -U --backing-chain $f
	same_json info --output=json --backing-chain $f
done
same_text info --image-opts driver=qcow2,file.filename=base.qcow2
same_text info -f raw base.qcow2
# The backing file need not be there, unless the chain is asked for.
mv base.qcow2 away.qcow2
same_text info sub/mid.qcow2
expect_status 1 imgtool info --backing-chain sub/mid.qcow2
one_sentence err imgtool base.qcow2
# A loop ends.
mv away.qcow2 base.qcow2
qemu-img rebase -u -b sub/mid.qcow2 -F qcow2 base.qcow2
expect_status 1 imgtool info --backing-chain base.qcow2
expect_output err "infinite loop"
expect_status 1 imgtool info --backing-chain --output=json base.qcow2
[ ! -s out ] || fail "half a JSON was printed"
# A full device is a failure.
expect_status 1 sh -c 'imgtool info disk.raw >/dev/full'
expect_output err "No space left on device"
