#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# dd: count= blocks after skip= are copied, as the manual says; qemu-img agrees without skip.
. "$IMGFS_SRCDIR/tests/functions.sh"
. "$IMGFS_SRCDIR/tests/agree.sh"
requires_qemu

random_data 3 5000192 >disk.raw
qemu-img convert -f raw -O qcow2 disk.raw a.qcow2
for words in "" "bs=1M" "bs=1M count=2" "bs=1000 count=3" "bs=64k count=1000" "bs=1M skip=2"; do
	rm -f q.raw i.raw
	# shellcheck disable=SC2086
	qemu-img dd -f qcow2 -O raw $words if=a.qcow2 of=q.raw
	# shellcheck disable=SC2086
	imgtool dd -f qcow2 -O raw $words if=a.qcow2 of=i.raw
	same_bytes q.raw i.raw
done
imgtool dd bs=1M skip=1 count=3 if=a.qcow2 of=i.raw
dd if=disk.raw of=want.raw bs=1M skip=1 count=3 status=none
same_bytes want.raw i.raw
imgtool dd bs=512 skip=99999999 if=a.qcow2 of=i.raw 2>err
expect_output err "a.qcow2: cannot skip to specified offset"
[ ! -s i.raw ] || fail "bytes from behind the end"
sha256sum a.qcow2 >sum
expect_status 1 imgtool dd if=a.qcow2 of=a.qcow2
sha256sum -c --quiet sum

# To qcow2, and from it.
for words in "" "bs=1M skip=1 count=3" "bs=1000 skip=3 count=100" "count=0"; do
	rm -f i.qcow2 want.raw
	# shellcheck disable=SC2086
	imgtool dd -f qcow2 -O qcow2 $words if=a.qcow2 of=i.qcow2
	qemu-img check -q i.qcow2
	# shellcheck disable=SC2086
	dd if=disk.raw of=want.raw status=none $words
	truncate -s %512 want.raw
	qemu-img compare -q -f qcow2 -F raw i.qcow2 want.raw || fail "dd -O qcow2 $words: other contents"
done
expect_status 1 imgtool dd -O nosuch if=a.qcow2 of=i.qcow2
