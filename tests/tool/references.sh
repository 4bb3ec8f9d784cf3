#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Names inside images: what the gate refuses, the option and qemu-img's name allow.
. "$IMGFS_SRCDIR/tests/functions.sh"
. "$IMGFS_SRCDIR/tests/agree.sh"
requires_qemu

mkdir in elsewhere
random_data 5 1048576 >elsewhere/secret.raw
qemu-img create -q -f qcow2 -b "$PWD/elsewhere/secret.raw" -F raw in/top.qcow2
expect_status 1 imgtool convert in/top.qcow2 o.raw
expect_output err secret.raw --allow-references
[ ! -e o.raw ] || fail "a refused convert left a target"
for word in any "$PWD/elsewhere"; do
	imgtool convert --allow-references="$word" in/top.qcow2 o.raw
	same_bytes elsewhere/secret.raw o.raw
done
ln -s "$(type -P imgtool)" qemu-img
./qemu-img convert in/top.qcow2 o.raw
same_bytes elsewhere/secret.raw o.raw
expect_status 2 imgtool compare in/top.qcow2 o.raw
expect_status 1 imgtool map in/top.qcow2
imgtool info in/top.qcow2 >info.txt

# info --references names them, and opens none.
imgtool info --references in/top.qcow2 >out
expect_output out "image: in/top.qcow2" "backing-file: $PWD/elsewhere/secret.raw (format: raw)"
qemu-img create -q -f qcow2 -o data_file=d.raw in/data.qcow2 1M
(cd in && qemu-img create -q -f qcow2 -b data.qcow2 -F qcow2 mid.qcow2)
imgtool info --references in/data.qcow2 >out
expect_output out "data-file: d.raw (format: raw, path: in/d.raw)"
imgtool info --references --output=json in/mid.qcow2 >out.json
json() { python3 -c "import json; d = json.load(open('out.json')); assert $1, d"; }
json 'd["references"] == [{"kind": "backing-file", "name": "data.qcow2", "format": "qcow2", "path": "in/data.qcow2"}]'
imgtool info --references --output=json --backing-chain in/mid.qcow2 >out.json
json '[len(x["references"]) for x in d] == [1, 1]'
rm in/mid.qcow2
for name in nosuch.raw "json:{\"driver\":\"raw\"}" nbd:localhost:1 "$PWD/fifo"; do
	mkfifo fifo
	qemu-img create -q -f qcow2 -u -b "$name" -F raw in/odd.qcow2 1M
	timeout 10 imgtool info --references --output=json in/odd.qcow2 >out.json || fail "$name: status $?"
	json 'len(d["references"]) == 1 and ("path" in d["references"][0]) == (d["references"][0]["name"][:2] not in ("js", "nb"))'
	rm fifo
done
imgtool info --references --output=json elsewhere/secret.raw >out.json
json 'd["references"] == []'

# A data file's name: beside the image; QEMU's, from the working directory, for who follows any name;
# and one that is given counts as the user's own.
mkdir -p here
qemu-img create -q -f qcow2 -o data_file=cwd.raw here/x.qcow2 1M
[ -f cwd.raw ] || skip "qemu-img makes data files elsewhere"
qemu-io -c 'write -q -P 7 0 64k' here/x.qcow2
expect_status 1 imgtool map here/x.qcow2
expect_output err "here/cwd.raw"
expect_status 0 imgtool map --allow-references=any here/x.qcow2
expect_output out cwd.raw
expect_status 0 imgtool map --image-opts driver=qcow2,file.filename=here/x.qcow2,data-file.filename=cwd.raw
cp cwd.raw here/cwd.raw
expect_status 0 imgtool map --allow-references=any here/x.qcow2
expect_output out here/cwd.raw
