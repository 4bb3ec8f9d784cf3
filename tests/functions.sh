# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# Helpers of the script tests. A test starts with
#	. "$IMGFS_SRCDIR/tests/functions.sh"
# and runs in an empty scratch folder with imgfs and imgtool in PATH. Whatever
# way it ends, its mounts are gone and its cleanups have run. "set -e" is on:
# a command that may fail is said so with expect_status or "if".

set -eu -o pipefail
export LC_ALL=C TZ=UTC
SCRATCH=$(pwd -P)

# ---- ending

cleanups=()
# cleanup_add COMMAND...: run at the end, last added first; its failure is ignored.
cleanup_add() { cleanups+=("$(printf '%q ' "$@")"); }

cleanup_run() {
	local status=$? i
	trap - EXIT
	set +e
	for ((i = ${#cleanups[@]} - 1; i >= 0; i--)); do eval "${cleanups[i]}"; done
	exit $status
}
trap cleanup_run EXIT
trap 'exit 130' INT TERM HUP
trap 'echo "${BASH_SOURCE[0]##*/}:$LINENO: status $?: $BASH_COMMAND" >&2' ERR
set -E

fail() {
	trap - ERR
	echo "FAIL: $*" >&2
	exit 1
}
skip() {
	trap - ERR
	echo "SKIP: $*"
	exit 77
}

# ---- what a test needs

requires_program() {
	local p
	for p in "$@"; do
		[ -n "$(type -P "$p")" ] || skip "needs the program $p"
	done
}
requires_root() { [ "$(id -u)" -eq 0 ] || skip "needs root"; }
requires_fuse() {
	[ -c /dev/fuse ] && [ -r /dev/fuse ] && [ -w /dev/fuse ] || skip "needs /dev/fuse"
	requires_program fusermount3
}
# A mount namespace of one's own; in a chroot that is no mount point there is none.
requires_unshare() {
	requires_program unshare
	unshare -m true 2>/dev/null || skip "needs mount namespaces (not in a chroot)"
}
# for_users COMMAND...: in a mount namespace of its own, where every user may open /dev/fuse and the
# file fuse.conf of the scratch folder is /etc/fuse.conf; what other tests see stays as it is.
for_users() {
	unshare -m bash -c '
		# The copies of what others mount would keep it mounted.
		while read -r _ at type _; do
			[[ $1/ != "$at"/* ]] || continue
			case $type:$at in
			fuse.imgfs:* | *:/tmp/?* | *:"${TMPDIR:-/tmp}"/?*) umount -l "$at" ;;
			esac
		done </proc/mounts 2>/dev/null
		cd "$1" && mkdir -p users-dev && : >>fuse.conf || exit 77
		mount -t tmpfs -o dev,mode=755 none users-dev &&
			mknod -m 666 users-dev/fuse c 10 229 &&
			mount --bind users-dev/fuse /dev/fuse &&
			mount --bind fuse.conf /etc/fuse.conf || exit 77
		shift
		exec "$@"' - "$SCRATCH" "$@" || {
		local status=$?
		[ $status -ne 77 ] || skip "cannot bind over /dev/fuse and /etc/fuse.conf"
		return $status
	}
}
requires_loop() {
	requires_root
	has_loop || skip "needs a free loop device"
}
requires_qemu() { requires_program qemu-img qemu-io; }
# requires_sample NAME...: files of $IMGFS_SAMPLES (see its INDEX.md).
requires_sample() {
	local s
	for s in "$@"; do
		[ -r "$IMGFS_SAMPLES/$s" ] || skip "needs the sample $s"
	done
}

# ---- making data

# sample NAME [FILE]: unpacks or copies the sample; prints the name of the result.
sample() {
	local from=$IMGFS_SAMPLES/$1 to
	to=$(basename "${1%.gz}" .bz2)
	to=${2:-$to}
	case $1 in
	*.gz) gzip -dc "$from" | cp --sparse=always /dev/stdin "$to" ;;
	*.bz2) bzip2 -dc "$from" >"$to" ;;
	*) cp "$from" "$to" && chmod u+w "$to" ;;
	esac
	echo "$to"
}
# random_data SEED BYTES: the same bytes for the same seed, on stdout.
random_data() {
	python3 -c 'import random, sys
r = random.Random(sys.argv[1]); n = int(sys.argv[2])
while n > 0:
    k = min(n, 1 << 20); sys.stdout.buffer.write(r.randbytes(k)); n -= k' "$1" "$2"
}
# poke FILE OFFSET HEX: overwrites bytes in place.
poke() {
	printf '%b' "$(sed 's/../\\x&/g' <<<"${3// /}")" |
		dd of="$1" bs=1 seek=$(($2)) conv=notrunc status=none
}
# Whether the longer mode is wanted, which `make check` does without.
long_mode() { [ -n "${IMGFS_LONG:-}" ]; }
# some WORD...: all of them in the longer mode, else those that begin with + (without it).
some() {
	local word
	for word in "$@"; do
		if [[ $word = +* ]] || long_mode; then echo "${word#+}"; fi
	done
}
oracle() { PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$IMGFS_SRCDIR/tests/oracle python3 -m "$@"; }

# ---- judging

# expect_status N COMMAND...: output goes to out and err in the scratch folder.
expect_status() {
	local want=$1 got=0
	shift
	"$@" >"$SCRATCH/out" 2>"$SCRATCH/err" || got=$?
	[ "$got" -eq "$want" ] || {
		head -n 20 "$SCRATCH/out" "$SCRATCH/err" >&2
		fail "$*: status $got, expected $want"
	}
}
# expect_output FILE WORDS...: every one of the fixed strings is in the file.
expect_output() {
	local file=$1 words
	shift
	for words in "$@"; do
		grep -qF -- "$words" "$file" || {
			head -n 20 "$file" >&2
			fail "$file lacks: $words"
		}
	done
}
# one_sentence FILE PROGRAM NAME: exactly one line "PROGRAM: ..." that names NAME.
one_sentence() {
	local lines
	lines=$(wc -l <"$1")
	[ "$lines" -eq 1 ] && grep -q "^$2: " "$1" && grep -qF -- "$3" "$1" || {
		head -n 20 "$1" >&2
		fail "$1: expected one line of $2 that names $3"
	}
}
# json_eq A B [KEY...]: the same JSON, whatever the order of keys; only those keys when given.
json_eq() { python3 "$IMGFS_SRCDIR/tests/oracle/json_eq.py" "$@" || fail "$1 and $2 differ"; }
# same_bytes A B: the same content (holes compared quickly by cmp on page cache).
same_bytes() { cmp -- "$1" "$2" || fail "$1 and $2 differ"; }
# sanitized PROGRAM: was it built with ASan or TSan (no address space limits then)?
sanitized() { grep -qaE '__[at]san_init' "$(type -P "$1")"; }

# wait_for_lock FILE: until some process holds a byte-range lock on it. Asks the kernel, because
# opening the image would itself be in the way of who locks it.
wait_for_lock() {
	local inode i
	inode=$(stat -c %i "$1")
	for ((i = 0; i < 200; i++)); do
		# All of its locks, not only the first.
		! grep -E "OFDLCK.*:$inode " /proc/locks >/dev/null || { sleep 0.2 && return 0; }
		sleep 0.05
	done
	fail "nobody locks $1"
}

# wait_until_waits PID NAME: until the background process is NAME and waits in a system call.
wait_until_waits() {
	local i
	for ((i = 0; i < 200; i++)); do
		! grep -q "($2) S" "/proc/$1/stat" || { sleep 0.2 && return 0; }
		sleep 0.05
	done
	fail "$2 (process $1) does not wait"
}

# ---- loop devices

has_loop() { [ "$(id -u)" -eq 0 ] && losetup -f >/dev/null 2>&1; }
# attach_loop [OPTION...] FILE: $loop is a loop device on the file, detached at the end.
attach_loop() {
	cleanup_add detach_loops
	loop=$(losetup -f --show "$@")
}
# Those on files of this test, which is why not by name: what was let go of may be another's now.
detach_loops() {
	local device file
	losetup -l -n -O NAME,BACK-FILE | while read -r device file; do
		[[ $file != "$SCRATCH"/* ]] || losetup -d "$device"
	done
}

# ---- mounts

# Without its guard (fs/guard.h), which has the same command line.
imgfs_pids() {
	local pid
	for pid in $(pgrep -f -- "imgfs .*$1( |\$)"); do
		grep -qsx imgfs-guard "/proc/$pid/comm" || echo "$pid"
	done
}

# mount_imgfs [OPTION...] IMAGE MOUNTPOINT: fails the test when it does not work.
mount_imgfs() {
	local at=${*: -1}
	at=$(realpath -m "$at")
	[ -e "$at" ] || mkdir -p "$at"
	cleanup_add unmount_now "$at"
	imgfs "${@:1:$#-1}" "$at" || fail "imgfs ${*:1:$#-1} $at: status $?"
	mountpoint -q "$at" || fail "imgfs returned, but $at is no mount point"
}
# runs PID...: does one of them? What has ended and waits for its parent (a container's init may
# take seconds) does not.
runs() {
	local pid
	for pid in "$@"; do
		! grep -q '^State:[[:space:]]*[RSDTtI]' "/proc/$pid/status" 2>/dev/null || return 0
	done
	return 1
}
# kill_imgfs PID IMAGE: as kill -9 does at any moment; waits until the kernel has let go of IMAGE.
kill_imgfs() {
	local i
	kill -9 "$1"
	for ((i = 0; i < 100; i++)); do
		! runs "$1" && imgtool info "$2" >/dev/null 2>&1 && return
		sleep 0.05
	done
	fail "$2 cannot be opened 5 s after imgfs ($1) was killed"
}
# unmount MOUNTPOINT: and waits until the daemon is gone (its locks with it).
unmount() {
	local at pids i
	at=$(realpath "$1")
	pids=$(imgfs_pids "$at")
	# losetup -d returns before the kernel has let go of the file.
	for ((i = 0; i < 40; i++)); do
		fusermount3 -u "$at" 2>unmount.err && break
		grep -q busy unmount.err || break
		sleep 0.05
	done
	! mountpoint -q "$at" || fail "cannot unmount $at: $(cat unmount.err)"
	rm -f unmount.err
	# A busy machine takes long; a mount that never ends is what is looked for.
	for ((i = 0; i < 600; i++)); do
		# shellcheck disable=SC2086
		runs $pids || return 0
		sleep 0.05
	done
	fail "imgfs ($pids) still runs 30 s after $at was unmounted"
}
# For the end of a test: never fails, never leaves the mount.
unmount_now() {
	mountpoint -q "$1" 2>/dev/null || grep -qF " $1 " /proc/mounts || return 0
	fusermount3 -u "$1" 2>/dev/null || fusermount3 -uz "$1" 2>/dev/null || umount -l "$1"
}
