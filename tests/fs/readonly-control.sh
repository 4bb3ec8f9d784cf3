#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The control files of a mount that only reads: they tell, and take nothing.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_fuse
requires_qemu

qemu-img create -q -f qcow2 a.qcow2 16M
qemu-img snapshot -c 'a/b %41' a.qcow2
qemu-img snapshot -l a.qcow2 >list
sha256sum a.qcow2 >sum
mount_imgfs a.qcow2 m
[ "$(ls m/control | tr '\n' ' ')" = "$(ls m/control | sort | tr '\n' ' ')" ] || fail "order"
for f in snapshot resize status events; do
	[ "$(stat -c %a:%u m/control/$f)" = "400:$(id -u)" ] || fail "$f: $(stat -c %a:%u m/control/$f)"
	expect_status 1 bash -c "echo create x >m/control/$f"
	expect_output err "Read-only file system"
done
expect_status 1 mkdir m/snapshots/x
expect_output err "Read-only file system"
expect_status 1 rmdir m/snapshots/*
expect_status 1 mv m/snapshots/* m/snapshots/y
cmp list m/control/snapshot || fail "the list is not qemu-img's"
[ "$(cat m/control/resize)" -eq $((16 << 20)) ] || fail "size"
[ "$(cat m/snapshots/*/disk.raw | wc -c)" -eq $((16 << 20)) ] || fail "the snapshot's disk"
cat m/disk.raw >/dev/null
python3 - m a.qcow2 <<'PY'
import errno, json, os, sys
mnt, image = sys.argv[1:]
s = json.load(open(mnt + '/control/status'))
assert s['mode'] == 'ro' and s['writable'] is False and s['job'] is None
assert 'read-only' in s['hint'] and '-o rw' in s['hint'], s
assert s['image'] == os.path.realpath(image) and s['last_error'] is None
assert s['requests']['reads'] > 0 and s['requests']['read_bytes'] >= 16 << 20, s
assert s['requests']['writes'] == 0 and s['dirty_bytes'] == 0
PY
exec 5<m/control/events
cat <&5 >events 2>/dev/null &
reader=$!
wait_until_waits "$reader" cat
pids=$(imgfs_pids "$(realpath m)")
kill "$pids"
wait "$reader" 2>/dev/null || true
exec 5<&-
grep -q '"event": "unmount"' events || fail "no event: $(cat events)"
unmount_now m
sha256sum --quiet -c sum || fail "the image was written"

# A file has no folder.
: >file
mount_imgfs a.qcow2 file
[ -f file ] || fail "no file"
unmount file

# Many readers on all loops at a time.
mount_imgfs a.qcow2 m
for i in 1 2 3 4; do
	for j in 1 2 3 4 5; do cat m/control/status m/control/snapshot m/control/resize; done >"out$i" &
done
wait
[ "$(grep -c 'a/b %41' out1)" -eq 5 ] || fail "parallel readers"
unmount m

# An image whose cluster cannot be read: the error is in status, and an event.
qemu-io -c 'write -P 1 0 64k' a.qcow2 >/dev/null
l1=$(python3 -c 'import struct; print(struct.unpack(">Q", open("a.qcow2", "rb").read()[40:48])[0])')
poke a.qcow2 "$l1" 8000000000000200
mount_imgfs a.qcow2 m
cat m/control/events >events &
reader=$!
wait_until_waits "$reader" cat
expect_status 1 cat m/disk.raw
python3 - m events <<'PY'
import json, sys, time
last = json.load(open(sys.argv[1] + '/control/status'))['last_error']
assert last['errno'] == 5 and last['source'] == 'read' and 'L1 entry' in last['message'], last
time.sleep(0.2)
event = json.loads(open(sys.argv[2]).readline())
assert event['event'] == 'error' and event['message'] == last['message'], event
PY
kill "$reader"
wait "$reader" 2>/dev/null || true
unmount m
