#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# What fails does so before the command returns: one sentence and mount(8)'s status.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_qemu

refused() { # STATUS NAME COMMAND...
	expect_status "$1" "${@:3}"
	one_sentence err imgfs "$2"
	[ ! -s out ] || fail "$*: output on stdout"
}
mkdir m
qemu-img create -q -f qcow2 d.qcow2 1M
refused 32 missing.qcow2 imgfs missing.qcow2 m
refused 32 nowhere imgfs d.qcow2 nowhere
refused 32 nosuch imgfs -o format=nosuch d.qcow2 m
head -c 4096 /dev/zero >zeroes
refused 32 zeroes imgfs -o format=qcow2 zeroes m
refused 32 nosnap imgfs -o snapshot=nosnap d.qcow2 m
refused 32 m imgfs m m
refused 1 nonsense imgfs -o nonsense d.qcow2 m
refused 1 -q imgfs -q d.qcow2 m
refused 1 image imgfs
mkfifo pipe
refused 32 pipe imgfs pipe m
refused 32 pipe imgfs d.qcow2 pipe
qemu-img create -q -f qcow2 -b d.qcow2 -F qcow2 top.qcow2
mv d.qcow2 gone.qcow2
refused 32 d.qcow2 imgfs top.qcow2 m

imgfs --help >help
expect_output help "usage: imgfs" allow_other snapshot= --pidfile
imgfs -V >version
expect_output version imgfs libfuse
