#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# SIGUSR1 tells how far convert is; SIGINT ends it and removes the target.
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
