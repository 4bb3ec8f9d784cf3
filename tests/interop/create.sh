#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# create -f qcow2 beside qemu-img: the same line, status and refusal; the image is clean for
# qemu-img check, the same for info and map, and of the same length.
. "$IMGFS_SRCDIR/tests/functions.sh"
. "$IMGFS_SRCDIR/tests/agree.sh"
requires_qemu

mkdir i q
for d in i q; do
	qemu-img create -q -f raw $d/base.raw 3000k
	qemu-img create -q -f qcow2 $d/base.qcow2 7M
done

# both WORDS...: in the folders i and q, the same command.
both() {
	local si=0 sq=0
	rm -f {i,q}/{x.qcow2,d.raw}
	(cd i && imgtool create "$@" >../i.out 2>../i.err) || si=$?
	(cd q && qemu-img create "$@" >../q.out 2>../q.err) || sq=$?
	sed -i "s/^imgtool:/qemu-img:/; s/Try 'imgtool /Try 'qemu-img /" i.err
	[ $si -eq $sq ] || fail "create $*: status $si ($(cat i.err)), qemu-img's $sq ($(cat q.err))"
	diff -u q.out i.out >&2 || fail "create $*: other output than qemu-img's"
	status=$si
}
# made WORDS...: both succeed, and make the same.
made() {
	both -f qcow2 "$@"
	[ $status -eq 0 ] || fail "create $*: $(cat i.err)"
	[ ! -s i.err ] || fail "create $*: $(cat i.err)"
	local pids=() pid
	for d in i q; do
		(
			cd $d
			qemu-img check -q x.qcow2 || fail "create $*: check of $d/x.qcow2"
			qemu-img info --output=json x.qcow2 | grep -v '"actual-size"' >../$d.info
			qemu-img map --output=json x.qcow2 >../$d.map
			stat -c %s x.qcow2 >../$d.size
			# qemu-img also writes the first block of a raw file, with zeroes.
			[ ! -e d.raw ] || stat -c '%s %b' d.raw | sed 's/ 8$/ 0/' >>../$d.size
		) &
		pids+=($!)
	done
	for pid in "${pids[@]}"; do wait "$pid"; done
	json_eq q.info i.info
	# Where small clusters lie, one after another or between their tables, is a program's own
	# business.
	[[ "$*" == *preallocation*cluster_size* ]] || {
		diff -u q.size i.size >&2 || fail "create $*: other length than qemu-img's"
		diff -u q.map i.map >&2 || fail "create $*: other map than qemu-img's"
	}
	# (It looks for data files in the working directory.)
	[[ "$*" == *data_file* ]] || qemu-img compare -q i/x.qcow2 q/x.qcow2 || fail "create $*: other contents than qemu-img's"
	imgtool check -q i/x.qcow2
}
# refused WORDS...: with the same sentence.
refused() {
	both -f qcow2 "$@"
	[ $status -ne 0 ] || fail "create $*: not refused"
	diff -u q.err i.err >&2 || fail "create $*: other words than qemu-img's"
	[ ! -e i/x.qcow2 ] || fail "create $*: left a file"
}

made x.qcow2 10M
made x.qcow2 0
made x.qcow2 1000
made x.qcow2 1T
made -o size=5M x.qcow2
made -b base.raw -F raw x.qcow2
made -b base.qcow2 -F qcow2 x.qcow2 20M
both -f qcow2 -b nosuch -F raw -u x.qcow2 1M
for d in i q; do (cd $d && qemu-img info --output=json x.qcow2 | grep -v actual-size >../$d.info); done
json_eq q.info i.info
for o in compat=0.10 compat=v2 compat=1.1 compat=v3 cluster_size=512 cluster_size=2M \
	cluster_size=4k refcount_bits=1 refcount_bits=2 refcount_bits=8 refcount_bits=64 \
	lazy_refcounts=on extended_l2=on extended_l2=on,cluster_size=16k compression_type=zstd \
	data_file=d.raw data_file=d.raw,data_file_raw=on nocow=on extent_size_hint=0 \
	backing_file=base.raw,backing_fmt=raw preallocation=off preallocation=metadata \
	preallocation=falloc preallocation=full compat=0.10,preallocation=metadata \
	extended_l2=on,preallocation=metadata preallocation=metadata,refcount_bits=1 \
	preallocation=metadata,refcount_bits=2,cluster_size=512 \
	preallocation=metadata,refcount_bits=64,cluster_size=4k \
	extended_l2=on,preallocation=metadata,backing_file=base.raw,backing_fmt=raw \
	extended_l2=on,preallocation=full,backing_file=base.raw,backing_fmt=raw \
	data_file=d.raw,preallocation=metadata data_file=d.raw,preallocation=full \
	data_file=d.raw,preallocation=falloc; do
	made -o $o x.qcow2 10M
done

for o in cluster_size=1000 cluster_size=4M cluster_size=0 refcount_bits=3 refcount_bits=128 \
	compat=0.10,refcount_bits=8 compat=0.10,lazy_refcounts=on preallocation=foo \
	extended_l2=on,cluster_size=8k extended_l2=on,compat=0.10 compression_type=foo \
	compression_type=zstd,compat=0.10 data_file_raw=on data_file=d.raw,compat=0.10 \
	backing_file=base.raw,backing_fmt=foo backing_fmt=raw compat=1.2 refcount_bits=x \
	cluster_size=x lazy_refcounts=maybe foo=1 size=5M backing_file= \
	preallocation=metadata,backing_file=base.raw,backing_fmt=raw \
	data_file=d.raw,backing_file=base.raw,backing_fmt=raw,data_file_raw=on \
	compat=0.10,backing_file=nosuch.raw,backing_fmt=raw; do
	refused -o $o x.qcow2 10M
done
refused x.qcow2
refused -o cluster_size=512 x.qcow2 129G
refused x.qcow2 1E
refused -b base.raw -F raw -u x.qcow2
refused -b nosuch -F raw x.qcow2
refused -b x.qcow2 -F qcow2 x.qcow2 1M
refused x.qcow2 1M 2M
refused x.qcow2 1x
same_text create -f qcow2 -o help
same_text create -f raw -o '?'
same_text create -f raw -o '?' r.raw
same_text create -f raw -o extent_size_hint=0,preallocation=falloc,nocow=off r.raw 1M
same_text create -f raw -o extent_size_hint=4G r.raw 1M
