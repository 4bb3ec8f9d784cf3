#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Zeroes and discards in parts of clusters: after the same operations by qemu-io and by us,
# qemu-img map says the same of both images, as to what is there, zero, and has a place.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_qemu
io=$IMGFS_BUILDDIR/tests/imgio
truncate -s 1M base.raw
qemu-io -f raw -c "write -P 9 0 700k" base.raw >/dev/null

# as_qemu OPERATION: the same for qemu-io
as_qemu() {
	local op
	read -ra op <<<"$1"
	case ${op[0]} in
	write) echo "write -P ${op[3]} ${op[1]} ${op[2]}" ;;
	zero) echo "write -z ${op[1]} ${op[2]}" ;;
	unmap) echo "write -z -u ${op[1]} ${op[2]}" ;;
	*) echo "$1" ;;
	esac
}
# Where a new cluster lies is each one's own business.
map_of() {
	qemu-img map --output=json "$1" | sed -E '/"depth": 0/s/"offset": [0-9]+/"offset": 0/'
}
same() {
	local commands=() op
	cp new.qcow2 a.qcow2
	cp new.qcow2 b.qcow2
	for op; do commands+=(-c "$(as_qemu "$op")"); done
	qemu-io -f qcow2 "${commands[@]}" a.qcow2 >/dev/null
	"$io" -f qcow2 b.qcow2 "$@"
	map_of a.qcow2 >a.map
	map_of b.qcow2 >b.map
	diff a.map b.map || fail "$how: $*: the maps differ"
	qemu-img compare -q a.qcow2 b.qcow2 || fail "$how: $*: the contents differ"
	expect_clean b.qcow2
}
expect_clean() {
	qemu-img check -q "$1" || fail "$how: check"
	imgtool check -q "$1" || fail "$how: our check"
}

operations() {
	same "zero 0 64k"
	same "unmap 0 64k"
	same "unmap 32k 512k"
	same "zero 4k 4k"
	same "zero 900k 124k"
	same "zero 901k 123k"
	same "write 0 128k 1" "zero 4k 4k"
	same "write 0 128k 1" "unmap 4k 4k"
	same "write 0 128k 1" "unmap 0 64k"
	same "write 0 128k 1" "zero 0 64k"
	same "write 0 128k 1" "zero 0 64k" "unmap 0 64k"
	same "write 0 128k 1" "zero 0 512k"
	same "write 0 128k 1" "zero 0 32k" "zero 32k 64k"
	same "write 0 128k 1" "unmap 0 32k" "unmap 32k 32k"
	same "write 0 128k 1" "unmap 5k 192k"
	same "write 0 128k 1" "zero 3k 6k" "write 4k 1k 2" "unmap 4k 1k"
	# Of a new cluster without subclusters qemu writes the rest; we leave a hole in the file.
	case $how in *extended*) same "write 8k 8k 1" "unmap 5k 150k" ;; esac
	same "write 0 128k 1" "discard 0 192k"
	same "write 0 128k 1" "discard 960k 64k"
	same "write 0 128k 1" "zero 0 32k" "discard 0 64k"
}
for how in cluster_size=64k cluster_size=64k,extended_l2=on; do
	qemu-img create -q -f qcow2 -o "$how" new.qcow2 1M
	operations
	how+=,backed
	qemu-img create -q -f qcow2 -o "${how%,backed}" -b base.raw -F raw new.qcow2 1M
	operations
done

# A discard of subclusters is more than qemu does: they read as zeroes, and the cluster is free
# when the last one is gone, but never one that a snapshot has too, nor a compressed one.
how=discard
qemu-img create -q -f qcow2 -o extended_l2=on a.qcow2 1M
"$io" a.qcow2 "write 0 192k 1" "discard 1k 6k" "read 0 2k 1" "read 2k 4k 0" "read 6k 122k 1" \
	"discard 0 48k" "discard 48k 16k" "read 0 64k 0" "read 64k 64k 1"
expect_clean a.qcow2
python3 -c 'import json,sys; e = json.load(sys.stdin)[0]
assert e["length"] == 65536 and e["zero"] and "offset" not in e, e' < <(imgtool map --output=json a.qcow2)
qemu-img snapshot -c s a.qcow2
"$io" a.qcow2 "discard 64k 2k" "zero 66k 2k" "unmap 128k 4k" "read 64k 4k 0" "read 68k 60k 1" \
	"write 64k 1k 3" "read 65k 3k 0" "read 68k 4k 1"
expect_clean a.qcow2
qemu-img convert -l s -O raw a.qcow2 s.raw
cmp <(head -c 64k /dev/zero; head -c 128k /dev/zero | tr '\0' '\1') <(head -c 192k s.raw)
"$io" a.qcow2 "coded 256k 5" "discard 256k 2k" "read 256k 64k 5" "zero 256k 2k" "read 256k 2k 0" \
	"read 258k 62k 5" "coded 256k 6" "discard 256k 64k" "read 256k 64k 0"
expect_clean a.qcow2
