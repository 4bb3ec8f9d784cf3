#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Random writes, zeroes, discards and compressed writes to images that qemu-img made in every way,
# against a model: the same contents for both programs, and nothing that qemu-img check would say,
# leaks included.
# IMGFS_WRITE_SEEDS="1 2 3" runs others (default: one that changes nothing from run to run);
# IMGFS_LONG=1: three times as many operations on each.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_qemu
io=$IMGFS_BUILDDIR/tests/imgio
runs=0 bad=0

wrong() {
	echo "seed $seed, $name: $*" >&2
	head -n 5 log >&2
	bad=$((bad + 1))
	return 1
}

# run COUNT [imgio's OPTION...]: random operations on a.qcow2 and a.raw
run() {
	local count=$1
	shift
	long_mode || count=$((count / 3))
	"$io" -m a.raw "$@" a.qcow2 "random $seed $count" verify >log 2>&1 || wrong "imgio"
}
judge() {
	runs=$((runs + 1))
	qemu-img check a.qcow2 >log 2>&1 || wrong "check: status $?" || return 0
	imgtool check a.qcow2 >log 2>&1 || wrong "imgtool check: status $?"
	qemu-img compare -f qcow2 -F raw a.qcow2 a.raw >log 2>&1 || wrong "compare: status $?"
}
# fresh NAME SIZE OPTIONS [qemu-img's OPTION...]
fresh() {
	name=$1
	rm -f a.qcow2 a.raw a.data
	qemu-img create -q -f qcow2 -o "$3" "${@:4}" a.qcow2 "$2"
	truncate -s "$2" a.raw
}
# plain NAME SIZE OPTIONS COUNT [imgio's OPTION...]
plain() {
	fresh "$1" "$2" "$3"
	{ run "$4" "${@:5}" && judge; } || true
}

# What a snapshot showed stays, whatever is written afterwards.
with_snapshots() {
	fresh "$@"
	run 60 || return 0
	cp a.raw one.raw
	qemu-img snapshot -c one a.qcow2
	run 60 || return 0
	cp a.raw two.raw
	qemu-img snapshot -c two a.qcow2
	seed=$((seed + 1000))
	run 60 -p 4 || return 0
	judge
	seed=$((seed - 1000))
	for s in one two; do
		rm -f s.raw
		qemu-img convert -l $s -O raw a.qcow2 s.raw
		cmp s.raw $s.raw >log 2>&1 || wrong "snapshot $s changed" || return 0
	done
	qemu-img snapshot -d one a.qcow2
	judge
}

# over NAME SIZE OPTIONS BASE-FORMAT BASE-SIZE
over() {
	local base=base.$4
	rm -f base.raw "$base"
	qemu-img create -q -f "$4" "$base" "$5"
	"$io" -f "$4" "$base" "random 7 60" >log 2>&1 || wrong "imgio on the base" || return 0
	cp "$base" base.before
	fresh "$1" "$2" "$3" -b "$base" -F "$4"
	qemu-img convert -n -O raw a.qcow2 a.raw
	{ run 150 && judge; } || return 0
	run 60 -p 4 && judge
	cmp "$base" base.before >log 2>&1 || wrong "the base was changed" || true
}

for seed in ${IMGFS_WRITE_SEEDS:-1}; do
	plain v3 8M compat=1.1 150
	plain v2 8M compat=0.10 150
	plain "clusters of 512" 2M cluster_size=512 150
	plain "clusters of 2M" 50M cluster_size=2M 60
	plain "a last cluster in part" 8193K cluster_size=2M 60
	for bits in $(some +1 +2 4 8 32 +64); do
		plain "refcount_bits=$bits" 4M refcount_bits=$bits,cluster_size=1k 120
	done
	plain "extended L2, 16k" 8M extended_l2=on,cluster_size=16k 150
	plain "extended L2, 64k" 8M extended_l2=on 150
	plain lazy 8M lazy_refcounts=on 100
	plain "data file" 8M data_file=a.data 150
	plain "raw data file" 8M data_file=a.data,data_file_raw=on 150
	cmp -n 8388608 a.data a.raw >log 2>&1 || wrong "the raw data file is not the disk" || true
	plain "extended L2, data file" 8M data_file=a.data,extended_l2=on 150
	plain zstd 8M compression_type=zstd 100
	plain metadata 8M preallocation=metadata 100
	plain "metadata, extended L2" 8M preallocation=metadata,extended_l2=on 100
	plain falloc 4M preallocation=falloc,cluster_size=1k 100
	plain parallel 8M cluster_size=64k 400 -p 8
	plain "parallel, extended L2" 8M extended_l2=on 400 -p 8
	plain "parallel, clusters of 512" 2M cluster_size=512 400 -p 8
	plain "write-through" 4M cluster_size=4k 30 -t writethrough
	plain "O_DIRECT" 4M cluster_size=4k 60 -t none
	with_snapshots "snapshots" 8M compat=1.1
	with_snapshots "snapshots, v2" 8M compat=0.10
	with_snapshots "snapshots, extended L2" 8M extended_l2=on,cluster_size=16k
	with_snapshots "snapshots, clusters of 1k" 4M cluster_size=1k,refcount_bits=8
	over "over qcow2" 8M compat=1.1 qcow2 8M
	over "over a shorter raw" 8M compat=1.1 raw 5001K
	over "over a longer qcow2" 5001K cluster_size=4k qcow2 8M
	over "v2 over raw" 8M compat=0.10 raw 8M
	over "extended L2 over qcow2" 8M extended_l2=on,cluster_size=32k qcow2 6M
	over "data file over raw" 8M data_file=a.data raw 8M
done
echo "$runs images written, $bad differences"
[ $runs -gt 30 ] && [ $bad -eq 0 ] || fail "differences"
