#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Names inside images: what the gate refuses, the option and qemu-img's name allow.
. "$IMGFS_SRCDIR/tests/functions.sh"
. "$IMGFS_SRCDIR/tests/agree.sh"
requires_qemu

mkdir in elsewhere
random_data 5 1048576 >elsewhere/secret.raw
qemu-img create -q -f qcow2 -b "$PWD/elsewhere/secret.raw" -F raw in/top.qcow2
expect_status 1 imgtool convert in/top.qcow2 o.raw
expect_output err secret.raw --allow-references
[ ! -e o.raw ] || fail "a refused convert left a target"
for word in any "$PWD/elsewhere"; do
	imgtool convert --allow-references="$word" in/top.qcow2 o.raw
	same_bytes elsewhere/secret.raw o.raw
done
ln -s "$(type -P imgtool)" qemu-img
./qemu-img convert in/top.qcow2 o.raw
same_bytes elsewhere/secret.raw o.raw
expect_status 2 imgtool compare in/top.qcow2 o.raw
expect_status 1 imgtool map in/top.qcow2
imgtool info in/top.qcow2 >info.txt
