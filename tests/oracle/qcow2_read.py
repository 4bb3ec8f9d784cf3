# SPDX-License-Identifier: LGPL-2.1-or-later
"""A reader of qcow2 images, made from the specification alone; slow and strict.

usage: qcow2_read flat IMAGE OUT [SNAPSHOT-ID]     the disk as a guest sees it
       qcow2_read entries IMAGE                    one line for each guest cluster
"""
import os
import struct
import sys

import qcow2


class Reader:
    def __init__(self, path):
        self.path = path
        with open(path, "rb") as f:
            self.file = f.read()
        (magic, self.version, name_at, name_len, self.bits, self.size, crypt, self.l1_size, self.l1,
         self.table, self.table_clusters, snapshots, snapshots_at) = struct.unpack_from(
             ">IIQIIQIIQQIIQ", self.file)
        if magic != qcow2.MAGIC or self.version not in (2, 3) or crypt:
            raise ValueError("not a qcow2 image that this reader knows")
        self.incompatible = self.compatible = self.autoclear = 0
        self.refcount_order, length, self.codec = 4, 72, "zlib"
        if self.version == 3:
            (self.incompatible, self.compatible, self.autoclear, self.refcount_order,
             length) = struct.unpack_from(">QQQII", self.file, 72)
            if self.incompatible & qcow2.INCOMPAT_COMPRESSION:
                self.codec = ["zlib", "zstd"][self.file[104]]
        if self.incompatible >> 5:
            raise ValueError("unknown incompatible features")
        self.cluster = 1 << self.bits
        self.extended = bool(self.incompatible & qcow2.INCOMPAT_EXTENDED_L2)
        self.l2_entries = self.cluster // (16 if self.extended else 8)
        self.backing = self.file[name_at:name_at + name_len] if name_at else None
        self.extensions = dict(self.read_extensions(length, name_at or self.cluster))
        self.snapshots = list(self.read_snapshots(snapshots, snapshots_at))
        self.data = self.file
        if self.incompatible & qcow2.INCOMPAT_DATA_FILE:
            with open(self.beside(self.extensions[qcow2.EXT_DATA_FILE]), "rb") as f:
                self.data = f.read()

    def beside(self, name):
        return os.path.join(os.path.dirname(self.path), os.fsdecode(name))

    def read_extensions(self, at, end):
        while at + 8 <= end:
            magic, length = struct.unpack_from(">II", self.file, at)
            if magic == 0:
                return
            yield magic, self.file[at + 8:at + 8 + length]
            at += 8 + qcow2.up(length, 8)

    def read_snapshots(self, count, at):
        for _ in range(count):
            (l1, l1_size, id_len, name_len, _, _, _, vm_state,
             extra) = struct.unpack_from(">QIHHIIQII", self.file, at)
            at += 40
            size = self.size
            if extra >= 16:
                vm_state, size = struct.unpack_from(">QQ", self.file, at)
            at += extra
            ident = self.file[at:at + id_len]
            name = self.file[at + id_len:at + id_len + name_len]
            at = qcow2.up(at + id_len + name_len, 8)
            yield {"l1": l1, "l1_size": l1_size, "size": size, "id": ident, "name": name,
                   "vm_state": vm_state}

    def word(self, at):
        return struct.unpack_from(">Q", self.file, at)[0]

    def entry(self, l1, l1_size, index):
        number = index // self.l2_entries
        table = self.word(l1 + number * 8) & 0x00FFFFFFFFFFFE00 if number < l1_size else 0
        if not table:
            return 0, 0
        at = table + index % self.l2_entries * (16 if self.extended else 8)
        return self.word(at), self.word(at + 8) if self.extended else 0

    def piece(self, host, length):
        """Bytes of the data file; what lies past its end reads as zeroes."""
        return self.data[host:host + length].ljust(length, b"\0")

    def apply(self, out, at, word, bitmap):
        end = min(at + self.cluster, len(out))
        if word & qcow2.CODED:
            x = 62 - (self.bits - 8)
            host = word & ((1 << x) - 1)
            sectors = (word >> x & ((1 << (self.bits - 8)) - 1)) + 1
            raw = self.file[host:(host // 512 + sectors) * 512]
            out[at:end] = qcow2.decode(raw, self.codec, self.cluster)[:end - at]
            return
        host = word & 0x00FFFFFFFFFFFE00
        if self.extended:
            size = self.cluster // 32
            for i in range(32):
                a, z = at + i * size, min(at + (i + 1) * size, end)
                if a >= end:
                    break
                if bitmap >> 32 + i & 1:
                    out[a:z] = bytes(z - a)
                elif bitmap >> i & 1:
                    out[a:z] = self.piece(host + i * size, z - a)
        elif self.version == 3 and word & qcow2.ZERO:
            out[at:end] = bytes(end - at)
        elif host or word & qcow2.COPIED:
            out[at:end] = self.piece(host, end - at)

    def flat(self, snapshot=None):
        l1, l1_size, size = self.l1, self.l1_size, self.size
        if snapshot is not None:
            l1, l1_size, size = (self.snapshots[snapshot][k] for k in ("l1", "l1_size", "size"))
        out = bytearray(size)
        if self.backing:
            below = flat(self.beside(self.backing), self.extensions.get(qcow2.EXT_BACKING_FORMAT))
            n = min(len(below), size)
            out[:n] = below[:n]
        for index in range(-(-size // self.cluster)):
            self.apply(out, index * self.cluster, *self.entry(l1, l1_size, index))
        return out


def flat(path, kind=None, snapshot=None):
    with open(path, "rb") as f:
        head = f.read(4)
        if kind == b"raw" or head != b"QFI\xfb":
            return head + f.read()
    return Reader(path).flat(snapshot)


def main():
    if sys.argv[1] == "flat":
        snapshot = None
        if len(sys.argv) > 4:
            ids = [s["id"] for s in Reader(sys.argv[2]).snapshots]
            snapshot = ids.index(os.fsencode(sys.argv[4]))
        qcow2.write_flat(sys.argv[3], flat(sys.argv[2], None, snapshot))
    elif sys.argv[1] == "entries":
        r = Reader(sys.argv[2])
        for index in range(-(-r.size // r.cluster)):
            word, bitmap = r.entry(r.l1, r.l1_size, index)
            print(index, f"{word:#018x}", f"{bitmap:#018x}" if r.extended else "")
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
