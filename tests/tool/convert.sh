#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# convert to raw (to qcow2: interop/convert.sh) from chains, compressed images, several inputs; sparse as asked for.
. "$IMGFS_SRCDIR/tests/functions.sh"
. "$IMGFS_SRCDIR/tests/agree.sh"
requires_qemu

qemu-img create -q -f qcow2 base.qcow2 16M
random_data 1 3000000 >data
qemu-io -c 'write -s data 64k 2999808' -c 'write -P 0 8M 1M' -c 'write -z 9M 1M' base.qcow2 >/dev/null
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2 20M
qemu-io -c 'write -P 7 1M 64k' -c 'write -z 2M 128k' top.qcow2 >/dev/null
qemu-img convert -c -O qcow2 top.qcow2 coded.qcow2
truncate -s 1049088 small.raw
for words in base.qcow2 top.qcow2 coded.qcow2 small.raw "-m 1 top.qcow2" "-W -m 16 coded.qcow2" \
	"-C base.qcow2" "-S 64k top.qcow2" "-f raw base.qcow2" "base.qcow2 small.raw top.qcow2" \
	"-o preallocation=full top.qcow2" "-S 0 base.qcow2" "-t none base.qcow2" "-U top.qcow2" \
	"-T directsync -t writeback coded.qcow2"; do
	# shellcheck disable=SC2086
	same_convert $words
done
imgtool convert -S 0 base.qcow2 full.raw
[ "$(stat -c '%b' full.raw)" -ge $((16 * 2048)) ] || fail "-S 0 left holes"
# -n: what the target had goes away where the source has zeroes, and only where it has bytes.
qemu-img convert -O raw base.qcow2 want.raw
head -c 16M /dev/zero | tr '\0' x >there.raw
imgtool convert -n -O raw base.qcow2 there.raw
same_bytes want.raw there.raw
imgtool convert -n --target-image-opts base.qcow2 driver=raw,file.filename=there.raw
same_bytes want.raw there.raw
imgtool convert --image-opts driver=qcow2,file.filename=base.qcow2 out.raw
same_bytes want.raw out.raw
truncate -s 1M tiny.raw
expect_status 1 imgtool convert -n -O raw base.qcow2 tiny.raw
expect_output err "output file is smaller than input file"
[ "$(stat -c %s tiny.raw)" -eq 1048576 ] || fail "a target that is too small was changed"
# Never onto a source, nor onto what a source stands on.
sha256sum base.qcow2 >sum
expect_status 1 imgtool convert base.qcow2 base.qcow2
expect_status 1 imgtool convert top.qcow2 base.qcow2
ln base.qcow2 link.qcow2
expect_status 1 imgtool convert top.qcow2 link.qcow2
sha256sum -c --quiet sum
imgtool convert -p base.qcow2 out.raw | tr '\r' '\n' >progress
expect_output progress "    (0.00/100%)" "    (100.00/100%)"
[ -z "$(imgtool convert -q -p base.qcow2 out.raw)" ] || fail "-q -p printed something"
