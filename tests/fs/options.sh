#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Who may read a mount (allow_root, allow_other, neither), and auto_unmount when imgfs is killed.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_fuse
requires_root
requires_qemu
requires_program setpriv fusermount3
requires_unshare

# A user's mount, and a fuse.conf that lets users decide: both in a name space of their own.
work=$(mktemp -d /tmp/imgfs-options.XXXXXX)
cleanup_add rm -rf "$work"
chmod 755 "$work"
random_data 9 300000 >"$work/flat"
truncate -s 320k "$work/flat"
qemu-img convert -q -O qcow2 "$work/flat" "$work/d.qcow2"
mkdir "$work/m"
chown -R nobody "$work"
chmod 644 "$work/d.qcow2"
cat >inside <<'SH'
conf=$PWD/fuse.conf
cd "$1"
fail() {
	echo "FAIL: $*" >&2
	exit 1
}
as() { setpriv --reuid="$1" --regid=nogroup --clear-groups "${@:2}"; }
reads() { as "$1" cmp -s flat m/disk.raw; }
settle() { for ((i = 0; i < 100; i++)); do grep -qF " $PWD/m " /proc/mounts || return 0; sleep 0.05; done; fail "$1: still mounted"; }
echo "# nothing allowed" >"$conf"

for option in allow_root allow_other; do
	as nobody imgfs -o $option d.qcow2 m 2>err && fail "$option although fuse.conf does not allow it"
	# fusermount3 says why, imgfs that it did.
	grep -q "^fusermount3: .*user_allow_other" err || fail "$option: $(cat err)"
	[ "$(grep -c "^imgfs: " err)" -eq 1 ] || fail "$option: not one sentence: $(cat err)"
	grep -qF " $PWD/m " /proc/mounts && fail "$option: mounted"
done
echo user_allow_other >"$conf"

as nobody imgfs d.qcow2 m || fail "plain"
reads nobody || fail "its owner cannot read it"
reads root && fail "root reads what nobody allowed"
reads daemon && fail "another user reads what nobody allowed"
as nobody fusermount3 -u m
settle plain

as nobody imgfs -o allow_root d.qcow2 m || fail "allow_root"
reads nobody || fail "allow_root: its owner cannot read it"
reads root || fail "allow_root: root cannot read it"
reads daemon && fail "allow_root: another user reads it"
as nobody fusermount3 -u m
settle allow_root

as nobody imgfs -o allow_other d.qcow2 m || fail "allow_other"
reads nobody && reads root && reads daemon || fail "allow_other: somebody cannot read it"
as nobody fusermount3 -u m
settle allow_other
# As far as the image's own mode lets them.
chmod 600 d.qcow2
as nobody imgfs -o allow_other d.qcow2 m || fail "allow_other, mode 600"
reads nobody || fail "mode 600: its owner cannot read it"
reads daemon && fail "mode 600: another user reads it"
as nobody fusermount3 -u m
settle "mode 600"

as nobody imgfs -o auto_unmount,allow_root --pidfile pid d.qcow2 m || fail "auto_unmount"
# fusermount3 looks at the dead mount as root, and finds ENOTCONN only if root may come.
reads nobody || fail "auto_unmount: cannot be read"
kill -9 "$(cat pid)"
settle "auto_unmount after SIGKILL"
ls m >/dev/null || fail "auto_unmount: the folder is dead"
as nobody imgfs -o auto_unmount,allow_root --pidfile pid d.qcow2 m || fail "auto_unmount again"
as nobody fusermount3 -u m
settle "auto_unmount by hand"
SH
for_users bash inside "$work" || fail "see above"

# The same as root, who needs nobody's leave.
cp "$work/d.qcow2" "$work/flat" .
mount_imgfs -o auto_unmount --pidfile pid d.qcow2 m
same_bytes flat m/disk.raw
kill -9 "$(cat pid)"
for ((i = 0; i < 100; i++)); do
	mountpoint -q m || break
	sleep 0.05
done
mountpoint -q m && fail "auto_unmount: still mounted"
expect_status 1 imgfs -o allow_root,allow_other d.qcow2 m
one_sentence err imgfs allow_root
