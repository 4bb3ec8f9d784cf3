# SPDX-License-Identifier: LGPL-2.1-or-later
"""python3 -m readable_same BEFORE AFTER LOG: are both the same, but for the sectors whose reading
failed before, which LOG of `convert --salvage` names? Status 1 and the first difference."""
import re
import sys

before, after = (open(p, "rb").read() for p in sys.argv[1:3])
lost = {int(n) for n in re.findall(r"error while reading offset (\d+)", open(sys.argv[3]).read())}
if len(before) != len(after):
    sys.exit(f"{len(before)} bytes became {len(after)}")
for at in range(0, len(before), 512):
    if at not in lost and before[at:at + 512] != after[at:at + 512]:
        sys.exit(f"offset {at} was readable and has changed")
