#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# bench reads and writes what it is told to, and says so in qemu-img's words.
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

# Writing: into copies, which are the same afterwards.
for words in "-c 10" "-c 100 -s 1k -o 4k -S 2k -d 3 --pattern=7" "-c 64 -d 8 --flush-interval=8" \
	"-c 64 -d 8 --flush-interval=16 --no-drain --pattern=0xee" "-c 16 -s 64k -t none"; do
	cp a.qcow2 q.qcow2
	cp a.qcow2 i.qcow2
	# shellcheck disable=SC2086
	qemu-img bench -w $words q.qcow2 | sed 's/[0-9.]* seconds/N seconds/' >q.out
	# shellcheck disable=SC2086
	imgtool bench -w $words i.qcow2 | sed 's/[0-9.]* seconds/N seconds/' >i.out
	diff q.out i.out
	qemu-img compare -q q.qcow2 i.qcow2 || fail "bench -w $words wrote something else"
	qemu-img check -q i.qcow2 || fail "bench -w $words: check"
done
same_text bench -w -c 1 -s 2M a.qcow2
same_text bench -w -c 1 -d 8 --flush-interval=4 a.qcow2
same_text bench -c 1 --flush-interval=64 a.qcow2
expect_status 1 imgtool bench -w -U a.qcow2
expect_status 1 imgtool bench -d 0 a.qcow2
