#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Every writing command on malformed images: none crashes, hangs, or harms what lies beside the
# image or was readable in it. See tests/oracle/hostile_write.py.
#
# usage: hostile-write.sh [-l] [-v] [PATTERN]       -l: every command on every image
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_program python3

options=()
if sanitized imgtool; then options+=(-u); fi
oracle hostile_write "${options[@]}" "$(type -P imgtool)" "$@"

# Q19: a count that has no room for one more reference: refused, and nothing is changed.
if type -P qemu-img >/dev/null; then
	for bits in 1 2; do
		qemu-img create -q -f qcow2 -o refcount_bits=$bits,cluster_size=4k a.qcow2 1M
		qemu-io -f qcow2 -c "write -P 5 0 100k" a.qcow2 >/dev/null
		most=$(((1 << bits) - 1))
		for ((i = 1; i < most; i++)); do imgtool snapshot -c s$i a.qcow2; done
		sha1sum a.qcow2 >before
		expect_status 1 imgtool snapshot -c "one more" a.qcow2
		one_sentence err imgtool a.qcow2
		sha1sum -c --quiet before || fail "refcount_bits=$bits: a refused snapshot changed the image"
		qemu-img check -q a.qcow2
	done
fi
