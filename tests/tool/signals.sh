#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# SIGUSR1 tells how far convert is; SIGINT ends it and removes the target. Commands that only look
# end within a moment, whatever an image says that there is to look at.
. "$IMGFS_SRCDIR/tests/functions.sh"
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
for cmd in "check -f qcow2" "map --output=json"; do
	# shellcheck disable=SC2086
	imgtool $cmd endless.qcow2 >out 2>err &
	pid=$!
	sleep 0.3
	begin=$(date +%s%N)
	# A command started in the background ignores SIGINT.
	kill -TERM $pid || fail "$cmd: done too early: $(tail -n 3 err)"
	status=0
	wait $pid || status=$?
	took=$((($(date +%s%N) - begin) / 1000000))
	[ $status -eq 143 ] || fail "$cmd: status $status after SIGTERM"
	[ $took -lt 1000 ] || fail "$cmd: $took ms to end"
	echo "$cmd: ended after $took ms"
done
