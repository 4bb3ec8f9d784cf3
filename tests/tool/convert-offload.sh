#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# convert -C: the same bytes as without it, whatever the source and target are; on a file system that
# can, the target shares the source's blocks, in qcow2 too.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_qemu

# check SOURCE FORMAT TARGET-FORMAT [OPTION...]
check() {
	rm -f t.img
	imgtool convert -C -f "$2" -O "$3" "${@:4}" "$1" t.img
	qemu-img compare -q -f "$2" -F "$3" "$1" t.img || fail "$*: differs"
	[ "$3" != qcow2 ] || expect_status 0 qemu-img check t.img
}
kinds() {
	check a.raw raw raw
	check a.raw raw qcow2
	check a.raw raw qcow2 -W
	check a.raw raw qcow2 -o cluster_size=2M
	check a.raw raw qcow2 -o cluster_size=512
	check a.raw raw qcow2 -o extended_l2=on
	check a.raw raw qcow2 -o data_file=d.raw,data_file_raw=on
	check a.raw raw qcow2 -o preallocation=metadata
	check a.qcow2 qcow2 qcow2
	check a.qcow2 qcow2 raw
	check top.qcow2 qcow2 qcow2
	check coded.qcow2 qcow2 qcow2
	# Over what is there already, some of it shared with a snapshot.
	imgtool convert -O qcow2 -o cluster_size=4k top.qcow2 old.qcow2
	imgtool snapshot -c s old.qcow2
	imgtool convert -C -n -O qcow2 a.qcow2 old.qcow2
	qemu-img compare -q a.qcow2 old.qcow2 || fail "into what was there"
	imgtool convert -l s -O raw old.qcow2 s.raw
	qemu-img compare -q -F raw top.qcow2 s.raw || fail "the snapshot has changed"
	expect_status 0 qemu-img check old.qcow2
}
make_all() {
	random_data 1 9000000 >a.raw
	truncate -s 20M a.raw
	random_data 2 300000 | dd of=a.raw bs=1M seek=15 conv=notrunc status=none
	truncate -s 20971008 a.raw # the last cluster is not whole
	qemu-img convert -f raw -O qcow2 a.raw a.qcow2
	qemu-img convert -c -f raw -O qcow2 a.raw coded.qcow2
	qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 top.qcow2
	qemu-io -c 'write -q -P 5 100k 3M' -c 'write -q -z 5M 1M' -c 'write -q -P 6 18M 5000' top.qcow2
}
make_all
kinds

for fs in xfs btrfs; do
	[ "$(id -u)" -eq 0 ] && [ -n "$(type -P mkfs.$fs)" ] && losetup -f >/dev/null 2>&1 || continue
	truncate -s 400M fs.img
	mkfs.$fs -q fs.img
	mkdir -p mnt
	mount -o loop fs.img mnt 2>/dev/null || continue
	cleanup_add umount -l "$PWD/mnt"
	cd mnt
	make_all
	kinds
	used() { sync -f . && df -k --output=used . | tail -n 1; }
	rm -f t.img
	before=$(used)
	imgtool convert -C -f raw -O qcow2 a.raw t.img
	[ $(($(used) - before)) -lt 2000 ] || fail "$fs: the target shares nothing"
	cd ..
	exit 0
done
echo "no file system here that shares blocks"
