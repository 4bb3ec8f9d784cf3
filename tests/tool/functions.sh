#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The helpers of the script tests can fail: a judge that always nods proves nothing.
. "$IMGFS_SRCDIR/tests/functions.sh"

# refuses COMMAND...: the helper must end its (sub)shell with a failure.
refuses() {
	local status=0
	(trap - EXIT ERR; "$@") >refused.log 2>&1 || status=$?
	[ $status -eq 1 ] || fail "$*: status $status, should have failed the test"
}

expect_status 3 sh -c 'exit 3'
refuses expect_status 0 sh -c 'exit 3'

printf 'imgtool: x.qcow2: bad\n' >one
one_sentence one imgtool x.qcow2
refuses one_sentence one imgtool y.qcow2
printf 'imgtool: x.qcow2: bad\nmore\n' >two
refuses one_sentence two imgtool x.qcow2

expect_output one bad x.qcow2
refuses expect_output one good

echo '{"a": 1, "b": [1, 2]}' >a.json
echo '{"b": [1, 2], "a": 1}' >b.json
echo '{"b": [2, 1], "a": 1}' >c.json
json_eq a.json b.json
json_eq a.json c.json a
json_eq a.json c.json -b
refuses json_eq a.json c.json

[ "$(random_data 7 100000 | sha256sum)" = "$(random_data 7 100000 | sha256sum)" ]
[ "$(random_data 7 1000 | wc -c)" -eq 1000 ]
if cmp -s <(random_data 7 1000) <(random_data 8 1000); then fail "seeds do not count"; fi

head -c 8 /dev/zero >poked
poke poked 2 "de ad"
[ "$(od -An -tx1 poked)" = " 00 00 de ad 00 00 00 00" ]

# Cleanups run, last first, and the status survives.
status=0
bash -c '. "$IMGFS_SRCDIR/tests/functions.sh"
	cleanup_add sh -c "echo a b >>order"; cleanup_add sh -c "echo c >>order"; exit 5' || status=$?
[ $status -eq 5 ]
[ "$(cat order)" = "c
a b" ]
status=0
bash -c '. "$IMGFS_SRCDIR/tests/functions.sh"; requires_program no-such-program-here' >skipped || status=$?
[ $status -eq 77 ]
expect_output skipped "SKIP: needs the program no-such-program-here"
