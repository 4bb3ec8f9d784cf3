#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# bench reads what it is told to, and says so in qemu-img's words.
. "$IMGFS_SRCDIR/tests/functions.sh"
. "$IMGFS_SRCDIR/tests/agree.sh"
requires_qemu

qemu-img create -q -f qcow2 a.qcow2 1M
random_data 4 1048576 >data
qemu-io -c 'write -s data 0 1M' a.qcow2 >/dev/null
for words in "-c 10" "-c 10 -s 1k -o 4k -S 2k -d 3" "-c 0" "-c 1000 -s 64k -t none"; do
	# shellcheck disable=SC2086
	run_both bench $words a.qcow2
	diff <(sed 's/[0-9.]* seconds/N seconds/' q.out) <(sed 's/[0-9.]* seconds/N seconds/' i.out)
done
same_text bench -c 1 -o 1M a.qcow2
same_text bench -c 1 -s 2M a.qcow2
expect_status 1 imgtool bench -w a.qcow2
expect_status 1 imgtool bench -d 0 a.qcow2
