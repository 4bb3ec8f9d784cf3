#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# disk.raw read in every way that Linux has: by sendfile, splice, mmap, O_DIRECT (aligned and not),
# copy_file_range, readv, and by many at once.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_fuse
requires_qemu

random_data 21 3000001 >flat
truncate -s 8M flat
random_data 22 700000 | dd of=flat bs=1M seek=5 conv=notrunc status=none
qemu-img convert -q -O qcow2 flat plain.qcow2
qemu-img convert -q -c -O qcow2 flat packed.qcow2
qemu-img create -q -f qcow2 -o cluster_size=4k -b packed.qcow2 -F qcow2 over.qcow2
qemu-io -c 'write -q -P 3 1234567 54321' over.qcow2
qemu-img convert -q -O raw over.qcow2 over.flat

cat >readers.py <<'PY'
import mmap, os, random, sys, threading
disk, flat = sys.argv[1:3]
want = open(flat, "rb").read()
size = len(want)
r = random.Random(4)
def same(how, at, got, length):
    if got != want[at:at + length]:
        sys.exit(f"{how} at {at}: other bytes")
def ranges(n, unit=1, most=400000):
    for _ in range(n):
        length = max(unit, r.randrange(1, most) // unit * unit)
        yield r.randrange(0, size - length + 1) // unit * unit, length

assert os.stat(disk).st_size == size
fd = os.open(disk, os.O_RDONLY)

with open("copy", "wb") as out:
    at = 0
    while at < size:
        n = os.sendfile(out.fileno(), fd, at, size - at)
        assert n > 0
        at += n
same("sendfile", 0, open("copy", "rb").read(), size)

left, right = os.pipe()
for at, length in ranges(60, most=60000):
    got, pos = b"", at
    while len(got) < length:
        n = os.splice(fd, right, length - len(got), offset_src=pos)
        assert n > 0
        got += os.read(left, n)
        pos += n
    same("splice", at, got, length)

m = mmap.mmap(fd, size, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED)
for at, length in ranges(60):
    same("mmap", at, m[at:at + length], length)
same("mmap", 0, m[:], size)
m.close()

direct = os.open(disk, os.O_RDONLY | os.O_DIRECT)
room = mmap.mmap(-1, 1 << 20)
for at, length in list(ranges(60, 4096)) + list(ranges(60, 512)):
    n = os.preadv(direct, [memoryview(room)[:length]], at)
    assert n == length, (n, length)
    same("O_DIRECT", at, room[:length], length)
assert os.preadv(direct, [memoryview(room)[:4096]], size) == 0
assert os.pread(fd, 100, size - 10) == want[-10:]

for at, length in ranges(60):
    parts = [bytearray(length // 3), bytearray(0), bytearray(length - length // 3)]
    assert os.preadv(fd, parts, at) == length
    same("readv", at, bytes(parts[0] + parts[2]), length)

with open("copy", "wb") as out:
    at = 0
    try:
        while at < size:
            n = os.copy_file_range(fd, out.fileno(), size - at, at, at)
            assert n > 0
            at += n
        same("copy_file_range", 0, open("copy", "rb").read(), size)
    except OSError as e:  # between file systems: as the kernel likes
        assert e.errno in (18, 95, 22), e

errors = []
def many(seed):
    try:
        q = random.Random(seed)
        mine = os.open(disk, os.O_RDONLY | (os.O_DIRECT if seed % 2 else 0))
        buf = mmap.mmap(-1, 65536)
        for _ in range(200):
            at = q.randrange(0, size - 65536) // 4096 * 4096
            assert os.preadv(mine, [buf], at) == 65536
            assert buf[:] == want[at:at + 65536], at
        os.close(mine)
    except BaseException as e:
        errors.append(e)
threads = [threading.Thread(target=many, args=(i,)) for i in range(8)]
for t in threads: t.start()
for t in threads: t.join()
assert not errors, errors

# Nothing can be written, whatever is tried.
for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC):
    try:
        os.open(disk, flags)
        sys.exit("opened for writing")
    except OSError as e:
        assert e.errno in (13, 30), e
PY
i=0
for pair in plain.qcow2:flat packed.qcow2:flat over.qcow2:over.flat flat:flat; do
	image=${pair%:*}
	sum=$(sha256sum "$image")
	mount_imgfs -o "format=$([ "$image" = flat ] && echo raw || echo qcow2)" "$image" m$i
	python3 readers.py m$i/disk.raw "${pair#*:}" || fail "$image"
	unmount m$i
	[ "$sum" = "$(sha256sum "$image")" ] || fail "$image was changed by reading"
	i=$((i + 1))
done
