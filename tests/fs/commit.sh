#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# control/commit: what the overlay holds goes into its backing file while the disk is in use.
# IMGFS_COMMIT_ROUNDS=N: so many kills of a mount that commits, for runs by hand.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_fuse
requires_program python3

# state [WANT]: what control/commit says, awaited where it is to become WANT.
state() { sed -n 's/^state: //p' "${2:-m}/control/commit"; }
await() {
	local i
	for ((i = 0; i < 400; i++)); do
		[ "$(state)" != "$1" ] || return 0
		sleep 0.05
	done
	fail "the commit does not become $1: $(cat m/control/commit)"
}
# refused ERRNO WORDS LINE: the line fails so, and control/status has the sentence.
refused() {
	local line=$3
	python3 - m/control/commit "$line" "$1" <<-'END' || fail "'$line': not $1"
		import errno, os, sys
		fd = os.open(sys.argv[1], os.O_WRONLY)
		try:
		    os.write(fd, sys.argv[2].encode() + b"\n")
		    sys.exit("was taken")
		except OSError as e:
		    if e.errno != getattr(errno, sys.argv[3]):
		        sys.exit(str(e))
	END
	expect_output m/control/status "$2"
}
sound() {
	imgtool check -q "$1" || fail "$1 is damaged"
}

make_chain() {
	rm -f ./*.qcow2 base.raw
	imgtool create -q -f qcow2 base.qcow2 48M
	imgtool create -q -f qcow2 -b base.qcow2 -F qcow2 mid.qcow2 64M
	imgtool create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2
	fill base.qcow2 0 48
	fill mid.qcow2 5 9
}
# fill IMAGE MIB COUNT: random data, by way of a mount.
fill() {
	mount_imgfs -o rw "$1" w
	random_data "$1" $(($3 << 20)) |
		dd of=w/disk.raw bs=1M seek="$2" conv=notrunc,fsync iflag=fullblock status=none
	unmount w
}

# ---- the simple case: same bytes before and after, and in the base

make_chain
mount_imgfs -o rw top.qcow2 m
[ "$(cat m/control/commit)" = "state: none" ] || fail "what control/commit says at first"
random_data a $((20 << 20)) | dd of=m/disk.raw bs=1M seek=40 conv=notrunc iflag=fullblock status=none
cp --sparse=never m/disk.raw before
cat m/control/events >events &
events=$!
# Wakes when there is something new, until it has ended.
python3 - m/control/commit <<'END'
import os, select, sys
fd = os.open(sys.argv[1], os.O_RDWR)
p = select.poll()
p.register(fd, select.POLLIN)
os.write(fd, b"\n")
seen = []
while True:
    assert p.poll(20000), "nothing new for 20 s"
    text = os.pread(fd, 4096, 0).decode()
    said = dict(line.split(": ", 1) for line in text.splitlines())
    seen.append(said["state"])
    if said["state"] != "running":
        break
assert seen[-1] == "done", text
assert said["percent"] == "100" and said["base"] == "mid.qcow2", text
assert not p.poll(0), "readable, although there is nothing new"
END
same_bytes before m/disk.raw
same_bytes before m/layers/1-mid.raw
kill "$events"
wait "$events" || true
unmount m
expect_output events '"event": "job-started"' '"event": "job-done"' '"job": "commit"'
sound top.qcow2 && sound mid.qcow2
[ "$(stat -c %s top.qcow2)" -le 262144 ] || fail "top.qcow2 was not emptied"
imgtool convert -O raw mid.qcow2 after
same_bytes before after

# ---- a base further down: the layers above keep what they have

make_chain
mount_imgfs -o rw top.qcow2 m
random_data b $((3 << 20)) | dd of=m/disk.raw bs=1M seek=7 conv=notrunc iflag=fullblock status=none
cp --sparse=never m/disk.raw before
echo 'base="base.qcow2"' >m/control/commit
await done
same_bytes before m/disk.raw
same_bytes before m/layers/2-base.raw
unmount m
imgtool convert -O raw base.qcow2 after
same_bytes before after
sound base.qcow2

# ---- what only the kernel has as yet, behind the end of the base; its file shows it, and is longer

make_chain
mount_imgfs -o rw top.qcow2 m
cp --sparse=never m/layers/1-mid.raw before
truncate -s 66M before
random_data d $((2 << 20)) | dd of=before bs=1M seek=64 conv=notrunc iflag=fullblock status=none
python3 - m before <<'END'
import os, sys, time
m, before = sys.argv[1], open(sys.argv[2], "rb").read()
fd = os.open(m + "/disk.raw", os.O_RDWR)
assert os.pwrite(fd, before[64 << 20:], 64 << 20) == 2 << 20
with open(m + "/control/commit", "w") as f:
    f.write("\n")
while "state: running" in open(m + "/control/commit").read():
    time.sleep(0.01)
# At once: the kernel has been told before that is seen.
assert "state: done" in open(m + "/control/commit").read()
assert open(m + "/layers/1-mid.raw", "rb").read() == before, "what the base's file shows"
END
same_bytes before m/disk.raw
unmount m
imgtool convert -O raw mid.qcow2 after
same_bytes before after

# ---- refusals, each before anything was done

make_chain
sum=$(cat ./*.qcow2 | md5sum)
mount_imgfs -o rw top.qcow2 m
refused EINVAL "'bass=x' is neither" "bass=x"
refused EINVAL "the name of the base is missing" "base="
refused EINVAL "rate" "rate=fast"
refused ENOENT "no image below" "base=other.qcow2"
refused ENOENT "no image below" "base=top.qcow2"
refused ESRCH "no commit runs" "cancel"
# Somebody else has the base open, and lets nobody write to it.
mount_imgfs mid.qcow2 w
refused EBUSY "In use by imgfs mid.qcow2" ""
unmount w
[ "$(state)" = failed ] || fail "a refused commit: $(state)"
chmod a-w mid.qcow2
[ "$(id -u)" -eq 0 ] || refused EACCES "mid.qcow2" ""
chmod u+w mid.qcow2
unmount m
[ "$sum" = "$(cat ./*.qcow2 | md5sum)" ] || fail "a refused commit changed a file"
imgtool snapshot -q -c s top.qcow2
mount_imgfs -o rw top.qcow2 m
refused EOPNOTSUPP "has internal snapshots" ""
rmdir m/snapshots/s
: >m/control/commit # writes no line
[ "$(state)" = failed ]
echo >m/control/commit
await done
unmount m
mount_imgfs -o rw base.qcow2 m
refused EOPNOTSUPP "has no backing file" ""
unmount m
mount_imgfs top.qcow2 m
! (echo >m/control/commit) 2>err || fail "a read-only mount commits"
expect_output err "ead-only file system"
unmount m

# ---- while it runs: one at a time, structure stays, cancel; then again, to the end

make_chain
mount_imgfs -o rw top.qcow2 m
random_data c $((16 << 20)) | dd of=m/disk.raw bs=1M conv=notrunc iflag=fullblock status=none
cp --sparse=never m/disk.raw before
echo "rate=256K" >m/control/commit
refused EBUSY "runs already" ""
refused EBUSY "runs already" "base=base.qcow2"
! mkdir m/snapshots/x 2>err || fail "a snapshot in the middle of a commit"
expect_output err "busy"
expect_status 1 truncate -s 100M m/disk.raw
expect_output m/control/status '"name": "commit"'
imgtool bench -w -c 1 mid.qcow2 >out 2>err && fail "the base is not locked: $(cat out)"
expect_output err "is mounted on"
random_data d 65536 | dd of=m/disk.raw bs=64k seek=9 conv=notrunc iflag=fullblock status=none
random_data d 65536 | dd of=before bs=64k seek=9 conv=notrunc iflag=fullblock status=none
echo cancel >m/control/commit
[ "$(state)" = cancelled ] || fail "cancelled, and yet $(state)"
expect_output m/control/status '"job": null'
imgtool info mid.qcow2 >/dev/null || fail "the base is still locked as one that is written"
same_bytes before m/disk.raw
echo >m/control/commit
await done
same_bytes before m/disk.raw
# The mount ends in the middle.
random_data e $((16 << 20)) | dd of=m/disk.raw bs=1M conv=notrunc iflag=fullblock status=none
cp --sparse=never m/disk.raw before
echo "rate=1M" >m/control/commit
unmount m
sound top.qcow2 && sound mid.qcow2
imgtool convert -O raw top.qcow2 after
same_bytes before after

# ---- writers go on, and read what they wrote (fio looks); killed in the middle, done again

if [ -n "$(type -P fio)" ]; then
	fio_job() {
		fio --name=x --directory=m --filename=disk.raw --rw=randrw --bsrange=4k-256k --size=64M \
			--allow_file_create=0 --verify=crc32c --verify_fatal=1 --verify_backlog=64 \
			--direct="$1" --ioengine=libaio --iodepth=8 --randseed="$2" --io_size=48M \
			--rate=24m --output=fio.log >/dev/null
	}
	make_chain
	mount_imgfs -o rw top.qcow2 m
	for direct in 1 0; do
		fio_job $direct 7 &
		fio=$!
		while kill -0 $fio 2>/dev/null; do
			echo >m/control/commit 2>/dev/null || true
			sleep 0.2
		done
		wait $fio || { cat fio.log >&2 && fail "fio (direct=$direct) read something else"; }
	done
	await done
	unmount m
	sound top.qcow2 && sound mid.qcow2
fi

for ((round = 0; round < ${IMGFS_COMMIT_ROUNDS:-3}; round++)); do
	make_chain
	mount_imgfs -o rw top.qcow2 m
	random_data "k$round" $((24 << 20)) |
		dd of=m/disk.raw bs=1M seek=20 conv=notrunc,fsync iflag=fullblock status=none
	cp --sparse=never m/disk.raw before
	echo "rate=64M" >m/control/commit
	sleep 0.$((RANDOM % 5))$((RANDOM % 10))
	pid=$(imgfs_pids "$PWD/m")
	kill_imgfs "$pid" top.qcow2
	fusermount3 -u m || fusermount3 -uz m
	imgtool convert -O raw top.qcow2 after
	same_bytes before after
	for image in top.qcow2 mid.qcow2; do
		status=0
		imgtool check -q $image || status=$?
		[ $status -eq 0 ] || [ $status -eq 3 ] || fail "$image after SIGKILL: check says $status"
	done
	mount_imgfs -o rw top.qcow2 m
	echo >m/control/commit
	await done
	same_bytes before m/disk.raw
	unmount m
	imgtool convert -O raw mid.qcow2 after
	same_bytes before after
done

# ---- no room below: the disk is as it was, and what the failed commit left there harms nobody

if [ "$(id -u)" -eq 0 ]; then
	mkdir small
	mount -t tmpfs -o size=3M none small
	cleanup_add umount -l "$SCRATCH/small"
	imgtool create -q -f qcow2 small/base.qcow2 8M
	imgtool create -q -f qcow2 -b "$PWD/small/base.qcow2" -F qcow2 top.qcow2
	mount_imgfs -o rw top.qcow2 m
	random_data n $((5 << 20)) | dd of=m/disk.raw bs=1M conv=notrunc iflag=fullblock status=none
	cp --sparse=never m/disk.raw before
	echo >m/control/commit
	await failed
	expect_output m/control/commit "small/base.qcow2: " "No space left on device"
	expect_output m/control/status '"errno": 28' "No space left on device"
	same_bytes before m/disk.raw
	mount -o remount,size=20M small
	echo >m/control/commit
	await done
	same_bytes before m/disk.raw
	unmount m
	status=0
	imgtool check -q small/base.qcow2 >check 2>&1 || status=$?
	[ $status -eq 0 ] || [ $status -eq 3 ] || fail "the base after ENOSPC: $(head -n 3 check)"
	imgtool convert -O raw small/base.qcow2 after
	same_bytes before after
	umount small
fi

# ---- an overlay of the mount's own goes into the image; what is scratch does not

make_chain
mount_imgfs -o overlay=over.qcow2 top.qcow2 m
random_data f $((2 << 20)) | dd of=m/disk.raw bs=1M seek=3 conv=notrunc iflag=fullblock status=none
cp --sparse=never m/disk.raw before
echo >m/control/commit
await done
same_bytes before m/disk.raw
unmount m
imgtool convert -O raw top.qcow2 after
same_bytes before after
mount_imgfs -o scratch top.qcow2 m
refused EOPNOTSUPP "thrown away" ""
unmount m
