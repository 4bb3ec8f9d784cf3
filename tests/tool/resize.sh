#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# resize: sizes, refusals and words of qemu-img, and what is in the file afterwards.
. "$IMGFS_SRCDIR/tests/functions.sh"
. "$IMGFS_SRCDIR/tests/agree.sh"
requires_qemu

# both FORMAT WORDS...: the same change to q.img and i.img, by qemu-img and imgtool.
both() {
	local q=0 i=0 img=$1
	shift
	qemu-img resize "${@//IMG/q.$img}" >q.out 2>q.err || q=$?
	imgtool resize "${@//IMG/i.$img}" >i.out 2>i.err || i=$?
	sed -i "s/q\.$img/i.$img/g" q.err
	agree_err q.err i.err
	[ $q -eq $i ] || fail "resize $*: status $i, qemu-img's $q: $(cat i.err)"
	diff -u q.out i.out >&2 && diff -u q.err i.err >&2 || fail "resize $*: other text than qemu-img's"
	cmp "q.$img" "i.$img" >&2 || fail "resize $*: other content"
	[ $(($(stat -c %b "q.$img") - $(stat -c %b "i.$img"))) -eq 0 ] || fail "resize $*: other space"
}

random_data 1 1048576 >q.raw
cp q.raw i.raw
both raw -f raw IMG 3M
both raw -f raw IMG +0
both raw -f raw IMG +1k
both raw -f raw IMG -- -1k
both raw -f raw IMG -1M
both raw -f raw --shrink IMG -1M
both raw IMG +1.5k
both raw -f raw --shrink IMG 1025
both raw --preallocation=falloc -f raw IMG 2M
both raw --preallocation full -f raw IMG +1M
both raw --preallocation=off -q -f raw IMG +1M
both raw --preallocation=metadata -f raw IMG +1M
both raw --preallocation=foo -f raw IMG +1M
both raw --preallocation=full -f raw --shrink IMG 1M
for size in foo "" + - +-1M 1.5 1x 16E 8E 15E +8E -100M 0 -0 0x200000 " 9M"; do
	both raw -f raw IMG "$size"
done
both raw --image-opts driver=raw,offset=512,file.filename=IMG +1M
both raw --image-opts driver=raw,size=4096,file.filename=IMG +1M
both raw -f foo IMG 1M
both raw --image-opts -f raw IMG 1M
for words in "" x.raw "-q x.raw" "a b c" "-q nosuch 1M" "-f raw nosuch +1M"; do
	# shellcheck disable=SC2086
	same_text resize $words
done
# Space that cannot be had: the old size stays.
before=$(stat -c %s i.raw)
expect_status 1 imgtool resize --preallocation=falloc -f raw i.raw 1E
one_sentence err imgtool "resize"
[ "$(stat -c %s i.raw)" -eq "$before" ] || fail "a failed resize left another size"
# Somebody else writes: refused, and nothing is changed.
qemu-io -f raw -c 'sleep 5000' i.raw &
sleep 0.3
expect_status 1 imgtool resize -f raw i.raw +1M
expect_output err 'Failed to get' i.raw
kill $!
[ "$(stat -c %s i.raw)" -eq "$before" ] || fail "a refused resize left another size"
