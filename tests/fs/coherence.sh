#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# disk.raw and the partitions in it show the same bytes at any time, whichever way they are written
# and read, while both are open.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_fuse
requires_qemu
requires_program sfdisk

cat >coherence.py <<'EOF'
"""coherence.py MOUNTPOINT START: partition 1 begins at byte START of disk.raw."""
import mmap, os, random, sys
mnt, start = sys.argv[1], int(sys.argv[2])
disk, part = mnt + "/disk.raw", mnt + "/partitions/1.raw"
r = random.Random(7)
page = mmap.mmap(-1, 65536)

class File:
    def __init__(self, path, base, how):
        self.base, self.how = base, how
        self.fd = os.open(path, os.O_RDWR | (os.O_DIRECT if how == "direct" else 0))
        self.map = mmap.mmap(self.fd, os.fstat(self.fd).st_size) if how == "mmap" else None
    def write(self, at, data):
        at -= self.base
        if self.map:
            self.map[at:at + len(data)] = data
        elif self.how == "direct":
            page[:len(data)] = data
            assert os.pwritev(self.fd, [memoryview(page)[:len(data)]], at) == len(data)
        else:
            assert os.pwrite(self.fd, data, at) == len(data)
    def read(self, at, n):
        at -= self.base
        if self.map:
            return self.map[at:at + n]
        if self.how == "direct":
            assert os.preadv(self.fd, [memoryview(page)[:n]], at) == n
            return page[:n]
        return os.pread(self.fd, n, at)
    def close(self):
        if self.map:
            self.map.close()
        os.close(self.fd)

def both(first, second):
    """Whole pages and parts of them, through one and the other in turn."""
    for i in range(60):
        aligned = "direct" in (first.how, second.how)
        n = r.choice((4096, 8192, 65536)) if aligned else r.choice((1, 100, 4096, 30000))
        at = start + r.randrange(0, 1 << 20)
        if aligned:
            at = at // 4096 * 4096
        data = r.randbytes(n)
        w, o = (first, second) if r.randrange(2) else (second, first)
        w.write(at, data)
        got = o.read(at, n)
        assert got == data, (w.how, o.how, i, at, n)
        assert w.read(at, n) == data, (w.how, i, at, n)

paths = {"disk": (disk, 0), "part": (part, start)}
for a, b in (("disk", "part"), ("part", "disk")):
    for how_a in ("buffered", "direct", "mmap"):
        # The second one is not cached, and cannot be mapped.
        for how_b in ("buffered", "direct"):
            first, second = File(*paths[a], how_a), File(*paths[b], how_b)
            both(first, second)
            first.close()
            second.close()

# One after the other: what the kernel keeps of a closed file is not shown when it is old.
for i in range(20):
    a, b = ("disk", "part") if i % 2 else ("part", "disk")
    data = r.randbytes(5000)
    for name, todo in ((b, None), (a, data), (b, None)):
        f = File(*paths[name], "buffered")
        if todo:
            f.write(start + 777, todo)
        got = f.read(start + 777, 5000)
        f.close()
    assert got == data, ("one after the other", i)

# Partitions beside each other are cached both, with shared mappings.
one, two = File(part, 0, "mmap"), File(mnt + "/partitions/2.raw", 0, "mmap")
one.write(5, b"one"), two.write(5, b"two")
assert one.read(5, 3) == b"one" and two.read(5, 3) == b"two"
f = File(disk, 0, "buffered")
assert f.read(start + 5, 3) == b"one"
f.close(), one.close(), two.close()

# The top layer is the same disk, read-only.
fd = os.open(mnt + "/layers/0-d.raw", os.O_RDONLY)
f = File(disk, 0, "buffered")
for i in range(10):
    data = r.randbytes(3000)
    f.write(start + 100, data)
    assert os.pread(fd, 3000, start + 100) == data, "layer"
f.close(), os.close(fd)
EOF

truncate -s 64M d.raw
sfdisk -q d.raw <<'EOF'
label: gpt
start=2048, size=32768
start=34816, size=32768
EOF
qemu-img convert -f raw -O qcow2 d.raw d.qcow2
mount_imgfs -o rw d.qcow2 m
ls m/partitions >names
expect_output names 1.raw 2.raw
python3 coherence.py m $((2048 * 512))

# st_blocks of disk.raw follows what is written to a partition.
before=$(stat -c %b m/disk.raw)
dd if=/dev/urandom of=m/partitions/2.raw bs=1M count=4 conv=notrunc,fsync status=none
[ "$(stat -c %b m/disk.raw)" -ge $((before + 8000)) ] || fail "blocks: $before, $(stat -c %b m/disk.raw)"

# A partition does not grow.
expect_status 1 truncate -s +1M m/partitions/1.raw

# Loop devices on both at the same time.
if has_loop; then
	for pair in "disk.raw partitions/1.raw" "partitions/1.raw disk.raw"; do
		set -- $pair
		attach_loop "m/$1"
		one=$loop
		attach_loop "m/$2"
		two=$loop
		at_one=0 at_two=0
		[ "$1" != disk.raw ] || at_one=2048
		[ "$2" != disk.raw ] || at_two=2048
		random_data "$1" 3000320 >a
		random_data "b$1" 3000320 >b
		dd if=a of="$one" bs=512 seek=$((at_one + 100)) oflag=direct status=none
		dd if="$two" of=got bs=512 skip=$((at_two + 100)) count=5860 iflag=direct status=none
		cmp a got
		dd if=b of="$two" bs=512 seek=$((at_two + 100)) oflag=direct status=none
		dd if="$one" of=got bs=512 skip=$((at_one + 100)) count=5860 iflag=direct status=none
		cmp b got
		detach_loops
	done
fi
unmount m
qemu-img check -q d.qcow2
