#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# convert from a pipe and to one: raw and qcow2.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_qemu

export TMPDIR=$PWD/spool
mkdir spool
qemu-img create -q -f qcow2 a.qcow2 5000k
random_data 1 700000 >noise
qemu-io -c 'write -s noise 100k 699904' -c 'write -P 5 3M 5k' a.qcow2 >/dev/null
qemu-img convert -O raw a.qcow2 want.raw

# To a pipe.
imgtool convert -O raw a.qcow2 - | cat >out.raw
same_bytes want.raw out.raw
imgtool convert a.qcow2 - >out.raw
same_bytes want.raw out.raw
for o in "" -c "-o cluster_size=4k,compression_type=zstd -c" "-o preallocation=metadata"; do
	# shellcheck disable=SC2086
	imgtool convert -O qcow2 $o a.qcow2 - | cat >out.qcow2
	qemu-img check -q out.qcow2
	qemu-img compare -q out.qcow2 want.raw || fail "convert $o to a pipe: other contents"
done
imgtool convert -O qcow2 -B "$PWD/want.raw" -F raw a.qcow2 - | cat >out.qcow2
qemu-img compare -q out.qcow2 want.raw
imgtool convert a.qcow2 a.qcow2 - | cat >out.raw
cat want.raw want.raw | cmp - out.raw

# From one, and from a file that is put in its place.
for f in want.raw a.qcow2; do
	cat $f | imgtool convert -O raw - out.raw
	same_bytes want.raw out.raw
	imgtool convert -O qcow2 - out.qcow2 <$f
	qemu-img compare -q out.qcow2 want.raw
done
head -c 1000 noise | imgtool convert -f raw -O raw - out.raw
cmp -n 1000 noise out.raw
head -c 0 noise | imgtool convert -f raw -O raw - out.raw
[ ! -s out.raw ] || fail "bytes out of an empty pipe"
# Holes stay holes, on the way through, too.
head -c 50M /dev/zero | imgtool convert -f raw -O raw - out.raw
[ "$(stat -c '%s %b' out.raw)" = "52428800 0" ] || fail "zeroes of a pipe take space"
# All the way.
cat a.qcow2 | imgtool convert -c -O qcow2 - - | imgtool convert -O raw - - | cmp - want.raw

# What cannot be, and what fails.
expect_status 1 imgtool convert - - out.raw </dev/null
expect_output err "only once"
expect_status 1 imgtool convert -p a.qcow2 -
expect_status 1 imgtool convert -n a.qcow2 -
expect_status 1 imgtool convert -O qcow2 -o data_file=d.raw a.qcow2 -
expect_status 1 imgtool convert -O qcow2 -B want.raw -F raw a.qcow2 -
expect_output err "absolute"
status=0
{ imgtool convert a.qcow2 - 2>err || echo $? >status; } | head -c 10 >/dev/null
[ "$(cat status)" = 1 ] || fail "a closed pipe is no error"
expect_output err "Broken pipe"
cp a.qcow2 short.qcow2
truncate -s 400k short.qcow2
expect_status 1 imgtool convert -O qcow2 short.qcow2 -
[ ! -s out ] || fail "a failed convert to qcow2 sent something"
expect_status 1 imgtool convert -O raw short.qcow2 -
expect_output err "error while reading"
expect_status 1 imgtool convert -f qcow2 -O raw - out2.raw </dev/null
[ ! -e out2.raw ] || fail "a failed convert left a file"
[ -z "$(ls spool)" ] || fail "temporary files are left"
