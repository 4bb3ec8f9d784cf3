#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# An image whose format was guessed to be raw is written to, but never so that it would be taken
# for another format from then on: a guest could name any file of the host as its backing file.
. "$IMGFS_SRCDIR/tests/functions.sh"
guess() { "$IMGFS_BUILDDIR/tests/imgio" -f probe "$@"; }

truncate -s 1M disk.img
# write OFFSET HEX...: each one a write of its own; imgio has bytes of one value only.
bytes() {
	local offset=$1 hex
	shift
	for hex in "$@"; do
		printf '%s\n' "write $offset 1 0x$hex"
		offset=$((offset + 1))
	done
}
mapfile -t magic < <(bytes 0 51 46 49 fb 00 00 00)
guess disk.img "${magic[@]}" "write 4096 64k 9"
# Byte by byte is a way too; so is what another write left of an old header.
expect_status 1 guess disk.img "write 7 1 3"
expect_output err "disk.img: offset 7:" "taken for qcow2" "-f raw" "-o format=raw"
guess disk.img "write 7 1 0" "write 512 512 3" "read 4096 64k 9" "write 1020k 4k 5"
expect_status 1 guess disk.img "write 0 8 0x51" "write 7 1 0" "write 0 1 0x51" \
	"write 1 1 0x46" "write 2 1 0x49" "write 7 1 3" "write 3 1 0xfb"

# Said to be raw, it may hold anything.
poke disk.img 0 5146490000000000
"$IMGFS_BUILDDIR/tests/imgio" -f raw disk.img "write 3 1 0xfb" "write 7 1 3"
[ "$(od -An -tx1 -N8 disk.img | tr -d ' \n')" = 514649fb00000003 ] || fail "-f raw did not write"

# The same through a command.
qemu=$(type -P qemu-img || true)
imgtool create -q -f qcow2 inner.qcow2 1M
truncate -s 2M target.img
expect_status 1 imgtool convert -n -f raw --target-image-opts inner.qcow2 file.filename=target.img
expect_output err "taken for qcow2"
[ -z "$qemu" ] || [ "$(imgtool info target.img | sed -n 's/^file format: //p')" = raw ]
