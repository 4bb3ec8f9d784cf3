#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A writable mount: whatever programs do to disk.raw leaves in the image what it leaves in a plain
# file, and an image that qemu-img finds clean.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_fuse
requires_qemu
requires_program fallocate

cat >change.py <<'EOF'
"""change.py FILE SEED: the same changes to any file of 16 MiB."""
import ctypes, mmap, os, random, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
SIZE = 16 << 20
r = random.Random(sys.argv[2])
fd = os.open(sys.argv[1], os.O_RDWR)
direct = os.open(sys.argv[1], os.O_RDWR | os.O_DIRECT)
shared = mmap.mmap(fd, SIZE)
page = mmap.mmap(-1, 1 << 20)
KEEP, PUNCH, ZERO = 1, 2, 16

def fallocate(mode, at, n):
    if libc.fallocate(fd, mode, at, n):
        raise OSError(ctypes.get_errno(), "fallocate %d %d %d" % (mode, at, n))

for i in range(150):
    n = r.choice((1, 512, 4096, 5000, 65536, 200000))
    at = r.randrange(SIZE - n)
    what = r.randrange(9)
    if what < 3:
        os.pwrite(fd, r.randbytes(n), at)
    elif what == 3:
        n = (n + 4095) // 4096 * 4096
        at = at // 4096 * 4096 - n if at > SIZE // 2 else at // 4096 * 4096
        page[:n] = r.randbytes(n)
        os.pwritev(direct, [memoryview(page)[:n]], at)
    elif what == 4:
        shared[at:at + n] = r.randbytes(n)
    elif what == 5:
        fallocate(KEEP | PUNCH, at, n)
    elif what == 6:
        fallocate(r.choice((0, KEEP)), at, n)
    elif what == 7:
        fallocate(r.choice((0, KEEP)) | ZERO if os.environ.get("ZERO") else PUNCH | KEEP, at, n)
    else:
        to = r.randrange(SIZE - n)
        if abs(to - at) >= n:
            os.lseek(fd, 0, 0)
            os.copy_file_range(fd, fd, n, at, to)
    if r.randrange(20) == 0:
        os.fsync(fd) if r.randrange(2) else os.fdatasync(fd)
assert os.fstat(fd).st_size == SIZE
EOF

# case NAME CREATE-OPTION...
case_of() {
	local name=$1
	shift
	random_data "$name" $((16 << 20)) >"$name.raw"
	qemu-img create -q -f qcow2 "$@" "$name.qcow2" 16M
	cp "$name.raw" "$name.base"
	case $* in
	*-b*) ;;
	*) truncate -s 0 "$name.raw" && truncate -s 16M "$name.raw" ;;
	esac
	mount_imgfs -o rw "$name.qcow2" "$name"
	[ "$(stat -c %a "$name/disk.raw")" = 600 ] || fail "$name: not writable"
	python3 change.py "$name.raw" "$name"
	python3 change.py "$name/disk.raw" "$name"
	same_bytes "$name.raw" "$name/disk.raw"
	unmount "$name"
	qemu-img check -q "$name.qcow2" || fail "$name: qemu-img check"
	qemu-img compare -q -f raw -F qcow2 "$name.raw" "$name.qcow2" || fail "$name: contents differ"
	[ ! -e "$name.backing" ] || cmp "$name.backing" "$name.base"
}
export ZERO=1
case_of plain
case_of small -o cluster_size=512
case_of old -o compat=0.10
case_of extended -o extended_l2=on,cluster_size=128k
random_data over $((16 << 20)) >over.backing
case_of over -b over.backing -F raw

# Raw images as well.
random_data r $((16 << 20)) >r.img
cp r.img r.raw
mount_imgfs -o rw,format=raw r.img r
python3 change.py r.raw 1
python3 change.py r/disk.raw 1
same_bytes r.raw r/disk.raw
unmount r
same_bytes r.raw r.img

# What is not the disk itself is never opened for writing, nor anything in a read-only mount.
qemu-img snapshot -c s plain.qcow2
mount_imgfs -o rw plain.qcow2 plain
for f in snapshots/s/disk.raw layers/0-plain.raw info.json; do
	[ -r plain/$f ] || fail "no $f"
	! (true >>"plain/$f") 2>/dev/null || fail "$f opens for writing"
done
cmp plain/snapshots/s/disk.raw plain.raw
echo changed | dd of=plain/disk.raw conv=notrunc status=none
cmp plain/snapshots/s/disk.raw plain.raw || fail "the snapshot changed"
unmount plain
mount_imgfs plain.qcow2 plain
! (true >>plain/disk.raw) 2>/dev/null || fail "a read-only mount opens for writing"
unmount plain

# The end: the disk grows and shrinks where the format can.
mount_imgfs -o rw plain.qcow2 plain
truncate -s 20M plain/disk.raw
[ "$(stat -c %s plain/disk.raw)" -eq $((20 << 20)) ] || fail "truncate"
random_data tail 3000000 >tail
cat tail >>plain/disk.raw
[ "$(stat -c %s plain/disk.raw)" -eq $(((20 << 20) + 3000000)) ] || fail "append"
unmount plain
qemu-img check -q plain.qcow2
[ "$(qemu-img info --output=json plain.qcow2 | python3 -c 'import json,sys; print(json.load(sys.stdin)["virtual-size"])')" \
	-ge $(((20 << 20) + 3000000)) ] || fail "size after appending"
qemu-img dd -f qcow2 -O raw if=plain.qcow2 of=end bs=1M skip=20
cmp -n 3000000 end tail

# st_blocks and holes follow what is written, before it has come to the image as well.
qemu-img create -q -f qcow2 holes.qcow2 64M
mount_imgfs -o rw holes.qcow2 holes
[ "$(stat -c %b holes/disk.raw)" -eq 0 ] || fail "blocks of an empty disk"
python3 - holes/disk.raw <<'EOF'
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
os.pwrite(fd, b"x" * 65536, 8 << 20)
assert os.lseek(fd, 0, os.SEEK_DATA) == 8 << 20, "data that the kernel still keeps"
assert os.lseek(fd, 8 << 20, os.SEEK_HOLE) == (8 << 20) + 65536
os.fsync(fd)
EOF
[ "$(stat -c %b holes/disk.raw)" -eq 128 ] || fail "blocks: $(stat -c %b holes/disk.raw)"
touch -d @1000000 holes/disk.raw
[ "$(stat -c %Y holes/disk.raw)" -eq 1000000 ] || fail "touch"
# Behind the end too, where what the kernel keeps makes the disk longer. cp would lose it.
python3 - holes/disk.raw <<'EOF'
import os, sys
fd, end = os.open(sys.argv[1], os.O_RDWR), 64 << 20
for at in (end + (4 << 20), end + (8 << 20)):
    os.pwrite(fd, b"y" * 65536, at)
    assert os.lseek(fd, at - 65536, os.SEEK_DATA) == at, "data behind the end"
    assert os.lseek(fd, at, os.SEEK_HOLE) == at + 65536
EOF
unmount holes

# A regular file as mount point is the disk, with its size from the beginning.
qemu-img create -q -f qcow2 single.qcow2 16M
: >single
mount_imgfs -o rw single.qcow2 "$SCRATCH/single"
[ "$(stat -c %s single)" -eq $((16 << 20)) ] || fail "single file: $(stat -c %s single) bytes"
random_data single $((16 << 20)) >single.raw
dd if=single.raw of=single bs=64k conv=notrunc,fsync status=none
cmp single single.raw
unmount single
qemu-img compare -q -f raw -F qcow2 single.raw single.qcow2 || fail "single file: contents"
