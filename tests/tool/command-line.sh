#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Wrong command lines end with qemu-img's words and status.
. "$IMGFS_SRCDIR/tests/functions.sh"
. "$IMGFS_SRCDIR/tests/agree.sh"
requires_qemu

qemu-img create -q -f qcow2 a.qcow2 1M
same_text
same_text foo
same_text -x info
for cmd in info map check bench snapshot resize; do
	same_text $cmd
	same_text $cmd a b
done
same_text info -Z a.qcow2
same_text info --bogus a.qcow2
same_text info --output
same_text info --output=x a.qcow2
same_text info --image-opts -f raw a.qcow2
same_text check -r foo a.qcow2
same_text compare a
same_text convert
same_text convert a
same_text dd
same_text dd if=a
same_text dd if=a of=b foo=c
same_text dd if=a of=b bs=0
same_text dd if=a of=b bs=1x
same_text measure
same_text measure a b
same_text measure --size 1 a
same_text measure --size 1 -f raw
same_text measure --size 1x
same_text measure -O foo --size 1
same_text snapshot -l -c x a.qcow2
for words in "-S 3" "-S 1x" "-m 0" "-m 17" "-t foo" "-T foo" --target-is-zero "-c -C" "-C -S 4k" \
	-c --bitmaps --skip-broken-bitmaps "-r 1x" "-o foo=1" "-n -o preallocation=off" "-B x" \
	"-l none" "-O foo"; do
	# shellcheck disable=SC2086
	same_text convert $words a.qcow2 o.raw
	rm -f o.raw # some versions of qemu-img leave it
	imgtool convert $words a.qcow2 o.raw 2>/dev/null && fail "convert $words: status 0"
	[ ! -e o.raw ] || fail "convert $words left a target"
done
for words in "-c x" "-i foo" "-t foo" "-s 1x" "-S x" "-d x" --pattern=256 --flush-interval=1; do
	# shellcheck disable=SC2086
	same_text bench $words a.qcow2
done
# --object is looked at before anything is opened, by every command in the same place.
printf secret >pw
for object in secret,id=a,data=b secret,id=a secret,data=b foo secret secret,id=a,data=b,x=1 \
	secret,id=a,file=pw secret,id=a,data=YQ==,format=base64 secret,id=a,data=b,format=x "" id=a \
	qom-type=secret,id=a,data=b '{"qom-type":"secret","id":"a","data":"b"}' secret,id=1a,data=b; do
	same_text info --object "$object" -f qcow2 --output=json nosuch
	same_text check --object "$object" nosuch
done
expect_status 1 imgtool info --object secret,id=a,file=nosuch a.qcow2
expect_output err "Unable to read nosuch"
# A name that is nearly one is suggested, except under qemu-img's name.
expect_status 1 imgtool inof
expect_output err "Command not found: inof" "Did you mean 'info'?"
# Missing files and directories: one sentence, nothing else.
expect_status 1 imgtool info nosuch
one_sentence err imgtool nosuch
expect_status 1 imgtool map .
expect_status 2 imgtool compare nosuch a.qcow2
expect_status 1 imgtool convert a.qcow2 nodir/o.raw
