#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# SIGUSR1 tells how far convert is; SIGINT ends it and removes the target. Commands that only look
# end within a moment, whatever an image says that there is to look at.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_program python3
truncate -s 3G big.raw
# -S 0 writes every byte of the hole: long enough to be met by a signal, without a large source.
run() {
	imgtool convert -f raw -S 0 big.raw o.raw >out 2>err &
	pid=$!
	for ((i = 0; i < 200; i++)); do
		[ -s o.raw ] && [ "$(stat -c %b o.raw)" -gt 0 ] && return
		sleep 0.01
	done
}
run
kill -USR1 $pid || skip "convert was done too early"
for ((i = 0; i < 100; i++)); do
	grep -q '/100%)' err && break
	sleep 0.02
done
kill -TERM $pid || skip "convert was done too early"
status=0
wait $pid || status=$?
grep -qE '^    \([0-9.]+/100%\)$' err || fail "SIGUSR1: no progress on stderr"
[ $status -ge 1 ] || fail "a convert that was stopped: status 0"
[ ! -e o.raw ] || fail "a convert that was stopped left its target"

# 4 Mi L1 entries that all name one L2 table full of entries: hours of work in a small file.
python3 -c '
import struct
l1, l2, table, block = 0x10000, 0x2010000, 0x2020000, 0x2030000
f = open("endless.qcow2", "wb")
f.write(struct.pack(">IIQIIQIIQQIIQQQQII", 0x514649fb, 3, 0, 0, 16, 4194304 << 29, 0, 4194304, l1,
                    table, 1, 0, 0, 0, 0, 0, 4, 104))
f.seek(l1); f.write(struct.pack(">Q", l2) * 4194304)
f.seek(l2); f.write(struct.pack(">Q", 1 | 1 << 63 | 0x2040000) * 8192)
f.seek(table); f.write(struct.pack(">Q", block))
f.truncate(0x2050000)'

# 4 Mi clusters of 4 KiB anywhere in the file; -r all finds some counts that are wrong.
python3 -c '
import array, struct
def put(cluster, kind, values):
    a = array.array(kind, values); a.byteswap(); f.seek(cluster << 12); f.write(a)
n = 1 << 22
l2s, blocks = n // 512, 2100
table, block, l1 = 1, 6, 6 + blocks
l2 = l1 + 16
data = l2 + l2s
f = open("scattered.qcow2", "wb")
f.write(struct.pack(">IIQIIQIIQQIIQQQQII", 0x514649fb, 3, 0, 0, 12, n << 12, 0, l2s, l1 << 12,
                    table << 12, 5, 0, 0, 0, 0, 0, 4, 104))
put(table, "Q", (block + i << 12 for i in range(blocks)))
put(l1, "Q", (l2 + i << 12 | 1 << 63 for i in range(l2s)))
put(l2, "Q", (data + (i * 0x9e3779b1 & n - 1) << 12 | 1 << 63 for i in range(n)))
put(block, "H", [1]) # and all others are none
f.truncate(data + n << 12)'
cp --sparse=always scattered.qcow2 broken.qcow2
truncate -s 16G zeroes.raw
oracle ends_soon "imgtool check -f qcow2 endless.qcow2" "imgtool map --output=json endless.qcow2" \
	"imgtool check -U scattered.qcow2" "imgtool check -r all broken.qcow2" \
	"imgtool map scattered.qcow2" "imgtool compare scattered.qcow2 zeroes.raw" \
	"imgtool measure -O qcow2 scattered.qcow2" "imgtool convert scattered.qcow2 o.raw" \
	"imgtool convert -c -O qcow2 scattered.qcow2 o.qcow2"
[ ! -e o.raw ] && [ ! -e o.qcow2 ] || fail "a convert that was stopped left its target"
