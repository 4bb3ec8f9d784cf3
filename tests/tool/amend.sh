#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# amend beside qemu-img: the same words and statuses, the same image, and the same disk as before.
. "$IMGFS_SRCDIR/tests/functions.sh"
. "$IMGFS_SRCDIR/tests/agree.sh"
requires_qemu

facts() { qemu-img info "$1" | grep -E "compat|lazy|refcount|virtual|data file|backing" || true; }
# both IMAGE WORDS...: of two copies each program amends one.
both() {
	local from=$1 q=0 i=0
	shift
	cp --sparse=always "$from" n.qcow2
	qemu-img amend "$@" n.qcow2 >q.out 2>&1 || q=$?
	facts n.qcow2 >>q.out
	cp --sparse=always "$from" n.qcow2
	imgtool amend "$@" n.qcow2 >i.out 2>&1 || i=$?
	[ $i -eq $q ] || fail "amend $* $from: status $i, not $q: $(cat i.out)"
	sed -i "s/^imgtool:/qemu-img:/; s/Try 'imgtool /Try 'qemu-img /" i.out
	facts n.qcow2 >>i.out
	diff q.out i.out || fail "amend $* $from"
	sound "$from" n.qcow2
}
# sound BEFORE AFTER: checked by both programs, and the shorter disk is the front of the longer.
sound() {
	expect_status 0 qemu-img check "$2"
	expect_status 0 imgtool check "$2"
	qemu-img convert -O raw "$1" before.raw
	qemu-img convert -O raw "$2" after.raw
	cmp before.raw after.raw 2>&1 | grep -v EOF && fail "$1 and $2 differ" || true
}
# make NAME SIZE [OPTION...]
make() {
	rm -f "$1"
	qemu-img create -q -f qcow2 "${@:3}" "$1" $2
}

make m.qcow2 16M -o compat=1.1
qemu-io -c 'write -q -P 3 1M 3M' -c 'write -q -z 2M 1M' -c 'write -q -z -u 3M 64k' m.qcow2
for o in foo=1 cluster_size=4k compat=0.10 compat=0.9 compat=v3 compat=0.10,refcount_bits=8 refcount_bits=8 \
	refcount_bits=7 refcount_bits=128 refcount_bits=1 refcount_bits=64 lazy_refcounts=on size=8M size=1 size=32M \
	data_file=x data_file_raw=on preallocation=full encryption=on compression_type=zstd extended_l2=on \
	lazy_refcounts=on,compat=0.10 size=32M,compat=0.10 lazy_refcounts=on,refcount_bits=2,size=20M; do
	both m.qcow2 -o "$o"
done
both m.qcow2
both m.qcow2 -f qcow2 --force -q -o size=16M
make lazy.qcow2 16M -o lazy_refcounts=on
for o in compat=0.10 compat=0.10,lazy_refcounts=off refcount_bits=8 lazy_refcounts=off; do both lazy.qcow2 -o $o; done
make v2.qcow2 16M -o compat=0.10
qemu-io -c 'write -q -P 3 1M 3M' v2.qcow2
for o in lazy_refcounts=on refcount_bits=8 compat=1.1,lazy_refcounts=on,refcount_bits=4 compat=1.1; do both v2.qcow2 -o $o; done
qemu-img snapshot -c a v2.qcow2
both v2.qcow2 -o compat=0.10
cp v2.qcow2 a.qcow2
both a.qcow2 -o size=32M
both v2.qcow2 -o compat=1.1
both v2.qcow2 -o size=32M
make w8.qcow2 16M -o refcount_bits=8
both w8.qcow2 -o compat=0.10
both w8.qcow2 -o compat=0.10,refcount_bits=16
make x.qcow2 16M -o extended_l2=on
both x.qcow2 -o compat=0.10
make d.qcow2 16M -o data_file=d.raw
cp d.raw other.raw
for o in compat=0.10 data_file=other.raw data_file_raw=on; do both d.qcow2 -o $o; done
make z.qcow2 16M -o compression_type=zstd
both z.qcow2 -o compat=0.10
qemu-io -c 'write -q -c 0 64k' z.qcow2
both z.qcow2 -o compat=0.10
make s.qcow2 16M
qemu-io -c 'write -q -P 3 1M 3M' s.qcow2
for i in 1 2 3 4; do qemu-img snapshot -c s$i s.qcow2; done
both s.qcow2 -o refcount_bits=2
both s.qcow2 -o refcount_bits=4
both s.qcow2 -o compat=0.10
qemu-img resize -q s.qcow2 32M
both s.qcow2 -o compat=0.10
truncate -s 1M a.raw
same_text amend -f raw -o size=1M a.raw
same_text amend -f raw -o help
same_text amend -o size=1M
imgtool amend -f qcow2 -o help >out
expect_output out "Amend options for 'qcow2':" \
	"  refcount_bits=<num>    - Width of a reference count entry in bits"
imgtool amend -o help m.qcow2 | diff - out

# Zero clusters above a backing file become data, in the disk and in its snapshots (qemu-img 7.2
# leaves flags that its own check calls wrong, so it is no model here).
qemu-img create -q -f raw b.raw 16M
qemu-io -f raw -c 'write -q -P 9 0 16M' b.raw
make bk.qcow2 16M -F raw -b b.raw
qemu-io -c 'write -q -P 3 1M 3M' -c 'write -q -z 2M 1M' -c 'write -q -z 10M 1M' bk.qcow2
qemu-img snapshot -c a bk.qcow2
qemu-io -c 'write -q -z 1M 64k' -c 'write -q -P 8 2M 64k' bk.qcow2
cp bk.qcow2 n.qcow2
imgtool amend -p -o compat=0.10 n.qcow2 >out
grep -q '(100.00/100%)' out || fail "no progress"
sound bk.qcow2 n.qcow2
qemu-img convert -l a -O raw bk.qcow2 before.raw
qemu-img convert -l a -O raw n.qcow2 after.raw
same_bytes before.raw after.raw
[ "$(facts n.qcow2 | head -n 3 | grep -c 'compat: 0.10')" -le 1 ] && qemu-img info n.qcow2 | grep -q 'compat: 0.10'

# The older syntax for what is now rebase -u.
imgtool amend -o backing_file=,compat=1.1 n.qcow2
qemu-img info n.qcow2 >out
if grep -q backing out; then fail "the backing file is still named"; fi
imgtool amend -o backing_file=b.raw,backing_fmt=raw n.qcow2
sound bk.qcow2 n.qcow2
# Bitmaps are not lost in passing.
qemu-img bitmap --add m.qcow2 map
cp m.qcow2 n.qcow2
expect_status 1 imgtool amend -o compat=0.10 n.qcow2
expect_output err "Cannot downgrade an image with bitmaps"
same_bytes m.qcow2 n.qcow2
