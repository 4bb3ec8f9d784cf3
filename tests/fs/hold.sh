#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# control/hold: while it is open nothing comes into the image's file, however many want to write,
# and readers of the mount go on; whatever ends the holder, the writers go on.
# A commit stands still too. IMGFS_LONG=1: waits for the end of a hold that nobody ends.
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
exec 13<m/control/hold 14<m/control/hold
for fd in 13 14; do
	read -r line <&$fd
	[ "$line" = held ] || fail "says $line"
done
# waits: a writer does, and will go on when nobody holds. It is no holder itself.
waits() {
	dd if=/dev/zero of=m/disk.raw bs=4k count=1 oflag=direct conv=notrunc status=none 0</dev/null 13<&- 14<&- &
	sleep 0.5
	kill -0 $! 2>/dev/null
}
expect_status 0 imgtool check disk.qcow2
waits || fail "nobody waits for two holds of a shell"
exec 13<&-
expect_status 0 imgtool check disk.qcow2
waits || fail "nobody waits for the second hold"
exec 14<&-
wait
! waits || fail "a hold was not ended by its close"
# What only was opened holds nothing; a group of commands holds until its end; a copy holds not.
exec 13<m/control/hold
! waits || fail "opened and not read, and holds"
exec 13<&-
{
	read -r line
	[ "$line" = held ] && waits || fail "a group of commands does not hold: $line"
} <m/control/hold
wait
cp -r m/control copied
! waits || fail "cp -r holds"

# What a commit writes to the base waits too, and goes on.
imgtool create -q -f qcow2 base.qcow2 64M
imgtool create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
mount_imgfs -o rw top.qcow2 m2
random_data 7 16777216 | dd of=m2/disk.raw bs=1M conv=notrunc,fsync iflag=fullblock status=none
sum=$(sha256sum <m2/disk.raw)
echo rate=16M >m2/control/commit
{
	read -r line
	before=$(sha256sum base.qcow2 top.qcow2)
	expect_output m2/control/commit "state: running"
	sleep 0.5
	[ "$(sha256sum base.qcow2 top.qcow2)" = "$before" ] || fail "a commit wrote to what is held"
} <m2/control/hold
for ((i = 0; i < 200; i++)); do
	grep -q "state: running" m2/control/commit || break
	sleep 0.05
done
expect_output m2/control/commit "state: done"
[ "$(sha256sum <m2/disk.raw)" = "$sum" ] || fail "the disk is another after the commit"
unmount m2
expect_status 0 imgtool check base.qcow2

# A mount that ends lets everybody go.
exec 3<m/control/hold
read -r line <&3
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
read -r line <&3
began=$SECONDS
dd if=/dev/zero of=m/disk.raw bs=4k count=1 conv=notrunc,fsync status=none
[ $((SECONDS - began)) -ge 55 ] || fail "the hold ended after $((SECONDS - began)) s"
[ $((SECONDS - began)) -le 90 ] || fail "the hold ended after $((SECONDS - began)) s"
if read -r line <&3; then fail "says $line, and is over"; fi
