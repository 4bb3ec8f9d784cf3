#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# commit: the base reads as the overlay did, the overlay is empty or not, words as qemu-img's.
. "$IMGFS_SRCDIR/tests/functions.sh"
. "$IMGFS_SRCDIR/tests/agree.sh"
requires_qemu

# chain BASE-FORMAT OPTIONS: base, mid.qcow2 and top.qcow2 of 8 MiB, and what top reads as.
chain() {
	local cluster=64k
	case $2 in *cluster_size=*) cluster=${2#*cluster_size=} cluster=${cluster%%,*} ;; esac
	rm -f base ./*.qcow2 want.raw
	random_data 3 5242880 >base.raw
	qemu-img convert -f raw -O "$1" base.raw base
	qemu-img resize -q -f "$1" base 8M
	qemu-img create -q -f qcow2 -o "$2" -b base -F "$1" mid.qcow2
	qemu-io -c 'write -P 9 0 3M' -c 'write -P 8 6M 100k' mid.qcow2 >/dev/null
	qemu-img create -q -f qcow2 -o "$2" -b mid.qcow2 -F qcow2 top.qcow2
	qemu-io -c 'write -P 5 12345 700000' -c 'write -P 6 7M 1M' -c 'write -z 2M 512k' \
		-c "write -c -P 4 4M $cluster" -c 'discard 5M 256k' top.qcow2 >/dev/null
	qemu-img convert -O raw top.qcow2 want.raw
}
reads_as() { qemu-img compare -q -f "$2" -F raw "$1" "$3" || fail "$1 does not read as $3"; }
sound() {
	local f
	for f in "$@"; do qemu-img check -q "$f" >&2 || fail "qemu-img check finds $f unsound"; done
}

for options in cluster_size=64k compat=0.10,cluster_size=4k cluster_size=512 \
	cluster_size=128k,extended_l2=on lazy_refcounts=on refcount_bits=64,cluster_size=2M; do
	chain qcow2 "$options"
	had=$(stat -c %b top.qcow2)
	imgtool commit top.qcow2 >out || fail "commit: status $?"
	expect_output out 'Image committed.'
	sound top.qcow2 mid.qcow2
	reads_as mid.qcow2 qcow2 want.raw
	reads_as top.qcow2 qcow2 want.raw
	# All of it shows the backing file.
	imgtool map --output=json top.qcow2 | grep -q '"depth": 0.*"data": true' && fail "top was not emptied"
	[ "$(stat -c %b top.qcow2)" -lt $((had - 2048)) ] || fail "the host did not get the space back"
	# The file is as short as qemu-img leaves it, but for version 2, where that leaves it long.
	chain qcow2 "$options"
	ours=$(imgtool commit -q top.qcow2 && stat -c %s top.qcow2)
	chain qcow2 "$options"
	qemu-img commit -q top.qcow2
	case $options in
	*compat=0.10*) [ "$ours" -eq 16384 ] ;;
	*) [ "$ours" -eq "$(stat -c %s top.qcow2)" ] ;;
	esac || fail "$options: the emptied overlay has $ours bytes"

	chain qcow2 "$options"
	cp top.qcow2 before
	imgtool commit -q -b base top.qcow2 >out || fail "commit -b: status $?"
	[ ! -s out ] || fail "-q said something"
	sound base
	reads_as base qcow2 want.raw
	cmp before top.qcow2 || fail "-b changed the overlay"
done

# A raw base; -d; a limit; progress.
chain raw cluster_size=64k
imgtool commit -b base top.qcow2 >out || fail "commit to raw: status $?"
reads_as base raw want.raw
chain raw cluster_size=64k
cp mid.qcow2 before
qemu-img convert -O raw mid.qcow2 want.raw
imgtool commit -p -d -r 1G -t none mid.qcow2 >out || fail "commit -d: status $?"
expect_output out '(100.00/100%)' 'Image committed.'
cmp before mid.qcow2 || fail "-d changed the overlay"
reads_as base raw want.raw

# Snapshots of both stay what they are.
chain qcow2 cluster_size=64k
qemu-img snapshot -c in-mid mid.qcow2
qemu-img snapshot -c in-top top.qcow2
qemu-io -c 'write -P 77 0 2M' top.qcow2 >/dev/null
for i in mid top; do qemu-img convert -l snapshot.name=in-$i -O raw $i.qcow2 $i.want; done
qemu-img convert -O raw top.qcow2 want.raw
imgtool commit top.qcow2 >out || fail "with snapshots: status $?"
sound top.qcow2 mid.qcow2
reads_as mid.qcow2 qcow2 want.raw
qemu-img convert -l snapshot.name=in-mid -O raw mid.qcow2 got
same_bytes mid.want got
# The overlay's snapshot reads through the base, which is another now: as with qemu-img.
qemu-img check -q top.qcow2 || fail "top is unsound"

# A base that is shorter becomes as long; one that is longer stays.
for base in raw qcow2; do
	chain $base cluster_size=64k
	qemu-img create -q -f qcow2 -b base -F $base long.qcow2 12M
	qemu-io -c 'write -P 1 11M 64k' long.qcow2 >/dev/null
	qemu-img convert -O raw long.qcow2 want.raw
	imgtool commit long.qcow2 >out || fail "a shorter base: status $?"
	reads_as base $base want.raw
	reads_as long.qcow2 qcow2 want.raw
	chain $base cluster_size=64k
	qemu-img create -q -f qcow2 -b base -F $base short.qcow2 6M
	qemu-io -c 'write -P 1 5M 1M' short.qcow2 >/dev/null
	imgtool commit short.qcow2 >out || fail "a longer base: status $?"
	[ "$(qemu-img info --output=json base | sed -n 's/.*"virtual-size": \([0-9]*\).*/\1/p' | head -1)" = 8388608 ] ||
		fail "the longer base changed its size"
done

# Words and statuses of what goes wrong.
chain qcow2 cluster_size=64k
same_text commit
same_text commit a b
same_text commit base
same_text commit -b nope top.qcow2
same_text commit -b top.qcow2 top.qcow2
same_text commit -t bogus top.qcow2
same_text commit -f bogus top.qcow2
same_text commit -r 10x top.qcow2
# Somebody else has the base open for writing: refused, and nothing is changed.
cp base before
cp mid.qcow2 mid.before
qemu-io -c 'sleep 60000' base &
sleep 0.3
expect_status 1 imgtool commit mid.qcow2
expect_output err 'lock' base
kill $!
wait 2>/dev/null
same_bytes base before
same_bytes mid.qcow2 mid.before
