#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# mkdir, rmdir and mv in snapshots/, alone and while the disk is written: a snapshot has what was
# written before it, nothing that was written after, and what is shown is what the image has.
# SECONDS_OF_LOAD: how long the load runs (default 6).
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_fuse
requires_qemu
requires_program fio sgdisk

load=${SECONDS_OF_LOAD:-6}
qemu-img create -q -f qcow2 a.qcow2 64M
mount_imgfs -o rw a.qcow2 m

# Names, and what cannot be done.
sgdisk -n 1:2048:+8M m/disk.raw >/dev/null
mkdir m/snapshots/one 'm/snapshots/a%2Fb' 'm/snapshots/ä b'
[ "$(ls m/snapshots/one m/snapshots/one/partitions | tr '\n' ' ')" = \
	"m/snapshots/one: disk.raw partitions  m/snapshots/one/partitions: 1.raw " ] ||
	fail "a new folder has $(ls m/snapshots/one m/snapshots/one/partitions)"
grep -q 'a/b' m/control/snapshot || fail "the name is not unescaped"
expect_status 1 mkdir m/snapshots/one
expect_output err "File exists"
expect_status 1 mkdir 'm/snapshots/%41'
expect_output err "Invalid argument"
expect_status 1 mkdir m/new
expect_output err "Operation not permitted"
expect_status 1 mkdir m/snapshots/one/sub
expect_status 1 rmdir m/layers
expect_status 1 rmdir m/snapshots/nothing
expect_output err "No such file"
expect_status 1 mv m/snapshots m/other
expect_status 1 mv -T m/snapshots/one 'm/snapshots/ä b'
expect_status 1 mv m/snapshots/one m/one
expect_status 1 rm -f m/snapshots/one/disk.raw
inode=$(stat -c %i 'm/snapshots/ä b')
mv -T m/snapshots/one m/snapshots/two
[ ! -e m/snapshots/one ] && [ -f m/snapshots/two/disk.raw ] || fail "mv"
exec 5<m/snapshots/two/disk.raw
expect_status 1 rmdir m/snapshots/two
expect_output err "Device or resource busy"
exec 5<&-
exec 5<m/snapshots/two/partitions/1.raw
expect_status 1 rmdir m/snapshots/two
expect_output err "Device or resource busy"
exec 5<&-
rmdir m/snapshots/two
[ ! -e m/snapshots/two ] || fail "a deleted snapshot is there"
expect_status 1 stat m/snapshots/two/disk.raw
# Numbers stay with their snapshot, and a new one gets none that was another's.
rmdir 'm/snapshots/a%2Fb'
[ "$(stat -c %i 'm/snapshots/ä b')" = "$inode" ] || fail "another inode number"
mkdir m/snapshots/three
[ "$(stat -c %i m/snapshots/three)" != "$inode" ] || fail "one inode number for two"
[ "$(ls m/snapshots)" = $'three\nä b' ] || fail "shown: $(ls m/snapshots)"
rmdir m/snapshots/*

# A writer numbers its writes; a snapshot between two of them has all before and none after.
python3 - m <<'PY'
import os, struct, sys, threading, mmap
mnt = sys.argv[1]
fd = os.open(mnt + '/disk.raw', os.O_RDWR)
area = 8 << 20                       # behind the partition table
mark, size = 16 << 20, 65536
written = 0                          # last number whose write has returned
stop = False
# Each write puts its number into all sectors of a ring of blocks, by turns in four ways.
shared = mmap.mmap(fd, 64 << 20)
direct = os.open(mnt + '/disk.raw', os.O_RDWR | os.O_DIRECT)
aligned = mmap.mmap(-1, 4096)
def writer():
    global written
    n = 0
    while not stop:
        n += 1
        at, data = mark + n % 64 * 4096, struct.pack('<Q', n) * 512
        if n % 8 == 0:
            aligned[:] = data; os.pwritev(direct, [aligned], at)
        elif n % 8 == 1: shared[at:at + 8] = data[:8]
        else: os.pwrite(fd, data, at)
        written = n
t = threading.Thread(target=writer); t.start()
def block(f, i):
    os.lseek(f, mark + i * 4096, 0); data = os.read(f, 4096)
    assert i % 8 == 1 or data == data[:8] * 512, 'a torn write'
    return struct.unpack('<Q', data[:8])[0]
for i in range(25):
    before = written
    os.mkdir(mnt + '/snapshots/s')
    after = written
    f = os.open(mnt + '/snapshots/s/disk.raw', os.O_RDONLY)
    have = [block(f, j) for j in range(64)]
    os.close(f)
    top = max(have)
    assert before <= top <= after + 1, (before, top, after)
    # A block has the last number that is its own, up to the newest there is in the snapshot;
    # what came while the snapshot was made may be in or not.
    for j, n in enumerate(have):
        if n: assert n % 64 == j
        assert n + 64 > before, (i, j, n, before, after)
    if i % 2: os.rmdir(mnt + '/snapshots/s')
    else: os.rename(mnt + '/snapshots/s', mnt + '/snapshots/kept%d' % i)
stop = True; t.join()
PY

# With fio's own checks going on, snapshots come and go; quiet moments are compared with a copy.
names=()
for round in 1 2; do
	fio --name=load --filename=m/partitions/1.raw --size=4M --bsrange=4k-64k --rw=randrw --ioengine=psync \
		--numjobs=2 --offset_increment=4M --io_size=1G --time_based --runtime=$((load / 2)) \
		--verify=crc32c --verify_backlog=64 --output=fio.$round --group_reporting &
	fio=$!
	for ((i = 0; i < 20; i++)); do
		mkdir "m/snapshots/r$round-$i"
		[ -f "m/snapshots/r$round-$i/partitions/1.raw" ] || fail "no partition in the new snapshot"
		sleep 0.05
		[ $((i % 3)) -eq 0 ] || rmdir "m/snapshots/r$round-$i"
	done
	wait $fio || { cat fio.$round >&2 && fail "fio"; }
	cp --sparse=always m/disk.raw "copy$round"
	mkdir "m/snapshots/quiet$round"
	names+=("quiet$round")
done
for n in "${names[@]}"; do
	same_bytes "copy${n#quiet}" "m/snapshots/$n/disk.raw"
done
ls m/snapshots >shown
unmount m
qemu-img check -q a.qcow2 || fail "check"
qemu-img snapshot -l a.qcow2 | sed -n 's/^[0-9][0-9]* *\([^ ]*\) .*/\1/p' | sort >had
cmp shown had || fail "shown and recorded names differ"
for n in "${names[@]}"; do
	qemu-img convert -q -l "snapshot.name=$n" -O raw a.qcow2 flat
	same_bytes "copy${n#quiet}" flat
done
