#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# measure beside qemu-img: raw and qcow2, of a size and of images, with random options.
# IMGFS_MEASURE_ROUNDS=1000 IMGFS_MEASURE_SEED=2 for a longer run.
. "$IMGFS_SRCDIR/tests/functions.sh"
. "$IMGFS_SRCDIR/tests/agree.sh"
requires_qemu

qemu-img create -q -f qcow2 a.qcow2 70000k
same_text measure --size 1G
same_text measure --size 1
same_text measure -O raw a.qcow2
same_json measure --output=json --size 1.5k
same_json measure --output=json -f qcow2 a.qcow2
expect_status 1 imgtool measure -l nosuch a.qcow2

qemu-io -c 'write 1M 1M' -c 'write 5000k 4k' -c 'write -z 7M 1M' -c 'write -z 1500k 12k' a.qcow2 >/dev/null
qemu-img snapshot -c before a.qcow2
qemu-io -c 'write 9M 3M' a.qcow2 >/dev/null
qemu-img bitmap --add a.qcow2 b0
qemu-img bitmap --add -g 4096 a.qcow2 'a longer name'
qemu-img create -q -f qcow2 -o preallocation=metadata p.qcow2 3M
qemu-io -c 'write 1000k 70k' p.qcow2 >/dev/null
qemu-img convert -c -O qcow2 a.qcow2 c.qcow2
qemu-img create -q b.raw 3000k
qemu-io -f raw -c 'write 0 100k' -c 'write 2500k 9k' b.raw >/dev/null
qemu-img create -q -f qcow2 -b b.raw -F raw o.qcow2 5M
qemu-io -c 'write 1M 4k' -c 'write -z 0 64k' o.qcow2 >/dev/null
for words in a.qcow2 "-l before a.qcow2" p.qcow2 c.qcow2 o.qcow2 "-f raw b.raw" \
	"-o backing_file=b.raw,backing_fmt=raw o.qcow2" "-o preallocation=falloc o.qcow2" \
	"-o compat=0.10 a.qcow2" "-o data_file=d a.qcow2" "--size 0" "--size 1E" \
	"-o cluster_size=1000 --size 1" "-o refcount_bits=9 --size 1" "-o foo=1 --size 1" \
	"-o compat=0.10,refcount_bits=1 --size 1" "-o preallocation=foo --size 1" \
	"-o extended_l2=on,cluster_size=8k --size 1" "-o compat=1.2 --size 1"; do
	# shellcheck disable=SC2086
	same_text measure -O qcow2 $words
done
same_json measure -O qcow2 --output=json a.qcow2
same_text measure -O nosuch --size 1

python3 - "${IMGFS_MEASURE_SEED:-1}" "${IMGFS_MEASURE_ROUNDS:-40}" >words <<'PY'
import random, sys
r = random.Random(int(sys.argv[1]))
for _ in range(int(sys.argv[2])):
    bits = r.choice([9, 10, 12, 14, 16, 16, 18, 21])
    o = [f"cluster_size={1 << bits}"]
    if r.random() < .5: o.append(f"refcount_bits={1 << r.randint(0, 6)}")
    if r.random() < .3 and bits >= 14: o.append("extended_l2=on")
    if r.random() < .2: o.append("preallocation=" + r.choice(["off", "metadata", "falloc", "full"]))
    if r.random() < .1: o.append("lazy_refcounts=on")
    what = r.choice(["a.qcow2", "-l before a.qcow2", "p.qcow2", "c.qcow2", "o.qcow2", "-f raw b.raw"])
    if r.random() < .5:
        what = "--size %d" % r.randint(0, 1 << r.choice([10, 20, 30, 36, 44]))
    print("-O qcow2 -o", ",".join(o), what)
PY
while read -r words; do
	# shellcheck disable=SC2086
	same_text measure $words
done <words
