#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# -o scratch: everything can be written to, in memory and beyond, and nothing stays: not in the
# image, and not in $TMPDIR, however imgfs ends. A full $TMPDIR is an error of who writes.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_fuse
requires_qemu

mkdir m tmp
export TMPDIR=$SCRATCH/tmp
cleanup_add unmount_now "$SCRATCH/m"
truncate -s 32M flat
random_data 1 3000000 | dd of=flat conv=notrunc status=none
random_data 2 3000000 | dd of=flat bs=1M seek=20 conv=notrunc status=none
qemu-img convert -f raw -O qcow2 -o cluster_size=4k flat base.qcow2
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 d.qcow2
qemu-io -c 'write -P 7 8M 1M' d.qcow2 >/dev/null
qemu-img convert -f qcow2 -O raw d.qcow2 flat
sum=$(sha256sum d.qcow2 base.qcow2)
unchanged() {
	[ "$(sha256sum d.qcow2 base.qcow2)" = "$sum" ] || fail "$*: the image has changed"
	[ -z "$(ls -A tmp)" ] || fail "$*: left behind: $(ls -A tmp)"
}

cat >writer.py <<'EOP'
"""Does the same at random to a disk and to a flat file: write, punch, zero; then compares."""
import ctypes, os, random, sys
disk, flat, seed, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
libc = ctypes.CDLL(None, use_errno=True)
r = random.Random(seed)
fds = [os.open(name, os.O_RDWR) for name in (disk, flat)]
size = os.fstat(fds[1]).st_size
for _ in range(count):
    length = r.choice((512, 4096, 70000, 1 << 20))
    offset = r.randrange(size - length)
    if r.randrange(2):
        offset -= offset % 4096
    data = r.randbytes(length)
    mode = r.choice((0, 0, 0, 3, 0x11))
    for fd in fds:
        if mode == 0:
            os.pwrite(fd, data, offset)
        elif libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)):
            if fd == fds[0]: sys.exit("fallocate: " + os.strerror(ctypes.get_errno()))
            os.pwrite(fd, bytes(length), offset)
os.fsync(fds[0])
EOP

for memory in 1M 4M 256M; do
	cp flat model
	mount_imgfs -o scratch=$memory d.qcow2 m
	same_bytes flat m/disk.raw
	python3 writer.py m/disk.raw model $memory 60
	same_bytes model m/disk.raw
	[ "$(ls m/layers | tr '\n' ' ')" = "0-scratch.raw 1-d.raw 2-base.raw " ] || fail "$(ls m/layers)"
	same_bytes model m/layers/0-scratch.raw
	same_bytes flat m/layers/1-d.raw
	expect_output m/control/status '"mode": "scratch"'
	expect_output m/info.json '"filename": "scratch"' "\"backing-filename\": \"$SCRATCH/d.qcow2\""
	# Beyond the memory there is a file, without a name.
	pid=$(imgfs_pids "$SCRATCH/m")
	spilled=$(stat -L -c %b "$(find /proc/"$pid"/fd -lname "$SCRATCH/tmp/*" | head -n 1)")
	case $memory in
	256M) [ "$spilled" -eq 0 ] || fail "$memory: $spilled blocks outside of memory" ;;
	*) [ "$spilled" -gt 2000 ] || fail "$memory: only $spilled blocks outside of memory" ;;
	esac
	unmount m
	unchanged "$memory"
done

# A snapshot is made in the scratch layer, and gone with it.
mount_imgfs -o scratch d.qcow2 m
printf before | dd of=m/disk.raw conv=notrunc status=none
mkdir m/snapshots/one
printf after. | dd of=m/disk.raw conv=notrunc status=none
[ "$(head -c 6 m/snapshots/one/disk.raw)" = before ] || fail "the snapshot"
[ "$(head -c 6 m/disk.raw)" = after. ] || fail "after the snapshot"
unmount m
unchanged "snapshot"

# SIGKILL in the middle.
mount_imgfs -o scratch=1M --pidfile pid d.qcow2 m
cp flat model
python3 writer.py m/disk.raw model kill 2000 >/dev/null 2>&1 &
writer=$!
sleep 0.7
kill -9 "$(cat pid)"
wait $writer && fail "the writer did not notice"
fusermount3 -uz m
unchanged "SIGKILL"

# A full $TMPDIR.
if [ "$(id -u)" -eq 0 ] && unshare -m true 2>/dev/null; then
	cat >inside <<-'SH'
		set -eu
		mount -t tmpfs -o size=4M none tmp
		imgfs -o scratch=1M "$PWD/d.qcow2" "$PWD/m"
		status=0
		python3 - <<-'EOP' || status=$?
			import errno, os, sys
			fd = os.open("m/disk.raw", os.O_RDWR)
			try:
			    for i in range(16):
			        os.pwrite(fd, os.urandom(1 << 20), i << 20)
			    os.fsync(fd)
			except OSError as e:
			    sys.exit(0 if e.errno == errno.ENOSPC else "errno %d" % e.errno)
			sys.exit("16 MiB fit into 5")
		EOP
		grep -q "No space left on device" m/control/status
		# It goes on: what is there can be read, and what gives space back is done.
		cmp -i 20M flat m/disk.raw
		umount m
		exit $status
	SH
	unshare -m bash inside || fail "full TMPDIR"
	unchanged "full TMPDIR"
fi
TMPDIR=$SCRATCH/missing expect_status 32 imgfs -o scratch d.qcow2 "$SCRATCH/m"
one_sentence err imgfs "$SCRATCH/missing"
expect_output err TMPDIR
