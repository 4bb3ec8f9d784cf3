#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# control/hold: while it is open nothing comes into the image's file, however many want to write,
# and readers of the mount go on; whatever ends the holder, the writers go on.
# IMGFS_LONG=1: waits for the end of a hold that nobody ends.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_fuse
requires_program python3

imgtool create -q -f qcow2 disk.qcow2 256M
mount_imgfs -o rw disk.qcow2 m
dd if=/dev/urandom of=m/disk.raw bs=1M count=4 conv=notrunc status=none

cat >holder.py <<'E2'
import hashlib, mmap, os, subprocess, threading, time

def digest():
    with open("disk.qcow2", "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()

def write(i):
    fd = os.open("m/disk.raw", os.O_WRONLY | os.O_DIRECT)
    block = mmap.mmap(-1, 4096)
    block.write(b"x" * 4096)
    os.pwrite(fd, block, (8 << 20) + i * 65536)
    os.close(fd)

def write_buffered():
    fd = os.open("m/disk.raw", os.O_WRONLY)
    for i in range(96):
        os.pwrite(fd, os.urandom(1 << 20), (64 + i) << 20)
    os.fsync(fd)
    os.close(fd)

def command():
    with open("m/control/snapshot", "w") as f:
        f.write("create held\n")

hold = os.open("m/control/hold", os.O_RDONLY)
assert os.pread(hold, 100, 0) == b"held\n"
# A child that has the descriptor too ends nothing.
subprocess.run(["true"], check=True, pass_fds=[hold])
before = digest()
threads = [threading.Thread(target=write, args=(i,)) for i in range(150)]
threads += [threading.Thread(target=write_buffered), threading.Thread(target=command)]
for t in threads:
    t.start()
time.sleep(1.5)
assert all(t.is_alive() for t in threads), "somebody did not wait"
assert digest() == before, "the file has changed"
# Reads of what nobody is writing, a second holder, other control files.
assert os.listdir("m") and open("m/control/status").read()
assert os.pread(hold, 100, 0) == b"held\n"
os.close(hold)
for t in threads:
    t.join(20)
assert not any(t.is_alive() for t in threads), "writers still wait"
assert digest() != before
E2
expect_status 0 timeout 60 python3 holder.py
[ "$(ls m/snapshots)" = held ] || fail "no snapshot: $(ls m/snapshots)"
echo "delete held" >m/control/snapshot

# A holder that dies.
tail -f m/control/hold >held &
holder=$!
for ((i = 0; i < 100; i++)); do
	[ ! -s held ] || break
	sleep 0.05
done
dd if=/dev/zero of=m/disk.raw bs=4k count=1 conv=notrunc,fsync status=none &
writer=$!
sleep 0.3
kill -0 $writer || fail "a writer did not wait"
kill -KILL $holder
timeout 20 tail --pid=$writer -f /dev/null || fail "a writer waits for one who has died"

# Two at the same time, and imgtool beside them.
exec 3<m/control/hold 4<m/control/hold
read -r line <&3
[ "$line" = held ] || fail "says $line"
expect_status 0 imgtool check disk.qcow2
exec 3<&-
expect_status 0 imgtool check disk.qcow2
exec 4<&-

# A mount that ends lets everybody go.
exec 3<m/control/hold
dd if=/dev/urandom of=m/disk.raw bs=1M count=1 seek=100 oflag=direct conv=notrunc status=none &
writer=$!
sleep 0.3
kill "$(imgfs_pids "$PWD/m")"
timeout 20 tail --pid=$writer -f /dev/null || fail "a writer waits although the mount has ended"
exec 3<&-
for ((i = 0; i < 100; i++)); do
	[ -n "$(imgfs_pids "$PWD/m")" ] || break
	sleep 0.1
done
expect_status 0 imgtool check -q disk.qcow2

[ -n "${IMGFS_LONG:-}" ] || exit 0
mount_imgfs -o rw disk.qcow2 m
exec 3<m/control/hold
began=$SECONDS
dd if=/dev/zero of=m/disk.raw bs=4k count=1 conv=notrunc,fsync status=none
[ $((SECONDS - began)) -ge 55 ] || fail "the hold ended after $((SECONDS - began)) s"
[ $((SECONDS - began)) -le 90 ] || fail "the hold ended after $((SECONDS - began)) s"
if read -r line <&3; then fail "says $line, and is over"; fi
