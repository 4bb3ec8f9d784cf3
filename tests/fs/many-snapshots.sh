#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# An image with as many snapshots as the format allows, 65,536: it is mounted at once, in little
# memory, each snapshot is there, and what is listed is printed at once too.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_fuse

cat >make.py <<'PY'
import struct
C, N, FIRST = 512, 65536, 8192  # cluster; snapshots; where their L1 tables begin
table = bytearray()
for i in range(N):
    ident, name = b"%d" % (i + 1), b"snap%05d" % i
    e = struct.pack(">QIHHIIQII", FIRST + i * C, 1, len(ident), len(name), 1000 + i, 0, 0, 0, 24)
    e += struct.pack(">QQQ", 0, 32768, 2**64 - 1) + ident + name
    table += e + bytes(-len(e) % 8)
where = FIRST + N * C
header = struct.pack(">IIQIIQIIQQIIQQQQII", 0x514649FB, 3, 0, 0, 9, 32768, 0, 1, 3 * C, C, 1, N,
                     where, 0, 0, 0, 4, 112) + bytes(8)
with open("many.qcow2", "wb") as f:
    f.write(header)
    f.seek(C)
    f.write(struct.pack(">Q", 2 * C))
    # The last snapshot has data in its only L2 table: one cluster of 'x'.
    f.seek(4 * C)
    f.write(struct.pack(">Q", 5 * C))
    f.write(bytes(C - 8) + b"x" * C)
    f.seek(FIRST + (N - 1) * C)
    f.write(struct.pack(">Q", 4 * C))
    f.seek(where)
    f.write(table)
    f.truncate((where + len(table) + C - 1) // C * C)
PY
python3 make.py

mkdir m
cleanup_add unmount_now "$SCRATCH/m"
timeout 20 imgfs --pidfile pid many.qcow2 m || fail "the mount took more than 20 s, or failed"
[ "$(timeout 20 ls m/snapshots | wc -l)" -eq 65536 ] || fail "not every snapshot is listed"
for s in snap00000 snap31234 snap65535; do
	[ "$(stat -c %s m/snapshots/$s/disk.raw)" -eq 32768 ] || fail "$s"
done
[ "$(head -c 512 m/snapshots/snap65535/disk.raw | tr -d x | wc -c)" -eq 0 ] || fail "the last one's data"
[ "$(head -c 512 m/snapshots/snap65534/disk.raw | tr -d '\0' | wc -c)" -eq 0 ] || fail "the last but one's"
[ ! -e m/snapshots/snap65536 ] || fail "one too many"
kib=$(awk '/VmHWM/ { print $2 }' "/proc/$(cat pid)/status")
sanitized imgfs || [ "$kib" -lt 150000 ] || fail "imgfs took $kib KiB"
unmount m
[ "$(timeout 20 imgtool snapshot -l many.qcow2 | wc -l)" -eq 65538 ] || fail "snapshot -l"
timeout 20 imgtool info --output=json many.qcow2 >json
python3 -c 'import json; assert len(json.load(open("json"))["snapshots"]) == 65536'
