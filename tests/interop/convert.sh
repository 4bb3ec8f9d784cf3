#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# convert -O qcow2 beside qemu-img: identical contents, clean for both checkers, the same for info,
# and not larger than by a twentieth. IMGFS_LONG=1: from every source in both ways.
. "$IMGFS_SRCDIR/tests/functions.sh"
. "$IMGFS_SRCDIR/tests/agree.sh"
requires_qemu

qemu-img create -q -f qcow2 base.qcow2 6M
random_data 1 1000000 >noise
head -c 1500000 "$(type -P bash)" >text
qemu-io -c 'write -s noise 64k 999936' -c 'write -s text 2M 1499648' -c 'write -P 0 4M 256k' \
	-c 'write -P 3 5000k 5k' -c 'write -z 5M 128k' base.qcow2 >/dev/null
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2 7000000
qemu-io -c 'write -P 7 1M 64k' -c 'write -z 2M 128k' -c 'write -P 9 3000k 3k' -c 'write -P 1 6800k 20k' \
	top.qcow2 >/dev/null
qemu-img snapshot -c before base.qcow2 && qemu-io -c 'write -P 5 100k 1M' base.qcow2 >/dev/null
qemu-img convert -c -O qcow2 top.qcow2 coded.qcow2
qemu-img convert -O raw top.qcow2 flat.raw
qemu-img create -q -f qcow2 -o cluster_size=4k small.qcow2 1001k
qemu-io -c 'write -s text 3k 700k' -c 'write -z 900k 50k' small.qcow2 >/dev/null

# made WORDS... SOURCE...
made() {
	rm -f ./{i,q}.{qcow2,data}
	imgtool convert -O qcow2 "${@//%/i}" i.qcow2 || fail "convert $*"
	qemu-img convert -O qcow2 "${@//%/q}" q.qcow2
	qemu-img check -q i.qcow2 || fail "convert $*: check"
	imgtool check -q i.qcow2 || fail "convert $*: imgtool check"
	qemu-img compare -q i.qcow2 q.qcow2 || fail "convert $*: other contents"
	for x in i q; do
		qemu-img info --output=json $x.qcow2 | sed "s/$x\.\(qcow2\|data\)/x.\1/" |
			grep -v '"actual-size"' >$x.info
	done
	json_eq q.info i.info
	local i q
	i=$(stat -c %b i.qcow2) q=$(stat -c %b q.qcow2)
	[ $((i * 20)) -le $((q * 21 + 20 * 128)) ] || fail "convert $*: $i blocks, qemu-img's $q"
}

turn=0
for source in base.qcow2 top.qcow2 coded.qcow2 flat.raw "-l before base.qcow2" \
	"base.qcow2 small.qcow2 top.qcow2" "small.qcow2 flat.raw"; do
	for o in "" -c; do
		turn=$((turn + 1))
		[ $((turn % 3)) -eq 1 ] || long_mode || continue
		# shellcheck disable=SC2086
		made $o $source
	done
done
for o in $(some +compat=0.10 +cluster_size=512 +cluster_size=2M cluster_size=4k,refcount_bits=1 \
	refcount_bits=64 extended_l2=on +extended_l2=on,cluster_size=16k lazy_refcounts=on \
	+compression_type=zstd); do
	! long_mode || made -o "$o" top.qcow2
	made -c -o "$o" top.qcow2
done
made -o preallocation=metadata top.qcow2
made -o preallocation=falloc top.qcow2
made -o preallocation=full coded.qcow2
made -o data_file=%.data top.qcow2
made -o data_file=%.data,data_file_raw=on top.qcow2
made -S 0 top.qcow2
made -S 64k top.qcow2
made -m 1 -S 512 base.qcow2
made -W -m 16 top.qcow2
made -C flat.raw
made -t none -T none top.qcow2
made -t writethrough small.qcow2

# Onto the same backing file: what only it describes is not copied.
made -B base.qcow2 -F qcow2 top.qcow2
[ "$(stat -c %b i.qcow2)" -le "$(stat -c %b q.qcow2)" ] || fail "convert -B copied more than qemu-img"
qemu-img convert -O raw base.qcow2 base.raw
made -B base.raw -F raw top.qcow2
made -B base.raw -F raw -o compat=0.10 top.qcow2
made -c -B base.raw -F raw top.qcow2
made -B base.raw -F raw -o cluster_size=2M top.qcow2
made -B base.raw -F raw -o extended_l2=on top.qcow2
made -o backing_file=base.qcow2,backing_fmt=qcow2 top.qcow2
# A source without one, onto a longer disk of other bytes: its zeroes must hide them.
made -B base.raw -F raw small.qcow2
made -B base.raw -F raw -o compat=0.10 small.qcow2
qemu-img create -q -f raw short.raw 100k
made -B short.raw -F raw flat.raw

# Into an image that is there and full of other bytes.
for o in "" -o\ compat=0.10 -o\ extended_l2=on; do
	# shellcheck disable=SC2086
	qemu-img create -q -f qcow2 $o there.qcow2 8M
	qemu-io -c 'write -P 0x55 0 8M' there.qcow2 >/dev/null
	imgtool convert -n -O qcow2 top.qcow2 there.qcow2
	qemu-img check -q there.qcow2
	qemu-io -r -c "read -P 0x55 7000064 1000k" there.qcow2 | grep -q 'Pattern' && fail "wrote past the source's end"
	qemu-img convert -O raw there.qcow2 there.raw
	cmp -n 7000000 there.raw flat.raw || fail "convert -n: other contents"
done
qemu-img create -q -f qcow2 there.qcow2 8M
imgtool convert -n --target-is-zero -O qcow2 top.qcow2 there.qcow2
qemu-img compare -q there.qcow2 top.qcow2
imgtool convert -c -n -O qcow2 coded.qcow2 there.qcow2
qemu-img check -q there.qcow2
qemu-img compare -q there.qcow2 top.qcow2
imgtool convert -n --target-image-opts base.qcow2 driver=qcow2,file.filename=there.qcow2
qemu-img check -q there.qcow2

# Bitmaps.
qemu-img bitmap --add top.qcow2 b0
qemu-img bitmap --add -g 4096 --disable top.qcow2 b1
qemu-io -c 'write 3M 100k' top.qcow2 >/dev/null
made --bitmaps top.qcow2
qemu-img bitmap --remove top.qcow2 b0 && qemu-img bitmap --remove top.qcow2 b1

# Refusals, in qemu-img's words, and nothing made.
for words in "-c -O raw top.qcow2" "-c -O qcow2 -o preallocation=metadata top.qcow2" \
	"-B base.qcow2 -F qcow2 -O qcow2 top.qcow2 top.qcow2" "-F raw -O qcow2 top.qcow2" \
	"-B base.qcow2 -O raw top.qcow2" "--bitmaps -O raw top.qcow2" "--bitmaps -O qcow2 flat.raw" \
	"--bitmaps -O qcow2 -o compat=0.10 top.qcow2" "-o cluster_size=3 -O qcow2 top.qcow2" \
	"-o foo=3 -O qcow2 top.qcow2" "-O nosuch top.qcow2" "--bitmaps -O qcow2 top.qcow2 top.qcow2"; do
	rm -f o.img
	# shellcheck disable=SC2086
	same_text convert $words o.img
	rm -f o.img # qemu-img leaves some
	# shellcheck disable=SC2086
	expect_status 1 imgtool convert $words o.img
	[ ! -e o.img ] || fail "convert $words left a file"
done
