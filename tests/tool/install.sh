#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# make install puts everything where it belongs below DESTDIR, and make uninstall takes it away.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_program make
[ -f "$IMGFS_BUILDDIR/Makefile" ] || skip "there is no Makefile in $IMGFS_BUILDDIR"

value() { sed -n "s/^$1 = //p" "$IMGFS_BUILDDIR/Makefile"; }
# Not as a part of the make that runs the tests.
run_make() {
	env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS make -s -C "$IMGFS_BUILDDIR" "$@" DESTDIR="$PWD/root" \
		>make.log 2>&1 || { cat make.log && fail "make $*"; }
}
prefix=$(value prefix)
run_make install
(cd "root$prefix" && find . ! -type d | sort) >files
commands=$(imgtool --help | sed -n 's/^  \([a-z][a-z]*\)  *[A-Z].*/\1/p')
for file in bin/imgfs bin/imgtool share/man/man1/imgfs.1 share/man/man1/imgtool.1 \
	share/man/man7/imgtool-formats.7 \
	$(for command in $commands; do echo "share/man/man1/imgtool-$command.1"; done) \
	share/bash-completion/completions/imgfs share/bash-completion/completions/imgtool \
	share/zsh/site-functions/_imgfs share/zsh/site-functions/_imgtool \
	share/fish/vendor_completions.d/imgfs.fish share/fish/vendor_completions.d/imgtool.fish; do
	grep -qx "./$file" files || { cat files && fail "$file is not installed"; }
done
for helper in mount.imgfs mount.fuse.imgfs; do
	link=$(find root -name $helper)
	[ -n "$link" ] || fail "$helper is not installed"
	[ "$(readlink "$link")" = "$prefix/bin/imgfs" ] || fail "$helper is a link to $(readlink "$link")"
done
"root$prefix/bin/imgtool" --version | grep '^imgtool version' >/dev/null || fail "the installed imgtool does not run"
if [ -n "$(type -P man)" ]; then
	MANPATH=$PWD/root$prefix/share/man man -w imgtool-check >found 2>err || fail "man does not find a page: $(cat err)"
fi
run_make uninstall
[ -z "$(find root ! -type d)" ] || fail "make uninstall leaves $(find root ! -type d)"
