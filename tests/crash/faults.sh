#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# EIO and ENOSPC at I/O calls of every writing command: one sentence, status 1, and the images are
# consistent and unchanged. See tests/oracle/faults_run.py.
#
# usage: faults.sh [-l] [-v] [PATTERN]        -l: at every call, not at a sample of them
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_program python3
requires_qemu

options=()
while [[ ${1:-} = -* ]]; do
	options+=("$1")
	shift
done
oracle faults_run ${options+"${options[@]}"} "$IMGFS_BUILDDIR/tests/crash/imgtool-faulty" "$@"
