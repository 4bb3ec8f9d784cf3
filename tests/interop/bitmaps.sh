#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# imgtool bitmap beside qemu-img bitmap: the same words, bits and flags; each reads what the other
# wrote, and goes on with it.
. "$IMGFS_SRCDIR/tests/functions.sh"
. "$IMGFS_SRCDIR/tests/agree.sh"
requires_qemu
requires_program python3

dirty_of() { oracle bitmaps "$1"; }
clean() {
	qemu-img check -q "$1" || fail "qemu-img check $1"
	imgtool check -q "$1" || fail "imgtool check $1"
}
# same_status WORDS...: by qemu-img on q.qcow2 and by imgtool on i.qcow2 (IMAGE in WORDS).
same_status() {
	local qs=0 is=0
	qemu-img "${@//IMAGE/q.qcow2}" >q.out 2>q.err || qs=$?
	imgtool "${@//IMAGE/i.qcow2}" >i.out 2>i.err || is=$?
	[ $qs -eq $is ] || { cat q.err i.err && fail "$*: status $is, qemu-img's is $qs"; }
}
# The same, and the same bitmaps afterwards.
both() {
	same_status "$@"
	dirty_of q.qcow2 >q.bits
	dirty_of i.qcow2 >i.bits
	cmp -s q.bits i.bits || { diff q.bits i.bits || true; fail "$*: other bitmaps than qemu-img's"; }
}
guest() {
	qemu-io -c "$1" q.qcow2 >/dev/null
	qemu-io -c "$1" i.qcow2 >/dev/null
}

for options in cluster_size=64k,extended_l2=on cluster_size=512; do
	rm -f ./*.qcow2
	qemu-img create -q -f qcow2 -o $options q.qcow2 9M
	cp q.qcow2 i.qcow2
	both bitmap --add IMAGE a
	both bitmap --add -g 512 IMAGE fine
	both bitmap --add -g 2G IMAGE coarse
	guest "write 100k 5000"
	guest "write -z 3M 1M"
	both bitmap --disable IMAGE fine
	both bitmap --disable IMAGE fine
	guest "write 8M 1M"
	both bitmap --add --disable --merge fine IMAGE both
	both bitmap --merge a --enable IMAGE both
	both bitmap --merge both IMAGE fine
	both bitmap --merge coarse IMAGE both
	both bitmap --clear IMAGE a
	clean i.qcow2
	both bitmap --add --clear --remove IMAGE temporary
	both bitmap --add --remove --add IMAGE again
	both bitmap --remove IMAGE coarse
	guest "discard 0 9M"
	both bitmap --remove IMAGE a
	clean i.qcow2
	[ "$(wc -l <i.bits)" -eq 3 ] || fail "unexpected bitmaps: $(cat i.bits)"
	# What is said of them.
	qemu-img info --output=json i.qcow2 | sed '/actual-size/d; s/i.qcow2/q.qcow2/' >q.info
	imgtool info --output=json i.qcow2 | sed '/actual-size/d; s/i.qcow2/q.qcow2/' >i.info
	json_eq q.info i.info
done

# They grow and shrink with the disk; what is new counts as not written.
rm -f ./*.qcow2
qemu-img create -q -f qcow2 -o cluster_size=512 q.qcow2 9M
cp q.qcow2 i.qcow2
both bitmap --add -g 512 IMAGE fine
both bitmap --add IMAGE s
guest "write 5M 4M"
guest "write 0 1k"
both resize IMAGE 40000000
both resize --shrink IMAGE 7000064
guest "write 6M 512"
both resize IMAGE 9M
both bitmap --remove IMAGE s
clean i.qcow2

# From another file; of another size.
qemu-img create -q -f qcow2 source.qcow2 9M
qemu-img bitmap --add -g 4k source.qcow2 s
qemu-io -c "write 1M 5000" source.qcow2 >/dev/null
both bitmap --merge s -b source.qcow2 -F qcow2 IMAGE fine
both bitmap --add --merge s -b source.qcow2 IMAGE s
qemu-img create -q -f qcow2 small.qcow2 5M
qemu-img bitmap --add small.qcow2 s
both bitmap --merge s -b small.qcow2 IMAGE fine

# What is refused, in the same words.
same_bitmap() {
	same_status "$@"
	# The second line of an inconsistent bitmap's error, names of files and of the programs.
	sed -e '/^Try block-dirty/d' -e 's/q\.qcow2/i.qcow2/g; s/^qemu-img/imgtool/' q.err >q.words
	cmp -s q.words i.err || { diff q.words i.err || true; fail "$*: other words"; }
}
same_bitmap bitmap
same_bitmap bitmap IMAGE a
same_bitmap bitmap IMAGE a b
same_bitmap bitmap --add IMAGE
same_bitmap bitmap --add -g 7 -F raw
same_bitmap bitmap --clear -g 7 IMAGE a
same_bitmap bitmap --add -F raw IMAGE a
same_bitmap bitmap --add -b IMAGE IMAGE a
same_bitmap bitmap --add -g x IMAGE a
same_bitmap bitmap --add -g 1000 IMAGE a
same_bitmap bitmap --add -g 256 IMAGE a
same_bitmap bitmap --add IMAGE fine
same_bitmap bitmap --add IMAGE ""
for action in --remove --clear --enable --disable "--merge fine"; do
	# shellcheck disable=SC2086
	same_bitmap bitmap $action IMAGE nosuch
done
same_bitmap bitmap --merge nosuch IMAGE fine
same_bitmap bitmap --merge s -b small.qcow2 IMAGE fine
long=$(printf 'x%.0s' {1..1023})
both bitmap --add IMAGE "$long"
both bitmap --add IMAGE "y$long"
both bitmap --remove IMAGE "$long"

# Marked as in use: nobody knows what it missed, so it can only be removed.
for image in q.qcow2 i.qcow2; do oracle bitmaps $image --poke fine flags=3; done
for action in --add --clear --enable --disable "--merge s"; do
	# shellcheck disable=SC2086
	same_bitmap bitmap $action IMAGE fine
done
same_bitmap bitmap --merge fine IMAGE s
both bitmap --remove IMAGE fine
clean i.qcow2

# Version 2 has none; raw neither.
qemu-img create -q -f qcow2 -o compat=0.10 v2.qcow2 1M
expect_status 1 imgtool bitmap --add v2.qcow2 b
expect_output err "Cannot store dirty bitmaps in qcow2 v2 files"
# Other programs do not open an empty disk with a bitmap (qemu-img loses it without a word).
qemu-img create -q -f qcow2 empty.qcow2 0
expect_status 1 imgtool bitmap --add empty.qcow2 b
expect_output err "An empty disk cannot have bitmaps"
imgtool snapshot -c nothing empty.qcow2
imgtool resize -q empty.qcow2 1M
imgtool bitmap --add empty.qcow2 b
expect_status 1 imgtool snapshot -a nothing empty.qcow2
expect_output err "an empty disk cannot have bitmaps"
clean empty.qcow2
expect_status 1 imgtool convert --bitmaps -O qcow2 v2.qcow2 c.qcow2
expect_output err "Source lacks bitmap support"
truncate -s 1M disk.raw
expect_status 1 imgtool bitmap --add -f raw disk.raw b
expect_output err "has no bitmaps"
# A name twice: to be read, not to be written.
imgtool bitmap --add i.qcow2 t
oracle bitmaps i.qcow2 --poke t name=s
expect_status 0 imgtool map i.qcow2
expect_output err "warning: 'i.qcow2': the dirty bitmaps are damaged" "has the name of an entry before it"
expect_status 0 imgtool info i.qcow2
expect_status 1 imgtool bitmap --add i.qcow2 u
one_sentence err imgtool i.qcow2
expect_output err "has the name of an entry before it"
expect_status 2 imgtool check i.qcow2
