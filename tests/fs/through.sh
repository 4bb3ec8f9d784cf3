#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# imgtool on an image that is mounted: it finds the mount and works through it, or names it.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_fuse
requires_program timeout

imgtool create -q -f qcow2 base.qcow2 16M
imgtool create -q -f qcow2 -b base.qcow2 -F qcow2 disk.qcow2
mount_imgfs -o rw disk.qcow2 "m n"
at=$PWD/"m n"
dd if=/dev/urandom of=data bs=1M count=3 status=none

# quiet_on_stdout PATTERN COMMAND...: as without a mount, and stderr says that it is one.
through() {
	local words=$1
	shift
	expect_status 0 "$@"
	expect_output err "'disk.qcow2' is mounted on '$at': $words"
	[ "$(wc -l <err)" = 1 ] || fail "more than one sentence: $(cat err)"
}
held="it holds the image still"
carried="the mount carries it out"

# ---- reading: what was written a moment ago is there, although nobody has synced it
dd if=data of="$at/disk.raw" bs=1M conv=notrunc status=none
through "$held" imgtool map --output=json disk.qcow2
expect_output out '"length": 3145728, "depth": 0, "present": true'
through "$held" imgtool info --output=json disk.qcow2
json_eq <(imgtool info --output=json -U disk.qcow2) out
through "$held" imgtool info --backing-chain disk.qcow2
expect_output out "file format"
through "$held" imgtool check disk.qcow2
expect_output out "No errors were found"
through "$held" imgtool measure -O raw disk.qcow2
# By options too, and by an overlay of it.
through "$held" imgtool info --image-opts driver=qcow2,file.filename=disk.qcow2
imgtool create -q -f qcow2 -u -b disk.qcow2 -F qcow2 over.qcow2 16M
through "$held" imgtool map --output=json over.qcow2
expect_output out '"length": 3145728, "depth": 1, "present": true'
# -q says nothing, and -U asks nobody.
expect_status 0 imgtool check -q disk.qcow2
[ ! -s err ] || fail "check -q: $(cat err)"
expect_status 0 imgtool info -U disk.qcow2
[ ! -s err ] || fail "info -U: $(cat err)"

# ---- snapshots
name=' a "quoted\ name'
through "$carried" imgtool snapshot -c "$name" disk.qcow2
[ ! -s out ] || fail "snapshot -c prints $(cat out)"
through "$held" imgtool snapshot -l disk.qcow2
expect_output out "$name"
[ "$(ls "$at/snapshots")" = "$name" ] || fail "snapshots/ has $(ls "$at/snapshots")"
through "$carried" imgtool snapshot -r "$name" old disk.qcow2
dd if=/dev/zero of="$at/disk.raw" bs=1M count=3 conv=notrunc status=none
through "$carried" imgtool snapshot -a old disk.qcow2
cmp -n 3145728 data "$at/disk.raw" || fail "not what the snapshot had"
expect_status 1 imgtool snapshot -d missing disk.qcow2
expect_output err "Could not delete snapshot 'missing': "
expect_status 1 imgtool snapshot -c $'two\nlines' disk.qcow2
expect_output err "control characters"
exec 3<"$at/snapshots/old/disk.raw"
expect_status 1 imgtool snapshot -d old disk.qcow2
expect_output err "a file of snapshot 'old' is open"
exec 3<&-
through "$carried" imgtool snapshot -d old disk.qcow2
expect_status 0 imgtool snapshot -q -l disk.qcow2
[ ! -s out ] || fail "still there: $(cat out)"

# ---- size
through "$carried" imgtool resize disk.qcow2 +1M
[ "$(cat out)" = "Image resized." ] || fail "resize says $(cat out)"
[ "$(cat "$at/control/resize")" = $((17 << 20)) ] || fail "size $(cat "$at/control/resize")"
expect_status 1 imgtool resize disk.qcow2 16M
expect_output err "Use the --shrink option"
through "$carried" imgtool resize --shrink disk.qcow2 16M
expect_status 1 imgtool resize --preallocation=full disk.qcow2 20M
expect_output err "preallocat"
expect_status 1 imgtool resize -f raw disk.qcow2 20M
expect_output err "as qcow2, not as raw"
[ "$(cat "$at/control/resize")" = $((16 << 20)) ] || fail "size $(cat "$at/control/resize")"

# ---- commit
expect_status 1 imgtool commit -d disk.qcow2
expect_output err "leave out -d"
expect_status 1 imgtool commit -b missing disk.qcow2
expect_output err "missing"
# An interrupt ends it, at a rate at which it lasts for 30 seconds, and leaves everything.
imgtool commit -q -r 100k disk.qcow2 2>err &
commit=$!
for ((i = 0; i < 100; i++)); do
	! grep -q "^state: running" "$at/control/commit" || break
	sleep 0.05
done
# Meanwhile others read it.
through "$held" imgtool check disk.qcow2
kill -INT $commit
status=0
timeout 20 tail --pid=$commit -f /dev/null || fail "commit does not end"
wait $commit || status=$?
[ $status -eq 130 ] || fail "commit that was interrupted: status $status"
grep -q "^state: cancelled" "$at/control/commit" || fail "$(cat "$at/control/commit")"
cmp -n 3145728 data "$at/disk.raw" || fail "another disk after a cancelled commit"
through "$carried" imgtool commit -p disk.qcow2
expect_output out "(100.00/100%)" "Image committed."
cmp -n 3145728 data "$at/disk.raw" || fail "another disk after commit"
expect_status 0 imgtool map --output=json disk.qcow2
expect_output out '"length": 3145728, "depth": 1, "present": true'
(cd / && imgtool commit -q -b "$SCRATCH/base.qcow2" "$SCRATCH/disk.qcow2")

# ---- what is refused, by name, with nothing changed
refused() {
	expect_status "$1" imgtool "${@:2}"
	expect_output err "'$at'"
}
before=$(sha256sum <disk.qcow2)
refused 1 bitmap --add disk.qcow2 b
refused 1 amend -o lazy_refcounts=on disk.qcow2
refused 1 rebase -u -b '' disk.qcow2
refused 1 rebase -b disk.qcow2 -F qcow2 over.qcow2
refused 1 check -r all disk.qcow2
refused 1 bench -w -c 1 disk.qcow2
refused 1 bench -c 1 disk.qcow2
refused 1 create -f qcow2 disk.qcow2 1M
refused 1 create -f qcow2 -b disk.qcow2 -F qcow2 new.qcow2
refused 1 convert -O qcow2 data disk.qcow2
refused 1 convert -n -f raw -O qcow2 data disk.qcow2
refused 1 dd -f raw -O qcow2 if=data of=disk.qcow2
refused 1 convert -O raw disk.qcow2 new.raw
expect_output err "read '$at/disk.raw' instead"
refused 1 dd if=disk.qcow2 of=new.raw
refused 2 compare disk.qcow2 data
refused 1 commit over.qcow2
# What lies below is read by the mount alone.
refused 1 resize base.qcow2 32M
expect_output err "lies below"
expect_status 0 imgtool info base.qcow2
[ ! -s err ] || fail "info of the base: $(cat err)"
[ "$before" = "$(sha256sum <disk.qcow2)" ] || fail "the image was changed"
[ ! -e new.raw ] && [ ! -e new.qcow2 ] || fail "a target was left"

# ---- another type and another source than usual: found by one of both
unmount "$at"
mount_imgfs -o rw,subtype=else disk.qcow2 m2
expect_status 0 imgtool info disk.qcow2
expect_output err "$PWD/m2"
unmount m2
mount_imgfs -o rw,fsname=else disk.qcow2 m2
expect_status 0 imgtool info disk.qcow2
expect_output err "$PWD/m2"

# ---- a mount that does not answer is not waited for, and named
unmount m2
mount_imgfs -o rw disk.qcow2 m2
# A leak check at exit would wait for the thread that asks.
if ! sanitized imgtool; then
	pid=$(imgfs_pids "$PWD/m2")
	kill -STOP "$pid"
	cleanup_add kill -CONT "$pid"
	expect_status 1 timeout -k 5 10 imgtool info disk.qcow2
	expect_output err "'$PWD/m2', which does not answer"
	kill -CONT "$pid"
fi
expect_status 0 imgtool info disk.qcow2
unmount m2

# ---- read-only: readers do not meet it, writers are told its name
mount_imgfs disk.qcow2 m2
expect_status 0 imgtool info disk.qcow2
[ ! -s err ] || fail "info of what is mounted read-only: $(cat err)"
for words in "snapshot -c x" "resize" "commit"; do
	size=
	[ "$words" != resize ] || size=+1M
	# shellcheck disable=SC2086
	expect_status 1 imgtool $words disk.qcow2 $size
	expect_output err "is mounted read-only on '$PWD/m2'"
done
unmount m2

# ---- one file
touch file
mount_imgfs -o rw disk.qcow2 file
expect_status 1 imgtool snapshot -c x disk.qcow2
expect_output err "'$PWD/file', which is a single file"
expect_status 1 imgtool info disk.qcow2
expect_output err "'$PWD/file'"
unmount file

# ---- the data file of a mounted image: read while it is held still, else refused with the name
imgtool create -q -f qcow2 -o data_file=data.raw outside.qcow2 1M
mount_imgfs -o rw outside.qcow2 m2
printf x | dd of=m2/disk.raw bs=1 conv=notrunc status=none
expect_status 0 imgtool measure -f raw -O qcow2 --output=json data.raw
expect_output err "is mounted on '$PWD/m2': it holds the image still"
python3 -m json.tool out >/dev/null
for words in "resize -f raw data.raw 2M" "convert -f raw -O raw data.raw copy" "bench -w -f raw data.raw"; do
	# shellcheck disable=SC2086
	expect_status 1 imgtool $words
	expect_output err "'data.raw' is the data file of the image that is mounted on '$PWD/m2'"
done
unmount m2

# ---- nothing mounted: as ever
expect_status 0 imgtool snapshot -c x disk.qcow2
[ ! -s err ] || fail "without a mount: $(cat err)"
expect_status 0 imgtool check -q disk.qcow2
