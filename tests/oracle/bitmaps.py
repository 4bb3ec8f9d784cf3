# SPDX-License-Identifier: LGPL-2.1-or-later
"""python3 -m bitmaps FILE: the dirty bitmaps of a qcow2 image, read by the words of the
specification and by nothing of imgfs. A line each: name, flags, granularity, and the ranges (bytes)
that are set. "--poke NAME flags=N" and "--poke NAME name=NEW" change an entry first."""
import struct
import sys

import qcow2
import qcow2_read

OFFSET = 0x00FFFFFFFFFFFE00


class Image(qcow2_read.Reader):
    def directory(self):
        count, _, _, offset = struct.unpack(">IIQQ", self.extensions.get(qcow2.EXT_BITMAPS, bytes(24)))
        return count, offset

    def bitmaps(self):
        count, at = self.directory()
        for _ in range(count):
            table, entries, flags, kind, shift, name_len, extra = struct.unpack_from(
                ">QIIBBHI", self.file, at)
            assert kind == 1, kind
            name_at = at + 24 + extra
            yield {"at": at, "name": self.file[name_at:name_at + name_len].decode(), "flags": flags,
                   "shift": shift, "table": table, "entries": entries, "name_at": name_at}
            at += qcow2.up(24 + extra + name_len, 8)

    def bits_of(self, bitmap):
        whole = bytearray()
        for i in range(bitmap["entries"]):
            entry = self.word(bitmap["table"] + 8 * i)
            offset = entry & OFFSET
            if offset:
                whole += self.file[offset:offset + self.cluster].ljust(self.cluster, b"\0")
            else:
                whole += bytes([0xFF if entry & 1 else 0]) * self.cluster
        return whole

    def ranges(self, bitmap):
        granule = 1 << bitmap["shift"]
        bits, start, out = self.bits_of(bitmap), None, []
        n = (self.size + granule - 1) // granule
        clusters = ((n + 7) // 8 + self.cluster - 1) // self.cluster
        if bitmap["entries"] != clusters:
            return "wrong table size"
        for i in range(n + 1):
            is_set = i < n and bits[i // 8] >> i % 8 & 1
            if is_set and start is None:
                start = i
            elif not is_set and start is not None:
                out.append("%d-%d" % (start * granule, min(i * granule, self.size)))
                start = None
        return ",".join(out)


def main():
    path, poke = sys.argv[1], sys.argv[3:]
    image = Image(path)
    if poke:
        key, value = poke[1].split("=", 1)
        with open(path, "r+b") as f:
            for b in image.bitmaps():
                if b["name"] == poke[0]:
                    f.seek(b["at"] + 12 if key == "flags" else b["name_at"])
                    f.write(struct.pack(">I", int(value)) if key == "flags" else value.encode())
        return
    if not image.autoclear & 1:
        return
    for b in image.bitmaps():
        print(b["name"], b["flags"], 1 << b["shift"], image.ranges(b) if not b["flags"] & 1 else "?")


main()
