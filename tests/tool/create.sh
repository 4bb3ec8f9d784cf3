#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# create: raw beside qemu-img, and what becomes of files when it fails. (qcow2: interop/create.sh.)
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

# qcow2: a backing file without a format is looked at, and what it is gets recorded.
qemu-img create -q -f qcow2 base.qcow2 5M
expect_status 0 imgtool create -f qcow2 -b base.qcow2 over.qcow2
expect_output err "warning" "without backing format" "qcow2"
[ "$(wc -l <err)" -eq 1 ] || fail "more than one sentence"
qemu-img info over.qcow2 >info
expect_output info "backing file format: qcow2" "virtual size: 5 MiB"
expect_status 0 imgtool create -q -f qcow2 -b nosuch -u over.qcow2 1M
expect_output err "warning" "no format is recorded"
expect_status 1 imgtool create -f qcow2 -o encryption=on enc.qcow2 1M
expect_output err "encryption is not supported yet"
expect_status 1 imgtool create -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s enc.qcow2 1M
expect_output err "encryption is not supported yet"
[ ! -e enc.qcow2 ] || fail "a refused create left a file"

# Names beside the new image are relative to it, and never one of what it stands on.
mkdir sub
imgtool create -q -f qcow2 -o data_file=d.raw sub/x.qcow2 1M
[ "$(stat -c %s sub/d.raw)" -eq 1048576 ] || fail "the data file is not beside its image"
imgtool create -q -f qcow2 -b ../base.qcow2 -F qcow2 sub/y.qcow2
imgtool check -q sub/y.qcow2
sha256sum base.qcow2 >sum
ln base.qcow2 link.qcow2
for words in "-b base.qcow2 -F qcow2 base.qcow2" "-b base.qcow2 -F qcow2 link.qcow2" \
	"-o data_file=base.qcow2 base.qcow2" "-o data_file=link.qcow2 base.qcow2" \
	"-b base.qcow2 -F qcow2 -o data_file=link.qcow2 new.qcow2"; do
	# shellcheck disable=SC2086
	expect_status 1 imgtool create -f qcow2 $words 1M
	[ ! -e new.qcow2 ] || fail "create $words left a file"
done
sha256sum -c --quiet sum

# Options are looked at before an existing file is emptied.
echo precious >old
expect_status 1 imgtool create -f qcow2 -o cluster_size=3 old 1M
expect_status 1 imgtool create -f qcow2 -b nosuch -F raw old 1M
expect_status 1 imgtool create -f qcow2 old 1E
expect_status 1 imgtool create -f raw -o preallocation=metadata old 1M
[ "$(cat old)" = precious ] || fail "a refused create changed a file"

# A full disk: what was not there is not there, what was is no half image.
requires_root
mkdir full
mount -t tmpfs -o size=1M tmpfs full || skip "cannot mount a tmpfs"
cleanup_add umount full
for mode in full falloc; do
	for format in raw qcow2; do
		expect_status 1 imgtool create -f $format -o preallocation=$mode full/x 8M
		expect_output err full/x "No space left on device"
		[ ! -e full/x ] || fail "a failed create left a file"
	done
done
expect_status 1 imgtool create -f qcow2 -o data_file=d,preallocation=full full/x 8M
[ ! -e full/x ] && [ ! -e full/d ] || fail "a failed create left a file"
echo old >full/x
expect_status 1 imgtool create -f qcow2 -o preallocation=full full/x 8M
[ -e full/x ] && [ ! -s full/x ] || fail "a failed create left half an image"
