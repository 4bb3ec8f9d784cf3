# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# For the tests of this folder: qemu-img judges what imgtool and the mount say of
# an image. A difference is counted and told, and the test goes on; judge_end
# ends it.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_qemu
requires_program python3

mounting=no
if [ -w /dev/fuse ] && type -P fusermount3 >/dev/null; then mounting=yes; fi
judged=0 wrong=0

differs() {
	echo "$subject: $*" >&2
	wrong=$((wrong + 1))
}
judge_end() {
	echo "$judged images judged, $wrong differences, mounts: $mounting"
	[ $judged -gt 0 ] && [ $wrong -eq 0 ] || fail "differences"
}

# json_same WORD [-KEY...]: theirs.json and ours.json.
json_same() {
	python3 "$IMGFS_SRCDIR/tests/oracle/json_eq.py" theirs.json ours.json "${@:2}" ||
		differs "$1 --output=json"
}
# text_same WORD: theirs.txt and ours.txt
text_same() { diff theirs.txt ours.txt | head -n 6 >&2 || differs "$1"; }

# holes_of FILE NAME: what lseek says hides no data, and no more is allocated than the map says.
holes_of() { oracle holes_check "$1" || differs "holes of $2"; }

# judge FORMAT IMAGE: the image in the working directory, with its chain and snapshots.
judge() {
	local format=$1 image=$2 a b
	subject="$image"
	judged=$((judged + 1))
	qemu-img convert -f "$format" -O raw "$image" theirs.raw || fail "$image: qemu-img cannot"
	imgtool convert -f "$format" -O raw "$image" ours.raw || differs "convert: status $?"
	cmp theirs.raw ours.raw || differs "convert"
	imgtool compare -q -f "$format" -F raw "$image" theirs.raw || differs "compare: status $?"

	qemu-img map --output=json -f "$format" "$image" >theirs.json
	imgtool map --output=json -f "$format" "$image" >ours.json || differs "map: status $?"
	json_same map -compressed -filename
	a=0 b=0
	qemu-img map -f "$format" "$image" >theirs.txt 2>/dev/null || a=$?
	imgtool map -f "$format" "$image" >ours.txt 2>/dev/null || b=$?
	[ $a -eq $b ] || differs "map: status $b, not $a"
	# Where qemu-img gives up at the first compressed cluster, ours tells the other rows too.
	[ $a -ne 0 ] || text_same "map"

	qemu-img info --output=json --backing-chain -f "$format" "$image" >theirs.json
	imgtool info --output=json --backing-chain -f "$format" "$image" >ours.json || differs "info: status $?"
	json_same info -children
	qemu-img info -f "$format" "$image" >theirs.txt
	imgtool info -f "$format" "$image" >ours.txt || differs "info: status $?"
	text_same "info"

	a=0 b=0
	qemu-img check --output=json -f "$format" "$image" >theirs.json 2>theirs.txt || a=$?
	imgtool check --output=json -f "$format" "$image" >ours.json 2>ours.txt || b=$?
	[ $a -eq $b ] || differs "check: status $b, not $a: $(head -n 2 ours.txt)"
	[ $a -eq 63 ] || json_same check
	[ $mounting = no ] || judge_mount "$format" "$image"
	rm -f theirs.* ours.*
}

judge_mount() {
	local layer file number kind id name
	mount_imgfs -o "ro,format=$1" "$2" mnt
	cmp theirs.raw mnt/disk.raw || differs "the mount's disk.raw"
	holes_of mnt/disk.raw disk.raw
	qemu-img info --output=json --backing-chain -f "$1" "$2" >chain.json
	number=0
	while read -r kind layer; do
		qemu-img convert -f "$kind" -O raw "$layer" theirs.layer
		file=$(echo "mnt/layers/$number-"*)
		cmp theirs.layer "$file" || differs "layer $number ($layer)"
		number=$((number + 1))
	done < <(python3 -c 'import json
for i in json.load(open("chain.json")): print(i["format"], i["filename"])')
	[ "$(ls mnt/layers | wc -l)" -eq $number ] || differs "$(ls mnt/layers | wc -l) layers, not $number"
	while read -r id name; do
		qemu-img convert -f "$1" -l "snapshot.id=$id" -O raw "$2" theirs.snapshot
		imgtool convert -f "$1" -l "snapshot.id=$id" -O raw "$2" ours.snapshot ||
			differs "convert of snapshot $id: status $?"
		# qemu-img cuts or pads a snapshot to the size of the active disk; ours has its own.
		number=$(stat -c %s ours.snapshot)
		[ "$number" -le "$(stat -c %s theirs.snapshot)" ] || number=$(stat -c %s theirs.snapshot)
		cmp -n "$number" theirs.snapshot ours.snapshot || differs "convert of snapshot $id"
		cmp ours.snapshot "mnt/snapshots/$name/disk.raw" || differs "snapshot $id in the mount"
	done < <(python3 -c 'import json
for s in json.load(open("chain.json"))[0].get("snapshots", []): print(s["id"], s["name"])')
	unmount mnt
}

# scribble FORMAT IMAGE SEED COUNT [FLAGS]: random writes, zeroes and discards by qemu-io.
# FLAGS: c compressed clusters too, n nothing but writes.
scribble() {
	local commands=()
	qemu-img info --output=json -f "$1" "$2" >about.json
	while read -r line; do commands+=(-c "$line"); done < <(python3 - "$3" "$4" "${5:-}" <<'PY'
import json, random, sys
rng = random.Random("scribble " + sys.argv[1])
count, flags = int(sys.argv[2]), sys.argv[3]
about = json.load(open("about.json"))
size, cluster = about["virtual-size"], about.get("cluster-size", 65536)
for _ in range(count):
    unit = rng.choice((512, 4096, 4096, cluster))
    most = max(1, rng.choice((4096, 65536, 4 * cluster, min(size // 8, 1 << 22))) // unit)
    length = min(rng.randrange(1, most + 1) * unit, size)
    at = rng.randrange(0, size - length + 1) // unit * unit
    kind = rng.random()
    pattern = rng.randrange(1, 256)
    if "c" in flags and kind < 0.3 and size >= cluster:
        at = rng.randrange(0, size // cluster) * cluster
        print(f"write -q -c -P {pattern} {at} {min(cluster, size - at)}")
    elif kind < 0.6 or "n" in flags:
        print(f"write -q -P {pattern} {at} {length}")
    elif kind < 0.75:
        print(f"write -q -z {at} {length}")
    elif kind < 0.85:
        print(f"write -q -z -u {at} {length}")
    else:
        print(f"discard -q {at} {length}")
PY
	)
	# A compressed write onto a cluster that is there already is refused by qemu-io.
	qemu-io -f "$1" -d unmap "${commands[@]}" "$2" >scribble.log 2>&1 || {
		[[ ${5:-} = *c* ]] && ! grep -qv '^write failed: Input/output error$' scribble.log
	} || fail "qemu-io on $2: $(tail -n 3 scribble.log)"
}
