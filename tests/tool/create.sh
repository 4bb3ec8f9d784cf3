#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# create for raw.
. "$IMGFS_SRCDIR/tests/functions.sh"
. "$IMGFS_SRCDIR/tests/agree.sh"
requires_qemu

for words in "x.raw 1M" "x.raw 1.5k" "-q x.raw 1M" "x.raw -o size=2M" "x.raw 1M -o size=2M" x.raw \
	"-o preallocation=full x.raw 1M" "-o preallocation=falloc x.raw 1M" "-o foo=1 x.raw 1M" \
	"-o ,size=1 x.raw" "-f foo x.raw 1M" "x.raw 1M 2" "x.raw 1x" "-b b.qcow2 -F qcow2 x.raw" \
	"-o preallocation=off,preallocation=full x.raw 1M"; do
	rm -f x.raw
	# shellcheck disable=SC2086
	qemu-img create -f raw $words >/dev/null 2>&1 && want=$(stat -c '%s %b' x.raw) || want=none
	rm -f x.raw
	# shellcheck disable=SC2086
	same_text create $words
	rm -f x.raw
	# shellcheck disable=SC2086
	imgtool create -f raw $words >/dev/null 2>&1 && got=$(stat -c '%s %b' x.raw) || got=none
	# qemu-img rounds the file up to sectors; falloc and full take the same space.
	[ "${want%% *}" = "${got%% *}" ] || [ $((${want%% *} / 512)) -eq $((${got%% *} / 512)) ] ||
		fail "create $words: $got, qemu-img's $want"
	# Without preallocation qemu-img writes one zero block, we none.
	[ "${got#* }" = "${want#* }" ] || [ "${got#* }" = 0 ] || fail "create $words: blocks $got, qemu-img's $want"
done
expect_status 1 imgtool create nodir/x.raw 1M
expect_output out "Formatting 'nodir/x.raw', fmt=raw size=1048576"
expect_output err "nodir/x.raw" "No such file or directory"
