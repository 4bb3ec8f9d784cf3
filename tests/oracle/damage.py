# SPDX-License-Identifier: LGPL-2.1-or-later
"""Damages a qcow2 image in ways that a repair must put right: python3 -m damage FILE SEED.

The damage is to refcounts, the refcount structure, COPIED flags, and to entries of the active
tables. Prints what was done. The image is parsed here by the specification alone.
"""
import random
import struct
import sys

COPIED, CODED = 1 << 63, 1 << 62
OFFSET = 0x00FFFFFFFFFFFE00


class Image:
    def __init__(self, path):
        self.file = open(path, "r+b")
        self.file.seek(0, 2)
        self.size = self.file.tell()
        self.version = self.get(">I", 4)
        self.bits = self.get(">I", 20)
        self.cluster = 1 << self.bits
        self.l1_size, self.l1 = self.get(">I", 36), self.get(">Q", 40)
        self.table, self.table_clusters = self.get(">Q", 48), self.get(">I", 56)
        self.incompatible = self.get(">Q", 72) if self.version > 2 else 0
        self.order = self.get(">I", 96) if self.version > 2 else 4
        self.entry = 16 if self.incompatible & 16 else 8
        self.external = bool(self.incompatible & 4)
        self.first_blocks = self.blocks()  # before any damage

    def get(self, form, at):
        self.file.seek(at)
        return struct.unpack(form, self.file.read(struct.calcsize(form)))[0]

    def put(self, form, at, value):
        self.file.seek(at)
        self.file.write(struct.pack(form, value))

    def l2_tables(self):
        out = []
        for i in range(self.l1_size):
            offset = self.get(">Q", self.l1 + 8 * i) & OFFSET
            if offset and offset + self.cluster <= self.size:
                out.append((self.l1 + 8 * i, offset))
        return out

    def l2_entries(self):
        """Places of the entries that have a host cluster and are not compressed."""
        out = []
        for _, table in self.l2_tables():
            for at in range(table, table + self.cluster, self.entry):
                word = self.get(">Q", at)
                if word & OFFSET and not word & CODED:
                    out.append(at)
        return out

    def blocks(self):
        out = []
        for i in range(self.table_clusters * self.cluster // 8):
            offset = self.get(">Q", self.table + 8 * i)
            if offset:
                out.append((self.table + 8 * i, offset))
        return out


def damage(image, rng):
    kind = rng.choice(("count", "count", "count", "block", "table", "copied", "copied", "offset",
                       "outside", "reserved", "l1", "twice", "bits", "zero block"))
    entries, blocks = image.l2_entries(), image.first_blocks
    if kind == "count":
        byte = rng.choice(blocks)[1] + rng.randrange(image.cluster >> rng.choice((0, 4, 6)))
        image.put(">B", byte, rng.randrange(256))
    elif kind == "block":
        image.put(">Q", rng.choice(blocks)[0],
                  rng.choice((0, image.size + image.cluster, 0x200, image.l1, 1 << 55)))
    elif kind == "table":
        image.put(">Q", 48, rng.choice((0, 512, image.size + image.cluster, 1 << 40, image.l1)))
    elif kind == "zero block":
        image.file.seek(rng.choice(blocks)[1])
        image.file.write(bytes(image.cluster))
    elif kind == "bits":
        if image.version > 2:
            image.put(">Q", 72, image.incompatible | rng.choice((1, 2, 3)))
    elif kind == "l1":
        tables = image.l2_tables()
        if not tables:
            return "nothing"
        at, offset = rng.choice(tables)
        image.put(">Q", at, rng.choice((offset | 0x200, offset | 1, offset, 1 << 50, image.l1)))
    elif not entries:
        return "nothing"
    else:
        at = rng.choice(entries)
        word = image.get(">Q", at)
        if kind == "copied":
            word ^= COPIED
        elif kind == "offset" and not image.external:
            word |= 0x200
        elif kind == "outside" and not image.external:
            word = (word & ~OFFSET) | 1 << rng.choice((45, 50, 55))
        elif kind == "reserved":
            word |= 1 << rng.randrange(56, 62)
        elif kind == "twice" and not image.external:
            word = (word & ~OFFSET) | (image.get(">Q", rng.choice(entries)) & OFFSET)
        image.put(">Q", at, word)
    return kind


def main():
    image, rng = Image(sys.argv[1]), random.Random("damage " + sys.argv[2])
    print(" ".join(damage(image, rng) for _ in range(rng.randrange(1, 5))))


main()
