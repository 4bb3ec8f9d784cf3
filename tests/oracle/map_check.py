# SPDX-License-Identifier: LGPL-2.1-or-later
"""map_check MAP.json FLAT.raw: does the map cover the disk, and are its zeroes zero?

Entries must follow one another without gap or overlap to the end of the disk;
where one says zero, the content must be zero; data with an offset must not be
called zero; neighbours that could be one entry must be one.
"""
import json
import mmap
import os
import sys


def check(entries, flat, size):
    at, last = 0, None
    for e in entries:
        start, length = e["start"], e["length"]
        if start != at or length <= 0:
            return f"entry at {start} of {length} bytes, expected one at {at}"
        at += length
        if at > size + 511:
            return f"the entry at {start} ends at {at}, past the disk's end at {size}"
        if e["zero"] and flat[start:min(at, size)].strip(b"\0"):
            return f"the entry at {start} says zero, but there is data"
        if not e["zero"] and not e["data"]:
            return f"the entry at {start} is neither zero nor data"
        same = last and all(last[k] == e[k] for k in ("depth", "present", "zero", "data"))
        if same and ("offset" in last) == ("offset" in e) and \
                last.get("offset", 0) + last["length"] * ("offset" in e) == e.get("offset", 0) and \
                last.get("compressed") == e.get("compressed"):
            return f"the entry at {start} continues the one before it"
        last = e
    if at < size:
        return f"the map ends at {at}, the disk at {size}"
    return None


def main():
    with open(sys.argv[1], "rb") as f:
        entries = json.load(f)
    size = os.path.getsize(sys.argv[2])
    with open(sys.argv[2], "rb") as f:
        flat = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) if size else b""
        problem = check(entries, flat, size)
    if problem:
        sys.exit(f"{sys.argv[1]}: {problem}")


if __name__ == "__main__":
    main()
