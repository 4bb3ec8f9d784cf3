# SPDX-License-Identifier: LGPL-2.1-or-later
"""A valid qcow2 image from a seed, with the content that it must show.

usage: qcow2_random SEED FOLDER

Makes FOLDER/image.qcow2 with what it needs beside it (base.*, data.bin),
flat.raw, snapshot-ID.raw for each snapshot, and manifest.json:
{"files": {image: flat}, "snapshots": {id: flat}, "features": [words]}.
The cluster size, refcount width, version and codec go round with the seed, so
that a few dozen seeds meet every value; everything else is drawn.
"""
import json
import os
import random
import sys

import qcow2

VM_STATE = b"state of a machine"


def some_data(rng, size):
    """A cluster: noise, a pattern, text with holes, or zeroes."""
    kind = rng.random()
    if kind < 0.3:
        return rng.randbytes(size)
    if kind < 0.6:
        return (rng.randbytes(rng.choice((1, 7, 64, 511))) * size)[:size]
    if kind < 0.9:
        out = bytearray(size)
        for _ in range(rng.randrange(1, 6)):
            at = rng.randrange(size)
            piece = rng.randbytes(min(size - at, rng.choice((1, 13, 512, 4096))))
            out[at:at + len(piece)] = piece
        return bytes(out)
    return bytes(size)


class Maker:
    def __init__(self, seed, folder):
        self.seed, self.folder = seed, folder
        self.rng = rng = random.Random(f"imgfs {seed}")
        self.features = []
        self.bits = 9 + seed % 13
        version = 2 if seed % 5 == 4 else 3
        extended = version == 3 and self.bits >= 14 and rng.random() < 0.4
        codec = "zstd" if version == 3 and rng.random() < 0.4 else "zlib"
        data_file = version == 3 and rng.random() < 0.15
        cluster = 1 << self.bits
        # Small clusters: several L2 tables; big ones: a handful of clusters.
        clusters = max(6, min(400, (24 << 20) >> self.bits, 400 - 20 * (self.bits - 9)))
        size = clusters * cluster - (rng.randrange(1, cluster) & ~511 if rng.random() < 0.6 else 0)
        self.w = qcow2.Writer(size, self.bits, version, seed % 7, codec, extended,
                              data_file=b"data.bin" if data_file else None,
                              data_raw=data_file and rng.random() < 0.5)
        self.features += [f"cluster_bits={self.bits}", f"version={version}", codec,
                          f"refcount_bits={1 << self.w.refcount_order}"]
        self.features += ["extended_l2"] * extended + ["data_file"] * data_file
        self.features += ["data_file_raw"] * self.w.data_raw
        self.below = b""

    def path(self, name):
        return os.path.join(self.folder, name)

    def base(self):
        """A backing file: raw or qcow2, shorter, longer or as long as the image."""
        rng, w = self.rng, self.w
        if w.data_raw or rng.random() < 0.4:
            return
        size = max(512, int(w.active.size * rng.choice((0.3, 0.7, 1, 1, 1.4))) & ~511)
        self.below = b"".join(some_data(rng, 1 << 14) for _ in range(-(-size >> 14)))[:size]
        self.below = self.below.ljust(size, b"\x5a")
        if rng.random() < 0.5:
            qcow2.write_flat(self.path("base.raw"), self.below)
            w.backing, w.backing_format = b"base.raw", b"raw"
        else:
            b = qcow2.Writer(size, rng.choice((9, 12, 16)))
            for i in range(-(-size // b.cluster)):
                piece = self.below[i * b.cluster:(i + 1) * b.cluster].ljust(b.cluster, b"\0")
                if any(piece):
                    b.active.entries[i] = b.data_entry(piece)
            b.finish(self.path("base.qcow2"))
            w.backing, w.backing_format = b"base.qcow2", b"qcow2"
        self.features.append(f"backing={os.fsdecode(w.backing)}")

    def gap(self):
        rng, w = self.rng, self.w
        if rng.random() < 0.9:
            return 0
        # Now and then so far that a whole refcount block stays away.
        per = w.cluster * 8 >> w.refcount_order
        return per * 2 if per * w.cluster < 1 << 19 and rng.random() < 0.2 else rng.randrange(1, 4)

    def entry(self, index, uses=1):
        rng, w = self.rng, self.w
        kind = rng.random()
        data = some_data(rng, w.cluster)
        if w.extended and kind < 0.5:
            zero = rng.choice((0, 0xFFFFFFFF, rng.getrandbits(32)))
            alloc = rng.choice((0xFFFFFFFF, rng.getrandbits(32))) & ~zero
            if rng.random() < 0.2:
                return qcow2.Entry("sub", None, b"", zero=zero)
            return w.data_entry(data, index, self.gap(), kind="sub", alloc=alloc, zero=zero)
        if w.version == 3 and kind < 0.6 and kind > 0.45:
            if rng.random() < 0.5:
                return qcow2.Entry("zero")
            # With a cluster whose bytes must not show. In extended images that is "sub".
            return w.data_entry(rng.randbytes(w.cluster), index, self.gap(), kind="zero")
        if kind > 0.75 and not w.data_file:
            level = rng.choice((0, 1, 6, 9))
            return w.coded_entry(data, rng.random() < 0.8, level, rng.choice((0, 0, 1, 37)), uses)
        return w.data_entry(data, index, self.gap())

    def fill(self):
        """The active disk, and snapshots that share some of its clusters."""
        rng, w = self.rng, self.w
        total = -(-w.active.size // w.cluster)
        wanted = 0 if w.data_file else rng.choice((0, 0, 1, 2, 3))
        if wanted >= w.max_refcount:
            wanted = 0
        order = [i for i in range(total) if rng.random() < rng.choice((0.4, 0.9))]
        if rng.random() < 0.6:
            rng.shuffle(order)
        for index in order:
            w.active.entries[index] = self.entry(index, wanted + 1)
        if rng.random() < 0.3:
            w.active.l1_size = -(-total // w.l2_entries) + rng.randrange(1, 4)
        for number in range(wanted):
            self.snapshot(number, total)

    def snapshot(self, number, total):
        rng, w = self.rng, self.w
        extra = rng.choice((16, 24, 40)) if w.version == 3 else rng.choice((0, 16, 24))
        size = w.active.size
        if extra:
            size = max(512, int(size * rng.choice((0.4, 1, 1, 1.5))) & ~511)
        mine = -(-size // w.cluster)
        s = qcow2.View(size, {}, None, str(number + 1).encode(),
                       rng.choice((b"first", b"with space", "schn\u00e4ppchen".encode(), b"x" * 60)) +
                       b" %d" % number, 0, extra, 1_600_000_000 + number)
        # Whole stretches are shared so that L2 tables can be shared too.
        step = max(1, w.l2_entries // rng.choice((1, 2, 8)))
        for start in range(0, mine, step):
            share = rng.random() < 0.6
            for index in range(start, min(start + step, mine)):
                if share and index in w.active.entries:
                    s.entries[index] = w.active.entries[index]
                elif not share and rng.random() < 0.3:
                    s.entries[index] = self.entry(index)
        if extra and rng.random() < 0.4:
            s.vm_state = len(VM_STATE)
            first = -(-mine // w.l2_entries) * w.l2_entries
            s.entries[first] = w.data_entry(VM_STATE.ljust(w.cluster, b"\0"), first)
            self.features.append("vm_state")
        if rng.random() < 0.3:
            s.l1_size = -(-mine // w.l2_entries) + rng.randrange(1, 9)
        w.snapshots.append(s)
        self.features.append(f"snapshot of {size - w.active.size:+d} bytes")

    def extras(self):
        rng, w = self.rng, self.w
        if w.version == 3:
            if rng.random() < 0.3:
                w.compatible |= qcow2.COMPAT_LAZY
                self.features.append("lazy_refcounts")
            if rng.random() < 0.15 and w.compatible:
                w.incompatible |= qcow2.INCOMPAT_DIRTY
                self.features.append("dirty")
            if rng.random() < 0.1:
                w.incompatible |= qcow2.INCOMPAT_CORRUPT
                self.features.append("corrupt")
            if rng.random() < 0.3:
                w.compatible |= 1 << 40
                w.autoclear |= 1 << 50
                self.features.append("unknown compatible and autoclear bits")
            if rng.random() < 0.3:
                w.header_length = 112 + 8 * rng.randrange(1, 9)
            elif w.codec == "zlib" and rng.random() < 0.3:
                w.header_length = 104
            if rng.random() < 0.3:
                bits = max(9, self.bits - rng.randrange(4))
                length = -(-(-(-w.active.size >> bits)) // 8)
                w.bitmap(b"bitmap 0", bits, rng.randbytes(length), flags=2)
                w.bitmap(b"ones", bits, bytes(length), ones=True)
                self.features.append("bitmaps")
        if rng.random() < 0.4 and self.bits > 9:
            w.extensions.append((0x12345678, rng.randbytes(rng.randrange(1, 40))))
            self.features.append("unknown header extension")
        if not w.data_file and not w.snapshots and rng.random() < 0.4:
            index = -(-w.active.size // w.cluster) - 1
            data = rng.randbytes(w.cluster // 3).ljust(w.cluster, b"\0")
            w.tail = w.active.entries[index] = qcow2.Entry("data", 0, data)
            self.features.append("last host cluster cut short")

    def run(self):
        os.makedirs(self.folder, exist_ok=True)
        w = self.w
        self.base()
        self.fill()
        self.extras()
        w.finish(self.path("image.qcow2"), self.path("data.bin") if w.data_file else None)
        qcow2.write_flat(self.path("flat.raw"), w.flat(w.active, self.below))
        snapshots = {}
        for s in w.snapshots:
            name = f"snapshot-{s.ident.decode()}.raw"
            qcow2.write_flat(self.path(name), w.flat(s, self.below))
            snapshots[s.ident.decode()] = {"name": s.name.decode(), "flat": name}
        with open(self.path("manifest.json"), "w", encoding="utf-8") as f:
            json.dump({"seed": self.seed, "features": self.features, "snapshots": snapshots}, f,
                      indent=1)


def main():
    Maker(int(sys.argv[1]), sys.argv[2]).run()


if __name__ == "__main__":
    main()
