#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# What a shell proposes while a command line is typed. bash is asked in earnest;
# zsh and fish, where they are installed, whether they understand their scripts.
. "$IMGFS_SRCDIR/tests/functions.sh"

touch disk.qcow2 "my disk.raw"
mkdir folder
for shell in bash zsh fish; do
	imgtool completion $shell >imgtool.$shell
	[ "$(wc -l <imgtool.$shell)" -gt 20 ] || fail "completion $shell is short"
done
expect_status 1 imgtool completion
expect_status 1 imgtool completion csh

cat >ask <<'ASK'
# ask FUNCTION WORD...: what would be proposed, the last word being typed.
ask() {
	COMP_WORDS=("${@:2}") COMP_CWORD=$(($# - 2)) COMPREPLY=()
	"$1"
	printf '%s\n' "${COMPREPLY[@]}"
}
ASK
# proposes "WORD..." WORD...: exactly these, in any order, for imgtool WORD...
proposes() {
	bash --norc --noprofile -u -c '. ./ask && . "$0" && shift && ask "$@" || true' \
		"$script" - "$function" "$program" "${@:2}" | sort >got
	tr ' ' '\n' <<<"$1" | sort >want
	cmp -s want got || {
		diff want got || true
		fail "$program ${*:2}: wrong proposals"
	}
}
proposes_among() {
	local word
	bash --norc --noprofile -u -c '. ./ask && . "$0" && shift && ask "$@" || true' \
		"$script" - "$function" "$program" "${@:2}" >got
	for word in $1; do
		grep -qxF -- "$word" got || { cat got && fail "$program ${*:2}: $word is not proposed"; }
	done
}

script=./imgtool.bash function=_imgtool program=imgtool
proposes "check" che
proposes "compare completion" comp
proposes "convert" -T trace conv
proposes "--help --version" --
proposes "convert" help conv
proposes "--output=" check --ou
proposes "json" check --output = js # as bash breaks --output=js
proposes "human json" check --output =
proposes "json" check --output j
proposes "leaks all" check -r ""
proposes "qcow2" convert -f q
proposes "none" bench -t no
proposes "threads native io_uring" bench -i ""
proposes "bash zsh fish" completion ""
proposes "disk.qcow2" info d
proposes "disk.qcow2" resize d
proposes "folder" convert -O raw fol
proposes "disk.qcow2" dd if = di
proposes "if=" dd bs=1M if
proposes "preallocation=" create -o prea
proposes "1G,preallocation=" create -o size = 1G,preal
proposes "" convert -m ""
bash --norc -c '. ./ask && . ./imgtool.bash && ask _imgtool imgtool info my' >got
[ "$(cat got)" = "my disk.raw" ] || fail "a name with a space: $(cat got)"
# Every option of every command.
imgtool --help | sed -n 's/^  \([a-z][a-z]*\)  *[A-Z].*/\1/p' | while read -r command; do
	options=$(imgtool help "$command" |
		(grep -oE -- '^ +(-[a-zA-Z])?(, )?(--[a-z-]+=?)?' || true) | tr -d ' ' | tr ',' ' ')
	proposes_among "$options" "$command" -
done

script=$IMGFS_SRCDIR/completion/bash/imgfs function=_imgfs program=imgfs
proposes "allow_other" -o allow_ot
proposes "ro,max_threads=" -o ro,max
proposes "fsname=" -o fsn
proposes "" -o uid = 1
proposes "unmap" -o discard = u
proposes "off on" -o rw,detect_zeroes = o
proposes "ignore unmap" -o discard =
proposes "disk.qcow2" -o overlay = di
proposes "none" -o rw,sync,cache = n
proposes "raw" -F r
proposes "--foreground --format" --fo
proposes "disk.qcow2" di
proposes "folder" disk.qcow2 fol

missing=
if [ -n "$(type -P zsh)" ]; then
	for file in imgtool.zsh "$IMGFS_SRCDIR/completion/zsh/_imgfs"; do
		zsh -n "$file" 2>err && [ ! -s err ] || { cat err && fail "zsh does not like $file"; }
	done
	# The completion system itself finds and loads it by its first line.
	mkdir functions
	cp imgtool.zsh functions/_imgtool
	zsh -f -c 'fpath=($PWD/functions $fpath); autoload -U compinit; compinit -u -D
		[ "$_comps[imgtool]" = _imgtool ] && autoload +X _imgtool' 2>err ||
		{ cat err && fail "compinit does not load the zsh script"; }
else
	missing="zsh"
fi
if [ -n "$(type -P fish)" ]; then
	export HOME=$PWD XDG_CONFIG_HOME=$PWD/config XDG_DATA_HOME=$PWD/data
	for file in imgtool.fish "$IMGFS_SRCDIR/completion/fish/imgfs.fish"; do
		fish --no-execute "$file" 2>err && [ ! -s err ] || { cat err && fail "fish does not like $file"; }
	done
	fish_proposes() {
		fish --no-config -c "source imgtool.fish; source '$IMGFS_SRCDIR/completion/fish/imgfs.fish'; complete -C '$2'" \
			>got 2>err </dev/null
		cut -f 1 got | grep -xF -- "$1" >/dev/null || { cat got err && fail "fish: $2: $1 is not proposed"; }
	}
	fish_proposes convert "imgtool conv"
	fish_proposes --repair "imgtool check --rep"
	fish_proposes all "imgtool check -r "
	fish_proposes fish "imgtool completion "
	fish_proposes ro,allow_other "imgfs -o ro,allow_ot"
else
	missing="$missing fish"
fi
[ -z "$missing" ] || echo "not tried, not installed: $missing"
