#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Every raw and qcow2 sample of other programs reads as its INDEX.md says,
# through imgtool convert and through the mount.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_sample INDEX.md qcow2/plaso-image.qcow2 raw/dfvfs-mbr.raw
requires_program sha256sum

# The table: name, virtual size, flat sha256 ("(raw: ..." means the file's own).
grep -E '^\| (raw|qcow2)/' "$IMGFS_SAMPLES/INDEX.md" | tr -d ' ' |
	awk -F'|' '{ print $2, $5, $6 == "(raw:thefileitself)" ? $4 : $6 }' >table
[ "$(wc -l <table)" -ge 17 ] || fail "INDEX.md lists only $(wc -l <table) samples"

while read -r name _; do
	mkdir -p "$(dirname "$name")"
	case $name in
	*grub_mbr*) bzip2 -dc "$IMGFS_SAMPLES/$name" >"${name%.bz2}" ;; # the index has the sum of the .bz2
	*.gz) gzip -dc "$IMGFS_SAMPLES/$name" | cp --sparse=always /dev/stdin "${name%.gz}" ;;
	*) cp "$IMGFS_SAMPLES/$name" "$name" ;;
	esac
done <table

sum() { sha256sum "$1" | cut -d' ' -f1; }
mounting=no
if [ -w /dev/fuse ] && type -P fusermount3 >/dev/null; then mounting=yes; fi

# 8 GiB of zeroes: not worth half a minute of sha256sum; that all is hole says it too.
nothing8g=ebfb4ef19ae410f190327b5ebd312711263bc7579970e87d9c1e2d84e06b3c25

# through_both FILE SIZE SHA256
through_both() {
	local folder file format=qcow2
	case $1 in raw/*) format=raw ;; esac
	folder=$(dirname "$1") file=$(basename "$1")
	cd "$SCRATCH/$folder"
	imgtool convert -f $format -O raw "$file" "$SCRATCH/flat" 2>"$SCRATCH/err" ||
		fail "$1: convert: $(cat "$SCRATCH/err")"
	[ -z "$2" ] || [ "$(stat -c %s "$SCRATCH/flat")" -eq "$2" ] ||
		fail "$1: $(stat -c %s "$SCRATCH/flat") bytes, expected $2"
	if [ "$3" = "$nothing8g" ]; then
		oracle holes_check "$SCRATCH/flat" zero
	elif [ -n "$3" ]; then
		[ "$(sum "$SCRATCH/flat")" = "$3" ] || fail "$1: convert gives other content"
	fi
	if [ $mounting = yes ]; then
		mount_imgfs -o ro,format=$format "$file" "$SCRATCH/mnt" 2>"$SCRATCH/err"
		if [ "$3" = "$nothing8g" ]; then
			oracle holes_check "$SCRATCH/mnt/disk.raw" zero
			cmp -n 256M "$SCRATCH/flat" "$SCRATCH/mnt/disk.raw"
		elif [ -n "$3" ]; then
			[ "$(sum "$SCRATCH/mnt/disk.raw")" = "$3" ] || fail "$1: the mount gives other content"
		fi
		unmount "$SCRATCH/mnt"
	fi
	cd "$SCRATCH"
}

count=0
while read -r name size sha; do
	name=${name%.gz} name=${name%.bz2}
	case $name in *.bin) continue ;; esac
	case $name in raw/*) size=$(stat -c %s "$name") ;; esac
	case $name in *grub_mbr*) sha=$(sum "$name") ;; esac
	through_both "$name" "$size" "$sha"
	count=$((count + 1))
done <table

# An overlay whose backing format is not recorded: said once, and still read.
cd qcow2/gns3
imgtool convert -f qcow2 -O raw linked.qcow2 "$SCRATCH/flat" 2>"$SCRATCH/err"
grep -q "empty8G.qcow2" "$SCRATCH/err" || fail "no warning of the backing file without a format"
cd "$SCRATCH"

# Both snapshots, by ID and by name.
snapshot() {
	imgtool convert -f qcow2 -l "$1" -O raw qcow2/dissect-snapshot.qcow2 flat
	[ "$(sum flat)" = "$2" ] || fail "snapshot $1 differs"
}
first=dcaa5c00cf9dd477e4f866cc492007d28800938c634db39710f6634afef69aee
second=0b3429b0a152c45d87f4e1068b9030c47490da4f29089bf8152d526944e771a7
snapshot "you can't see me" $first
snapshot 2 $second
if [ $mounting = yes ]; then
	mount_imgfs qcow2/dissect-snapshot.qcow2 mnt
	[ "$(sum "mnt/snapshots/you can't see me/disk.raw")" = $first ] || fail "snapshot 1 in the mount"
	[ "$(sum mnt/snapshots/confused/disk.raw)" = $second ] || fail "snapshot 2 in the mount"
	unmount mnt
fi
echo "$count samples, mounts: $mounting"
