#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# rebase: the disk stays the same above another backing file, or only the names change.
. "$IMGFS_SRCDIR/tests/functions.sh"
. "$IMGFS_SRCDIR/tests/agree.sh"
requires_qemu

# make OPTIONS: old.qcow2 and new.qcow2 of 6 and 7 MiB, alike in parts; top.qcow2 of 8 MiB above old.
make() {
	rm -f ./*.qcow2 want.raw
	random_data 3 6291456 >old.raw
	cp old.raw new.raw
	dd if=/dev/zero of=new.raw bs=64k seek=3 count=5 conv=notrunc status=none
	dd if=/dev/urandom of=new.raw bs=1000 seek=2000 count=10 conv=notrunc status=none
	dd if=/dev/urandom of=new.raw bs=64k seek=100 count=12 status=none conv=notrunc
	dd if=/dev/zero of=old.raw bs=64k seek=40 count=9 conv=notrunc status=none
	qemu-img convert -O qcow2 old.raw old.qcow2
	qemu-img convert -O qcow2 new.raw new.qcow2
	qemu-img create -q -f qcow2 -o "$1" -b old.qcow2 -F qcow2 top.qcow2 8M
	qemu-io -c 'write -P 5 12345 70000' -c 'write -P 6 5M 300k' -c 'write -z 2M 128k' \
		-c 'write -P 7 7M 10k' top.qcow2 >/dev/null
	qemu-img convert -O raw top.qcow2 want.raw
}
reads_right() {
	qemu-img check -q "$1" >&2 || fail "qemu-img check finds $1 unsound"
	qemu-img compare -q -f qcow2 -F raw "$1" want.raw || fail "$1 does not read as before"
}
backing_is() {
	local is
	is=$(qemu-img info --output=json "$1" | sed -n 's/.*"backing-filename": "\([^"]*\)".*/\1/p')
	[ "$is" = "$2" ] || fail "the backing file is '$is', not '$2'"
}

for options in cluster_size=64k compat=0.10,cluster_size=4k cluster_size=512 \
	cluster_size=64k,extended_l2=on cluster_size=2M; do
	make "$options"
	imgtool rebase -b new.qcow2 -F qcow2 top.qcow2 >out || fail "rebase: status $?"
	[ ! -s out ] || fail "rebase said something"
	backing_is top.qcow2 new.qcow2
	reads_right top.qcow2
	# Once more: nothing to be done.
	imgtool rebase -p -b new.qcow2 -F qcow2 top.qcow2 >out || fail "again: status $?"
	expect_output out '(100.00/100%)'
	reads_right top.qcow2
	# To nothing, and from nothing to something.
	imgtool rebase -b '' top.qcow2 || fail "to nothing: status $?"
	backing_is top.qcow2 ''
	reads_right top.qcow2
	rm new.qcow2
	imgtool rebase -b old.qcow2 -F qcow2 top.qcow2 || fail "from nothing: status $?"
	backing_is top.qcow2 old.qcow2
	reads_right top.qcow2
done

# An image without anything, put above a full one, still reads as nothing.
make cluster_size=64k
qemu-img create -q -f qcow2 empty.qcow2 8M
qemu-img convert -O raw empty.qcow2 want.raw
imgtool rebase -b old.qcow2 -F qcow2 empty.qcow2 || fail "an empty image: status $?"
reads_right empty.qcow2

# Out of the middle of a chain: what both chains share is not copied.
make cluster_size=64k
qemu-img create -q -f qcow2 -b top.qcow2 -F qcow2 upper.qcow2
qemu-io -c 'write -P 1 3M 64k' upper.qcow2 >/dev/null
qemu-img convert -O raw upper.qcow2 want.raw
imgtool rebase -b old.qcow2 -F qcow2 upper.qcow2 || fail "shortening a chain: status $?"
reads_right upper.qcow2
[ "$(stat -c %s upper.qcow2)" -lt 1500000 ] || fail "more was copied than the layer that goes"
# Compressed.
make cluster_size=64k
imgtool rebase -c -b new.qcow2 -F qcow2 top.qcow2 || fail "-c: status $?"
reads_right top.qcow2
# Without -F the format is found out, recorded, and said.
make cluster_size=64k
imgtool rebase -b new.qcow2 top.qcow2 2>err || fail "without -F: status $?"
expect_output err 'warning' 'qcow2'
reads_right top.qcow2
# Unsafe: names only, of files that need not be there.
sum=$(qemu-img map --output=json top.qcow2 | md5sum)
imgtool rebase -u -b gone/new.raw -F raw top.qcow2 || fail "-u: status $?"
backing_is top.qcow2 gone/new.raw
imgtool rebase -u -b new.qcow2 -F qcow2 top.qcow2 || fail "-u back: status $?"
[ "$(qemu-img map --output=json top.qcow2 | md5sum)" = "$sum" ] || fail "-u changed more than names"
imgtool rebase -u top.qcow2 || fail "-u without -b: status $?"
backing_is top.qcow2 ''

# Snapshots: what becomes of them is said, and their own clusters stay.
make cluster_size=64k
qemu-img snapshot -c one top.qcow2
imgtool rebase -b new.qcow2 -F qcow2 top.qcow2 2>err || fail "with a snapshot: status $?"
expect_output err 'warning' 'internal snapshot'
reads_right top.qcow2

# What cannot be finished is refused before anything is copied.
make cluster_size=512
cp top.qcow2 before
long=$(printf 'x%.0s' {1..1100})
expect_status 1 imgtool rebase -u -b "$long" -F qcow2 top.qcow2
expect_output err 'Could not change the backing file' 
for i in 1 2 3 4; do mkdir -p "$(printf 'd%.0s' {1..120})"; cd "$(printf 'd%.0s' {1..120})" || exit 1; done
cd "$OLDPWD/../../.." || exit 1
deep=$(printf "$(printf 'd%.0s' {1..120})/%.0s" 1 2 3 4)
cp new.qcow2 "$deep/new.qcow2"
expect_status 1 imgtool rebase -b "${deep}new.qcow2" -F qcow2 top.qcow2
expect_output err 'Could not change the backing file' 'No space left in the file header'
same_bytes before top.qcow2

make cluster_size=64k
for words in "" "top.qcow2" "-b x -F qcow2 top.qcow2" "-b new.qcow2 -F foo top.qcow2" \
	"-u -b new.qcow2 -F foo top.qcow2" "-f foo -b new.qcow2 -F qcow2 top.qcow2" \
	"-t foo -b new.qcow2 -F qcow2 top.qcow2" "-T foo -b new.qcow2 -F qcow2 top.qcow2" \
	"-u -f raw -b new.qcow2 -F qcow2 old.raw"; do
	# shellcheck disable=SC2086
	same_text rebase $words
done
cp top.qcow2 before
expect_status 1 imgtool rebase -b top.qcow2 -F qcow2 top.qcow2
expect_output err 'cannot be put above' 
qemu-img create -q -f qcow2 -b top.qcow2 -F qcow2 above.qcow2
expect_status 1 imgtool rebase -b above.qcow2 -F qcow2 top.qcow2
expect_output err 'cannot be put above' 
same_bytes before top.qcow2
