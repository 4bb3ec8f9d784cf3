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
qemu-io -c 'write -P 1 0 1M' a.qcow2 >/dev/null
qemu-img convert -c -O qcow2 a.qcow2 coded.qcow2
qemu-img create -q -f qcow2 empty.qcow2 1M
for f in a.qcow2 coded.qcow2 empty.qcow2; do
	same_text check $f
	same_json check --output=json $f
	same_text check -q $f
done
# The refcount of a cluster past all others: leaked; of one in use: corrupt.
cp a.qcow2 leaked.qcow2
poke leaked.qcow2 $((0x20000 + 2 * 100)) 0001
truncate -s 8M leaked.qcow2
cp a.qcow2 corrupt.qcow2
poke corrupt.qcow2 $((0x20000 + 2 * 6)) 0000
run_both check leaked.qcow2
diff q.out i.out
same_json check --output=json leaked.qcow2
expect_status 3 imgtool check leaked.qcow2
run_both check corrupt.qcow2
diff q.out i.out
expect_status 2 imgtool check corrupt.qcow2
expect_status 1 imgtool check nosuch
