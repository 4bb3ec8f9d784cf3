#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# discard= and detect-zeroes=: the words and refusals of qemu-img, and what qemu-io's writes and
# discards do with them to an image's map.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_qemu
io=$IMGFS_BUILDDIR/tests/imgio

# ---- words

qemu-img create -q -f qcow2 words.qcow2 16M
for words in discard=off discard=ignore discard=on discard=unmap discard= discard=maybe \
	detect-zeroes=off detect-zeroes=on detect-zeroes=unmap detect-zeroes= detect-zeroes=yes \
	discard=ignore,detect-zeroes=unmap discard=on,detect-zeroes=unmap file.discard=no \
	discard=unmap,file.discard=ignore,detect-zeroes=unmap; do
	for program in qemu-img imgtool; do
		status=0
		$program info --image-opts "driver=qcow2,file.filename=words.qcow2,$words" \
			>$program.out 2>$program.err || status=$?
		sed -i "s/^$program: //" $program.err
		echo "status $status" >>$program.err
	done
	same_bytes qemu-img.err imgtool.err
done
expect_status 1 imgtool info \
	'json:{"driver":"qcow2","file.filename":"words.qcow2","detect-zeroes":"unmap"}'
expect_output err "setting detect-zeroes to unmap is not allowed without setting discard operation"

# ---- what they do

# start FORMAT FILE: 16 MiB, of which the first four hold data.
start() {
	rm -f "$2"
	qemu-img create -q -f "$1" "$2" 16M
	qemu-io -f "$1" -c 'write -P 1 0 4M' "$2" >/dev/null
}
# map FORMAT FILE: where there is data, and where zeroes.
map() {
	qemu-img map --output=json -f "$1" "$2" | python3 -c 'import json, sys
runs = []
for e in json.load(sys.stdin):
    if runs and runs[-1][1] == e["data"]: runs[-1][2] += e["length"]
    else: runs.append([e["start"], e["data"], e["length"]])
print(runs)'
}
# both FORMAT OPTIONS: the same done by imgio and by qemu-io.
both() {
	local format=$1 options=$2 json
	json=$(sed 's/\([^=,]*\)=\([^,]*\)/, "\1": "\2"/g; s/,,/,/g' <<<"$options")
	start "$format" ours.img
	cp ours.img theirs.img
	"$io" "json:{\"driver\": \"$format\", \"file.filename\": \"ours.img\"$json}" \
		'discard 0 512k' 'write 1M 512k 0' 'write 1600k 64k 0' 'write 1700k 4k 0' \
		'unmap 2M 512k' 'write 2M 64k 7' 'write 8M 64k 0' 'write 9M 64k 5' >/dev/null
	qemu-io --image-opts -c 'discard 0 512k' -c 'write -P 0 1M 512k' -c 'write -P 0 1600k 64k' \
		-c 'write -P 0 1700k 4k' -c 'write -zu 2M 512k' -c 'write -P 7 2M 64k' \
		-c 'write -P 0 8M 64k' -c 'write -P 5 9M 64k' \
		"driver=$format,file.filename=theirs.img,$options" >/dev/null
	[ "$(map "$format" ours.img)" = "$(map "$format" theirs.img)" ] ||
		fail "$format $options: $(map "$format" ours.img), qemu: $(map "$format" theirs.img)"
	qemu-img compare -q -f "$format" -F "$format" ours.img theirs.img || fail "$format $options"
	if [ "$format" = qcow2 ]; then
		qemu-img check -q ours.img || fail "$format $options: check"
	fi
}
for format in raw qcow2; do
	for options in discard=ignore discard=unmap detect-zeroes=off detect-zeroes=on \
		discard=ignore,detect-zeroes=on discard=unmap,detect-zeroes=on \
		discard=unmap,detect-zeroes=unmap; do
		both $format $options
	done
done

# Space of the host: goes with unmap, stays with on.
used() { stat -c %b "$1"; }
start raw space.img
before=$(used space.img)
"$io" 'json:{"driver": "raw", "file.filename": "space.img", "detect-zeroes": "on"}' \
	'write 0 1M 0' >/dev/null
[ "$(used space.img)" -eq "$before" ] || fail "detect-zeroes=on gave space back"
"$io" 'json:{"driver": "raw", "file.filename": "space.img", "discard": "unmap",
	"detect-zeroes": "unmap"}' 'write 2M 1M 0' >/dev/null
[ "$(used space.img)" -le $((before - 2048)) ] || fail "detect-zeroes=unmap gave no space back"

# Zeroes inside of a longer write are found, by whole clusters; the rest is written.
qemu-img create -q -f raw mixed.raw 4M
random_data mixed 300000 | dd of=mixed.raw bs=64k seek=17 conv=notrunc status=none
poke mixed.raw 0x3f000 7a
start qcow2 mixed.qcow2
imgtool convert -n -S 0 -f raw --target-image-opts mixed.raw \
	driver=qcow2,file.filename=mixed.qcow2,discard=unmap,detect-zeroes=unmap
qemu-img compare -q -f raw -F qcow2 mixed.raw mixed.qcow2 || fail "the bytes are wrong"
[ "$(map qcow2 mixed.qcow2)" = "[[0, False, 196608], [196608, True, 65536], \
[262144, False, 851968], [1114112, True, 327680], [1441792, False, 15335424]]" ] ||
	fail "zeroes inside of long writes: $(map qcow2 mixed.qcow2)"
