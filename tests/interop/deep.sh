#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Chains of 1000 images are read, in the shell's usual limit of open files; 1001 are refused in one
# sentence that names where.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_qemu

random_data 31 1048576 >base.raw
qemu-img create -q -f qcow2 -o cluster_size=4k -b base.raw -F raw 0001.qcow2
qemu-img create -q -f qcow2 -o cluster_size=4k -b 0001.qcow2 -F qcow2 0002.qcow2
python3 -c '
layer = open("0002.qcow2", "rb").read()
for n in range(3, 1001):
    open("%04d.qcow2" % n, "wb").write(layer.replace(b"0001.qcow2", b"%04d.qcow2" % (n - 1)))'
cp base.raw flat
for n in 1 500 999; do # what lies where in the chain shows through
	# Without its backing file, since qemu needs 10 s to open them all: so whole clusters.
	qemu-io -c "write -q -P $((n % 251)) $((n / 4 * 4096)) 8k" \
		"json:{\"driver\":\"qcow2\",\"file.filename\":\"$(printf %04d.qcow2 $n)\",\"backing\":null}"
	python3 -c 'import sys
n = int(sys.argv[1]); f = open("flat", "r+b"); f.seek(n // 4 * 4096); f.write(bytes([n % 251]) * 8192)' $n
done
ulimit -Sn 512 # is raised up to the hard limit
expect_status 0 imgtool convert -O raw 0999.qcow2 out.raw
same_bytes flat out.raw
expect_status 0 imgtool compare 0999.qcow2 flat
[ "$(imgtool info --backing-chain 0999.qcow2 | grep -c '^image: ')" -eq 1000 ] || fail "info --backing-chain"
for command in map "convert -O raw" "compare 0999.qcow2"; do
	case $command in
	convert*) set -- out2.raw ;;
	*) set -- ;;
	esac
	# shellcheck disable=SC2086
	timeout 10 imgtool $command 1000.qcow2 "$@" >/dev/null 2>err && fail "$command: 1001 images were opened"
	one_sentence err imgtool "longer than 1000 images at 'base.raw'"
done
[ ! -e out2.raw ] || fail "a refused convert left a file"

requires_fuse
mount_imgfs 0999.qcow2 m
same_bytes flat m/disk.raw
[ "$(find m/layers -type f | wc -l)" -eq 1000 ] || fail "layers"
unmount m
expect_status 32 imgfs 1000.qcow2 m
one_sentence err imgfs "longer than 1000 images"
