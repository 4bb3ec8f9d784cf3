#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The tree of a mount: content, sizes, holes, layers, partitions, attributes, texts.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_fuse
requires_qemu
requires_program sgdisk getfattr

truncate -s 64M disk
sgdisk -n 1:2048:+8M -c 1:boot -t 1:ef00 -n 3:0:0 -c 3:root disk >/dev/null
random_data 1 3000000 | dd of=disk bs=1M seek=5 conv=notrunc status=none
random_data 2 1000000 | dd of=disk bs=1M seek=40 conv=notrunc status=none
qemu-img convert -q -O qcow2 disk base.qcow2
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
qemu-io -c 'write -P 7 20M 1M' top.qcow2 >/dev/null
qemu-img convert -q -O raw top.qcow2 flat

mount_imgfs top.qcow2 m
same_bytes flat m/disk.raw
same_bytes disk m/layers/1-base.raw
same_bytes flat m/layers/0-top.raw
dd if=m/disk.raw of=direct bs=1M iflag=direct status=none
same_bytes flat direct
cp --sparse=always m/disk.raw copied
same_bytes flat copied
[ "$(stat -c %b copied)" -lt 20000 ] || fail "the copy has no holes"
[ "$(stat -c %s m/disk.raw)" -eq $((64 << 20)) ] || fail "size"
blocks=$(stat -c %b m/disk.raw)
[ "$blocks" -gt 8000 ] && [ "$blocks" -lt 20000 ] || fail "st_blocks $blocks"
[ "$(stat -c %Y m/disk.raw)" -eq "$(stat -c %Y top.qcow2)" ] || fail "mtime"
[ "$(stat -c %a m/disk.raw)" = 400 ] || fail "mode"

# Partitions are windows.
[ "$(ls m/partitions | tr '\n' ' ')" = "1.raw 3.raw " ] || fail "partitions: $(ls m/partitions)"
cmp -n $((8 << 20)) -i $((1 << 20)):0 flat m/partitions/1.raw || fail "partition 1"
[ "$(stat -c %s m/partitions/1.raw)" -eq $((8 << 20)) ] || fail "size of partition 1"
getfattr --only-values -n user.imgfs.label m/partitions/1.raw >label
[ "$(cat label)" = boot ] || fail "label"
getfattr --only-values -n user.imgfs.type_name m/partitions/1.raw >type
[ "$(cat type)" = "EFI System" ] || fail "type"

python3 - m/disk.raw flat <<'PY'
import os, sys
a = os.open(sys.argv[1], os.O_RDONLY); data = open(sys.argv[2], 'rb').read()
pos, holes = 0, 0
while pos < len(data):
    try: d = os.lseek(a, pos, os.SEEK_DATA)
    except OSError: d = len(data)
    assert not data[pos:d].strip(b'\0'), pos
    holes += d - pos
    if d == len(data): break
    pos = os.lseek(a, d, os.SEEK_HOLE)
    assert pos > d
assert holes > 40 << 20, holes
try:
    os.lseek(a, len(data), os.SEEK_DATA); sys.exit('no ENXIO')
except OSError as e: assert e.errno == 6
import mmap
m = mmap.mmap(a, 0, prot=mmap.PROT_READ)
assert m[20 << 20] == 7 and m[40 << 20:(40 << 20) + 4096] == data[40 << 20:(40 << 20) + 4096]
PY

# Texts parse; their size is known once they are open.
python3 - m <<'PY'
import json, os, sys
info = json.load(open(sys.argv[1] + '/info.json'))
assert info['format'] == 'qcow2' and info['virtual-size'] == 64 << 20
assert [p['number'] for p in info['partitions']] == [1, 3]
f = open(sys.argv[1] + '/map.json'); m = json.load(f)
assert sum(e['length'] for e in m) == 64 << 20 and os.fstat(f.fileno()).st_size > 100
PY
# Four readers at a time see the same.
for i in 1 2 3 4; do sha256sum <m/disk.raw >sum$i & done
wait
[ "$(sort -u sum? | wc -l)" -eq 1 ] || fail "parallel readers differ"
expect_status 1 touch m/new
! grep -q . <(find m -newermt '2100-01-01') || fail "dates in the future"
unmount m

# A regular file becomes the disk.
: >file
mount_imgfs top.qcow2 file
same_bytes flat file
[ "$(stat -c %s file)" -eq $((64 << 20)) ] || fail "size of the file"
unmount file
[ ! -s file ] || fail "the file below changed"
