#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# mount(8) and an fstab line reach imgfs; a user without rights can mount too.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_fuse
requires_root
requires_qemu
requires_program setpriv mount.fuse3
requires_unshare

random_data 5 1000000 >flat
truncate -s 1M flat
qemu-img convert -q -O qcow2 flat d.qcow2
mkdir m
cleanup_add unmount_now "$SCRATCH/m"
ln -s "$(type -P imgfs)" mount.imgfs
ln -s "$(type -P imgfs)" mount.fuse.imgfs

check_and_unmount() {
	same_bytes flat m/disk.raw
	grep -q "$SCRATCH/d.qcow2 $SCRATCH/m fuse.imgfs ro" /proc/mounts || fail "$(grep imgfs /proc/mounts)"
	umount m
}
# As mount(8) calls its helpers.
for name in mount.imgfs mount.fuse.imgfs; do
	"./$name" "$SCRATCH/d.qcow2" "$SCRATCH/m" -s -n -o ro,noexec,nofail,unknown=1
	check_and_unmount
done
# Through mount.fuse3, which looks for imgfs in the system's folders only: a name space of
# its own has it in /usr/local/bin.
mkdir bin
cp "$(type -P imgfs)" bin/
echo "$SCRATCH/d.qcow2 $SCRATCH/m fuse.imgfs ro,allow_other,nofail,x-systemd.requires-mounts-for=/img 0 0" >fstab
cat >inside <<'SH'
set -e
mount --bind bin /usr/local/bin
check_and_unmount() {
	cmp flat m/disk.raw
	grep -q "$PWD/d.qcow2 $PWD/m fuse.imgfs ro" /proc/mounts
	umount m
}
mount -t fuse.imgfs -o ro,nofail,noauto,_netdev,x-systemd.automount "$PWD/d.qcow2" "$PWD/m"
check_and_unmount
mount -T fstab "$PWD/m"
check_and_unmount
SH
unshare -m bash inside || fail "mount -t fuse.imgfs"

# In a user namespace of its own, as nobody. The folder is reachable by no other user.
work=$(mktemp -d /tmp/imgfs-user.XXXXXX)
cleanup_add rm -rf "$work"
cp flat d.qcow2 "$work"
mkdir "$work/m"
chmod 755 "$work"
chown -R nobody "$work"
for_users setpriv --reuid=nobody --regid=nogroup --clear-groups unshare -rm \
	bash -c 'cd "$1" && imgfs d.qcow2 m && cmp flat m/disk.raw && umount m' - "$work" ||
	fail "in a user namespace"
# With the setuid fusermount3.
for_users setpriv --reuid=nobody --regid=nogroup --clear-groups \
	bash -c 'cd "$1" && imgfs d.qcow2 m && cmp flat m/disk.raw && fusermount3 -u m' - "$work" ||
	fail "with fusermount3"
