#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Who may do what on a writable mount: the user who mounts writes and commands; others read and
# write as the image file's mode has it, and only with allow_other; nobody else commands.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_fuse
requires_root
requires_qemu
requires_program setpriv fusermount3
requires_unshare

# The scratch folder may be reachable by nobody else.
work=$(mktemp -d /tmp/imgfs-users.XXXXXX)
cleanup_add rm -rf "$work"
chmod 755 "$work"
mkdir "$work/m" "$work/read-only"
cp "$(type -P imgfs)" "$(type -P imgtool)" "$work"
qemu-img create -q -f qcow2 "$work/d.qcow2" 16M
chown -R nobody "$work"
chmod 644 "$work/d.qcow2"
echo user_allow_other >fuse.conf
cat >inside <<'SH'
cd "$1"
export PATH=$PWD:$PATH
fail() {
	echo "FAIL: $*" >&2
	exit 1
}
as() { setpriv --reuid="$1" --regid=nogroup --clear-groups bash -c "$2"; }
# may USER COMMAND, may_not USER WORDS COMMAND
may() { as "$1" "$2" >out 2>err || fail "$1: $2: $(cat err)"; }
may_not() {
	! as "$1" "$3" >out 2>err || fail "$1 may: $3"
	grep -qF -- "$2" err || fail "$1: $3: $(cat err)"
}
looks() { # FILE MODE:UID...
	local file=$1
	shift
	[[ " $* " == *" $(stat -c %a:%U "$file") "* ]] || fail "$file: $(stat -c %a:%U "$file"), not $*"
}
ended() { # no lock on the image is left
	local i inode
	inode=$(stat -c %i d.qcow2)
	for ((i = 0; i < 100; i++)); do
		grep -qE "OFDLCK.*:$inode " /proc/locks || return 0
		sleep 0.05
	done
	fail "imgfs does not end"
}
unmount_as() {
	as "$1" "fusermount3 -u m" || fail "$1 cannot unmount"
	ended
}
dir=$PWD

# ---- alone: all of it is theirs, and nobody else comes in, not even root
as nobody "imgfs -o rw d.qcow2 m" || fail "-o rw"
for command in "echo hi | dd of=m/disk.raw conv=notrunc,fsync status=none" \
	"fallocate -p -o 1M -l 1M m/disk.raw" "truncate -s 17M m/disk.raw" \
	"mkdir m/snapshots/a && mv m/snapshots/a m/snapshots/b && rmdir m/snapshots/b" \
	"echo create c >m/control/snapshot" "echo +1M >m/control/resize" \
	"test \$(stat -c %a:%U m/disk.raw) = 600:nobody" \
	"test \$(stat -c %a:%U m/snapshots) = 700:nobody" \
	"for f in m/control/*; do test \$(stat -c %a:%U \$f) = 600:nobody; done" \
	"imgtool snapshot -c d d.qcow2" "imgtool check d.qcow2"; do
	may nobody "$command"
done
for user in daemon root; do
	may_not $user "Permission denied" "ls m"
	may_not $user "'d.qcow2' is mounted on '$dir/m' by a user who lets nobody else in" \
		"imgtool info d.qcow2"
done
may_not root "'d.qcow2' is mounted on '$dir/m' by a user who lets nobody else in" \
	"imgtool snapshot -c r d.qcow2"
unmount_as nobody

# ---- others: they read; who may write to the image may write to the disk; commands are refused
as nobody "imgfs -o rw,allow_other d.qcow2 m" || fail "allow_other"
looks m/disk.raw 644:nobody
looks m/snapshots 755:nobody
for file in m/control/*; do
	looks "$file" 600:nobody
	may_not daemon "Permission denied" "cat $file"
	may_not daemon "Permission denied" "echo x >$file"
done
may daemon "test \$(head -c 2 m/disk.raw) = hi"
may daemon "cat m/snapshots/c/disk.raw m/info.json m/map.json"
for command in "echo ho | dd of=m/disk.raw conv=notrunc status=none" "truncate -s 18M m/disk.raw" \
	"fallocate -n -l 4096 m/disk.raw" "touch m/disk.raw" "mkdir m/snapshots/x" \
	"rmdir m/snapshots/c" "mv m/snapshots/c m/snapshots/x" "imgtool info d.qcow2"; do
	may_not daemon "Permission denied" "$command"
done
may_not daemon "not permitted" "chmod 666 m/disk.raw"
may_not daemon "not permitted" "chmod 666 m/control/snapshot"
may nobody "chmod 666 m/disk.raw"
may daemon "echo ho | dd of=m/disk.raw conv=notrunc status=none"
may_not nobody "not permitted" "chmod 666 m/control/snapshot"
may root "echo create e >m/control/snapshot && imgtool snapshot -c f d.qcow2"
unmount_as nobody
# The mode that was set was the mount's, and that of the image is as it was.
looks d.qcow2 644:nobody

chmod 666 d.qcow2
as nobody "imgfs -o rw,allow_other d.qcow2 m" || fail "allow_other, mode 666"
may daemon "echo hu | dd of=m/disk.raw conv=notrunc,fsync status=none && truncate -s +1M m/disk.raw"
may_not daemon "Permission denied" "echo +1M >m/control/resize"
may_not daemon "its control files cannot be read: Permission denied" "imgtool snapshot -c g d.qcow2"
unmount_as nobody

# ---- mounted by root for somebody
imgfs -o rw,uid=1,gid=1,allow_other "$dir/d.qcow2" m || fail "uid="
looks m/disk.raw 666:daemon
looks m/control/snapshot 600:daemon
may daemon "echo create h >m/control/snapshot && rmdir m/snapshots/h"
may_not nobody "Permission denied" "echo create i >m/control/snapshot"
umount m && ended
imgfs -o rw,allow_other,umask=077 "$dir/d.qcow2" m || fail "umask="
looks m/disk.raw 600:nobody
looks m 500:nobody
may_not daemon "Permission denied" "ls m"
may nobody "echo hi | dd of=m/disk.raw conv=notrunc status=none"
umount m && ended
imgfs -o rw "$dir/d.qcow2" m || fail "root alone"
may_not nobody "Permission denied" "ls m"
umount m && ended

# ---- images that cannot be written to
words="(-o rw writes to it; ro, overlay= and scratch do not)"
chmod 444 d.qcow2
may_not nobody "Permission denied $words" "imgfs -o rw d.qcow2 m"
for options in ro scratch overlay=o.qcow2; do
	may nobody "imgfs -o $options d.qcow2 m"
	[ $options = ro ] || may nobody "echo x | dd of=m/disk.raw conv=notrunc,fsync status=none"
	unmount_as nobody
done
chown root o.qcow2
chmod 644 o.qcow2
may_not nobody "Could not open 'o.qcow2': Permission denied" "imgfs -o overlay=o.qcow2 d.qcow2 m"
may_not nobody "Permission denied" "imgfs -o overlay=/root/o.qcow2 d.qcow2 m"
cp d.qcow2 kept
mount -t tmpfs none read-only
cp d.qcow2 read-only
mount -o remount,ro read-only
may_not root "Read-only file system $words" "imgfs -o rw read-only/d.qcow2 m"
may_not root "Read-only file system" "imgfs -o overlay=read-only/o.qcow2 read-only/d.qcow2 m"
cmp kept d.qcow2 || fail "an image was written to"

# ---- who may not mount
chown root m
chmod 755 m
may_not nobody "cannot mount on m" "imgfs d.qcow2 m"
chmod 600 /dev/fuse
chown nobody m
may_not nobody "imgfs: " "imgfs d.qcow2 m"
! grep -qF " $PWD/m " /proc/mounts || fail "mounted without /dev/fuse"
SH
for_users bash inside "$work" || fail "see above"
qemu-img check -q "$work/d.qcow2" || fail "qemu-img check"
