#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A mount in the background tells the system's log of a read that failed: once for each cause, with
# the image, the offset and the cause.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_fuse
requires_root
requires_qemu
requires_unshare

qemu-img create -q -f qcow2 d.qcow2 8M
qemu-io -c 'write -q -P 1 0 4M' d.qcow2
l1=$((0x$(od -An -tx1 -j40 -N8 d.qcow2 | tr -d ' ')))
l2=$((0x$(od -An -tx1 -j$l1 -N8 d.qcow2 | tr -d ' ') & 0xfffffffffffe00))
poke d.qcow2 $((l2 + 8 * 3)) 8000000000000a00 # the fourth cluster: not aligned
poke d.qcow2 $((l2 + 8 * 5)) 8000000100000000 # the sixth: far past the end
mkdir m dev

# A log of our own at /dev/log, seen by this mount only.
cat >listen.py <<'PY'
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind("dev/log")
out = open("log", "wb", 0)
while True:
    message = s.recv(65536)
    if message == b"end":
        break
    out.write(message.rstrip(b"\0\n") + b"\n")
PY
cat >inside <<'SH'
set -e
for d in fuse null; do : >dev/$d; mount --bind /dev/$d dev/$d; done
mount --rbind dev /dev
imgfs d.qcow2 m
for i in 1 2 3; do
	for cluster in 3 5; do
		dd if=m/disk.raw of=/dev/null bs=64k iflag=direct count=1 skip=$cluster status=none 2>/dev/null && exit 3
	done
done
dd if=m/disk.raw of=/dev/null bs=64k iflag=direct count=1 skip=4 status=none
fusermount3 -u m
SH
python3 listen.py &
listener=$!
cleanup_add kill $listener
for ((i = 0; i < 100; i++)); do
	[ -S dev/log ] && break
	sleep 0.05
done
unshare -m bash inside || fail "inside: status $?"
python3 -c 'import socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.connect("dev/log"); s.send(b"end")'
wait $listener
[ "$(wc -l <log)" -eq 2 ] || fail "not one line for each cause: $(cat log)"
grep -c "imgfs.*d.qcow2: offset 196608" log >/dev/null || fail "no line for the fourth cluster: $(cat log)"
grep -c "imgfs.*d.qcow2: offset 327680" log >/dev/null || fail "no line for the sixth cluster: $(cat log)"
# daemon.err
[ "$(grep -c '^<27>' log)" -eq 2 ] || fail "wrong facility or level: $(cat log)"
