# SPDX-License-Identifier: LGPL-2.1-or-later
"""Malformed raw and qcow2 images, each with what a careful program does with it.

The cases carry the numbers of the project's list of hostile images (Q1 to Q25,
R1, G1 and CVEs). Each is a small change to one plain image: 64 KiB clusters,
1 MiB disk, refcount table at 0x10000, refcount block at 0x20000, L1 at 0x30000,
L2 at 0x40000, data of the guest clusters 0 to 3 from 0x50000 on.

Classes:
  refuse   no command opens it
  chain    the image itself is sound, what it names is not: info may work, the rest refuses
  ok       opens, and shows what `flat` says
  eio      the same, but reading the clusters in `bad` is an I/O error
  suspect  the same, but the clusters in `bad` may also show anything
  any      only the limits count: one sentence, time, memory, no signal

usage: hostile FOLDER      makes every image, prints their names
"""
import os
import socket
import struct
import sys

import qcow2

C = 1 << 16
RT, RB, L1, L2, DATA = 0x10000, 0x20000, 0x30000, 0x40000, 0x50000
SIZE = 1 << 20
COPIED = qcow2.COPIED
ONE_MIB = 1 << 20


class Case:
    def __init__(self, name, kind, image, flat=None, bad=(), check=None, format=None, word=None,
                 snapshot=None, file=None, prepare=None, convert=True):
        self.name, self.kind, self.image = name, kind, image
        self.flat = flat
        self.bad = set(bad)              # guest clusters of 64 KiB
        self.check = check or {"ok": {0}, "eio": {2}, "suspect": {2}}.get(kind, {0, 1, 2, 3, 63})
        self.format = format             # given with -f, else probed
        self.snapshot = snapshot         # a snapshot that must not convert
        self.file = file or name + ".img"
        self.word = word or self.file    # the sentence must have it
        self.prepare = prepare           # makes what lies beside it; gets the folder
        self.convert = convert           # False: too big to read all of it


class Plain:
    """The plain image, and ways to change it."""

    def __init__(self, clusters=4):
        self.b = b = bytearray(DATA + clusters * C)
        struct.pack_into(">IIQIIQIIQQIIQQQQII", b, 0, qcow2.MAGIC, 3, 0, 0, 16, SIZE, 0, 1, L1, RT,
                         1, 0, 0, 0, 0, 0, 4, 112)
        self.put(">Q", RT, RB)
        for c in range(len(b) // C):
            self.refcount(c, 1)
        self.put(">Q", L1, L2 | COPIED)
        self.flat = bytearray(SIZE)
        for i in range(clusters):
            self.put(">Q", L2 + 8 * i, (DATA + i * C) | COPIED)
            data = struct.pack(">I", 0x11111111 * (i + 1)) * (C // 4)
            b[DATA + i * C:DATA + (i + 1) * C] = data
            self.flat[i * C:(i + 1) * C] = data

    def put(self, form, at, *values):
        struct.pack_into(form, self.b, at, *values)
        return self

    def refcount(self, cluster, value):
        return self.put(">H", RB + 2 * cluster, value)

    def more(self, data, count=1):
        """Appends whole clusters; returns where."""
        at = len(self.b)
        self.b += data.ljust(qcow2.up(max(len(data), 1), C), b"\0")
        for c in range(at // C, len(self.b) // C):
            self.refcount(c, count)
        return at

    def extension(self, at, magic, data):
        self.put(">II", at, magic, len(data))
        self.b[at + 8:at + 8 + len(data)] = data
        return at + 8 + qcow2.up(len(data), 8)

    def backing(self, name, form=None, at=512):
        self.put(">QI", 8, at, len(name))
        self.b[at:at + len(name)] = name
        if form is not None:
            self.extension(112, qcow2.EXT_BACKING_FORMAT, form)
        return self

    def data_file(self, name, raw=False):
        self.put(">QQQ", 72, qcow2.INCOMPAT_DATA_FILE, 0, 2 if raw else 0)
        self.extension(112, qcow2.EXT_DATA_FILE, name)
        for i in range(4):
            self.put(">Q", L2 + 8 * i, i * C | COPIED)
        return self

    def snapshots(self, *entries):
        """Of (l1 offset, l1 size, id, name, extra bytes)."""
        table = bytearray()
        for l1, l1_size, ident, name, extra in entries:
            table += struct.pack(">QIHHIIQII", l1, l1_size, len(ident), len(name), 0, 0, 0, 0,
                                 len(extra))
            table += extra + ident + name
            table += bytes(-len(table) % 8)
        place = self.more(bytes(table))
        self.put(">IQ", 60, len(entries), place)
        return self

    def snapshot_l1(self):
        """A sound L1 table of a snapshot with nothing in it."""
        return self.more(bytes(8))

    def coded(self, raw, cluster=5, sectors=None, zstd=False):
        """A compressed guest cluster from these bytes."""
        at = self.more(raw)
        n = (len(raw) + 511) // 512 - 1 if sectors is None else sectors
        self.put(">Q", L2 + 8 * cluster, qcow2.CODED | n << 54 | at)
        if zstd:
            self.put(">Q", 72, qcow2.INCOMPAT_COMPRESSION)
            self.b[104] = 1
        return self

    def bitmaps(self, count, directory, size=None, at=None):
        place = self.more(directory) if at is None else at
        ext = struct.pack(">IIQQ", count, 0, len(directory) if size is None else size, place)
        self.extension(112, qcow2.EXT_BITMAPS, ext)
        return self.put(">Q", 88, 1)


def poked(form, at, *values):
    return Plain().put(form, at, *values)


def header_cases():
    for v in (0, 1, 4, 0xFFFFFFFF):
        yield Case(f"Q1-version-{v:x}", "refuse", poked(">I", 4, v), format="qcow2")
    for v in (8, 22, 31, 63, 0xFFFFFFFF):
        yield Case(f"Q2-cluster-bits-{v:x}", "refuse", poked(">I", 20, v))
    for v in (103, 105, 0x10001, 0x7FFFFFFF, 0xFFFFFFFF):
        yield Case(f"Q3-header-length-{v:x}", "refuse", poked(">I", 100, v))
    yield Case("Q4-extension-huge", "refuse", poked(">II", 112, 0x12345678, 0x7FFFFFFF))
    yield Case("Q4-extension-past-cluster", "refuse", poked(">II", 112, 0x12345678, C))
    p = Plain().backing(b"base.raw", None, 128)
    yield Case("Q4-extension-over-backing-name", "refuse", p.put(">II", 112, 0x12345678, 64))
    p = Plain()
    p.extension(p.extension(112, qcow2.EXT_BACKING_FORMAT, b"raw"), qcow2.EXT_BACKING_FORMAT, b"raw")
    yield Case("Q4-extension-twice", "any", p)
    for v in (0x81, 0xFFFFFFFF):
        yield Case(f"Q5-table-clusters-{v:x}", "refuse", poked(">I", 56, v))
    for v in (0x1234567890ABCDEF, 0xFFFFFFFFFFFF0000, 0x10200):
        yield Case(f"Q5-table-offset-{v:x}", "refuse", poked(">Q", 48, v))
    yield Case("Q5-table-clusters-0", "any", poked(">I", 56, 0))
    yield Case("Q5-table-offset-0", "any", poked(">Q", 48, 0))
    yield Case("Q6-l1-size-0", "refuse", poked(">I", 36, 0))
    yield Case("Q6-l1-one-too-few", "refuse", poked(">Q", 24, (512 << 20) + 1))
    for v in (0x400001, 0xFFFFFFFF, 0x7FFFFFFF):
        yield Case(f"Q6-l1-size-{v:x}", "refuse", poked(">I", 36, v))
    for v in (0x30200, 0x7FFFFFFFFFFF0000, 0x10000000):
        yield Case(f"Q6-l1-offset-{v:x}", "refuse", poked(">Q", 40, v))
    yield Case("Q9-crypt-3", "refuse", poked(">I", 32, 3))
    yield Case("Q9-crypt-2-no-header", "refuse", poked(">I", 32, 2))
    yield Case("Q9-crypt-1", "chain", poked(">I", 32, 1))
    for v in (7, 63):
        yield Case(f"Q10-refcount-order-{v}", "refuse", poked(">I", 96, v))
    for v in (5, 63):
        yield Case(f"Q10-incompatible-bit-{v}", "refuse", poked(">Q", 72, 1 << v))
    yield Case("Q10-codec-2", "refuse", poked(">Q", 72, 8).put(">B", 104, 2))
    yield Case("Q10-codec-without-bit", "refuse", poked(">B", 104, 1))
    yield Case("Q10-bit-without-codec", "refuse", poked(">Q", 72, 8))
    yield Case("Q10-extended-l2-small-clusters", "refuse", poked(">Q", 72, 16).put(">I", 20, 13))
    p = poked(">Q", 24, 0)
    yield Case("Q21-size-0", "ok", p, b"")
    for v in ((1 << 63) - 1, (1 << 64) - 1):
        yield Case(f"Q21-size-{v:x}", "refuse", poked(">Q", 24, v))
    p = poked(">Q", 24, SIZE - 777)
    yield Case("Q21-size-odd", "ok", p, p.flat[:SIZE - 777])
    yield Case("CVE-2014-0144-backing-offset", "refuse", poked(">QI", 8, (1 << 64) - 1, 10))
    yield Case("CVE-2014-0144-table-clusters", "refuse", poked(">I", 56, 0x20001))
    yield Case("CVE-2014-0144-snapshots", "refuse", poked(">I", 60, 0x7FFFFFFF))


def snapshot_cases():
    extra = struct.pack(">QQQ", 0, SIZE, (1 << 64) - 1)
    yield Case("Q7-snapshots-65537", "refuse", poked(">IQ", 60, 65537, 0x50000))
    yield Case("Q7-snapshots-table-outside", "refuse", poked(">IQ", 60, 1, 1 << 40))
    yield Case("Q7-snapshots-table-cut", "refuse", poked(">IQ", 60, 5000, DATA + 3 * C))
    p = Plain()
    yield Case("Q7-snapshot-extra-large", "any",
               p.snapshots((p.snapshot_l1(), 1, b"1", b"one", bytes(1032))))
    p = Plain()
    yield Case("Q7-snapshot-extra-0", "ok",
               p.snapshots((p.snapshot_l1(), 1, b"1", b"one", b"")), p.flat, check={2})
    for name, l1, size in (("unaligned", 0x30200, 1), ("huge", L1, 0x10000000),
                           ("outside", 1 << 40, 1), ("short", L1, 0)):
        p = Plain()
        p.snapshots((l1, size, b"1", b"bad", extra), (p.snapshot_l1(), 1, b"2", b"good", extra))
        yield Case(f"Q8-snapshot-l1-{name}", "ok", p, p.flat, check={0, 1, 2}, snapshot="1")
    names = {"utf8": (b"1", b"\xff\xfe\xc0"), "newline": (b"1", b"a\nb\x1b[31m"), "slash": (b"1", b"../x"),
             "dots": (b"1", b".."), "empty": (b"", b""), "long": (b"1", b"n" * 1000),
             "quote": (b"1", b'a"b\\')}
    for word, (ident, name) in names.items():
        p = Plain()
        l1 = p.snapshot_l1()
        p.snapshots((l1, 1, ident, name, extra))
        yield Case(f"Q8-snapshot-name-{word}", "ok", p, p.flat, check={0, 2})
    p = Plain()
    p.snapshots((p.snapshot_l1(), 1, b"1", b"same", extra), (p.snapshot_l1(), 1, b"1", b"same", extra))
    yield Case("Q8-snapshot-twice", "ok", p, p.flat, check={0, 2})
    p = Plain()
    p.snapshots((L1, 1, b"1", b"shared", extra))
    # A snapshot that uses the active L1 without counting anything.
    yield Case("CVE-2014-0145-shared-l1", "ok", p, p.flat, check={2})


def table_cases():
    everything = range(16)
    for name, value in (("itself", L1 | COPIED), ("unaligned", L2 | 0x2A00 | COPIED),
                        ("past-end", 1 << 40 | COPIED), ("bit-50", 1 << 50), ("bit-55", 1 << 55)):
        p = poked(">Q", L1, value)
        kind = "suspect" if name == "itself" else "eio"
        yield Case(f"Q11-l1-{name}", kind, p, p.flat, everything)
    for bit in (1, 8, 56, 61):
        p = poked(">Q", L1, L2 | COPIED | 1 << bit)
        yield Case(f"Q12-l1-reserved-{bit}", "suspect", p, p.flat, everything, check={0, 2})
        p = poked(">Q", L2, DATA | COPIED | 1 << bit)
        yield Case(f"Q12-l2-reserved-{bit}", "suspect", p, p.flat, [0], check={0, 2})
    p = poked(">Q", L2, DATA | 0x2A00 | COPIED)
    yield Case("Q12-l2-unaligned", "eio", p, p.flat, [0])
    for name, value in (("header", 0), ("refcount-table", RT), ("refcount-block", RB), ("l1", L1),
                        ("l2", L2)):
        p = poked(">Q", L2 + 8, value | COPIED)
        yield Case(f"Q12-l2-at-{name}", "suspect", p, p.flat, [1], check={2, 3})
        p = poked(">Q", L1, value | COPIED)
        if value not in (L1, L2):
            yield Case(f"Q12-l1-at-{name}", "suspect", p, p.flat, everything)
    for name, value in (("bit-50", 1 << 50), ("bit-55", 1 << 55), ("past-end", 0x10000000)):
        p = poked(">Q", L2 + 16, value | COPIED)
        yield Case(f"Q13-l2-{name}", "eio", p, p.flat, [2])
    # Found by fuzzing: written to, it made the file 32 TiB long.
    p = poked(">Q", L2 + 8 * 9, 1 << 45 | qcow2.ZERO | COPIED)
    yield Case("Q13-l2-zero-kept-past-end", "ok", p, p.flat, check={2})
    p = poked(">Q", L2 + 8 * 9, DATA)
    p.flat[9 * C:10 * C] = p.flat[:C]
    yield Case("Q14-two-users-counted-once", "ok", p, p.flat, check={2})
    p = Plain().refcount(DATA // C, 2)
    yield Case("Q14-copied-but-counted-twice", "ok", p, p.flat, check={2, 3})
    p = poked(">Q", L2, DATA)
    yield Case("Q14-not-copied-but-counted-once", "ok", p, p.flat, check={2})
    p = Plain()
    p.more(b"lost")
    yield Case("Q14-leak", "ok", p, p.flat, check={3})
    for name, value in (("0", 0), ("far", 0x00FFFFFF00000000), ("unaligned", RB | 0x2A00),
                        ("l1", L1), ("reserved", RB | 0x1FE)):
        p = poked(">Q", RT, value)
        yield Case(f"Q15-table-entry-{name}", "ok", p, p.flat, 
                   check={0, 2} if name == "reserved" else {1, 2})
    for name, value in (("far", 0x00FFFFFF00000000), ("unaligned", 0x2A00), ("again", RB)):
        p = poked(">Q", RT + 8, value)
        yield Case(f"Q15-second-entry-{name}", "ok", p, p.flat, check={2})
    for name, cluster in (("header", 0), ("block-itself", RB // C), ("data", DATA // C)):
        p = Plain().refcount(cluster, 0)
        yield Case(f"Q15-count-0-of-{name}", "ok", p, p.flat, check={2})


def zstd_frame(blocks, window=0x30, descriptor=0, more=b""):
    """A frame by hand: blocks are (type, size, payload)."""
    out = struct.pack("<I", 0xFD2FB528) + bytes([descriptor, window]) + more
    for i, (kind, size, payload) in enumerate(blocks):
        out += struct.pack("<I", (i == len(blocks) - 1) | kind << 1 | size << 3)[:3] + payload
    return out


def compressed_cases():
    data = b"compressed " * (C // 11) + b"12345"
    data = data[:C].ljust(C, b"x")
    good = qcow2.deflate(data)

    def case(name, kind, raw, zstd=False, check=None, show=None, **more):
        p = Plain().coded(raw, zstd=zstd, **more)
        if kind == "ok":
            p.flat[5 * C:6 * C] = data if show is None else show
        return Case(name, kind, p, p.flat, [5], check=check or {0, 2})

    yield case("Q16-good", "ok", good, check={0})
    yield case("Q16-garbage", "eio", b"\xff" * 4096)
    yield case("Q16-zeroes", "eio", bytes(4096))
    yield case("Q16-four-bytes", "eio", qcow2.deflate(b"four"))
    yield case("Q16-half", "eio", qcow2.deflate(data[:C // 2]))
    yield case("Q16-cut", "eio", good[:20])
    yield case("Q16-too-much", "suspect", qcow2.deflate(data + data))
    yield case("Q16-bomb", "suspect", qcow2.deflate(bytes(64 << 20)))
    yield case("Q16-all-sectors", "suspect", good, sectors=255)
    for name, word in (("past-end", 1 << 40), ("last-bit", (1 << 54) - 1), ("header", 0), ("l2", L2)):
        p = poked(">Q", L2 + 40, qcow2.CODED | word)
        yield Case(f"Q16-at-{name}", "eio", p, p.flat, [5])
    p = Plain().coded(good)
    p.b[L2 + 40] |= 0x80    # bit 63 of a compressed entry
    yield Case("Q16-copied", "suspect", p, p.flat, [5])
    rle = b"\x5a" * C
    yield case("Q17-unknown-size", "ok", zstd_frame([(1, C, b"\x5a")]), True, show=rle, check={0})
    half = zstd_frame([(1, C // 2, b"\x5a")])
    yield case("Q17-two-frames", "suspect", half + half, True)
    yield case("Q17-half-a-frame", "eio", half, True)
    yield case("Q17-window-1g", "suspect", zstd_frame([(1, C, b"\x5a")], window=0xA0), True)
    yield case("Q17-window-max", "suspect", zstd_frame([(1, C, b"\x5a")], window=0xFF), True)
    yield case("Q17-dictionary", "eio", zstd_frame([(1, C, b"\x5a")], descriptor=1, more=b"\x07"), True)
    yield case("Q17-bomb", "suspect", zstd_frame([(1, C, b"\x5a")] * 8000), True)
    yield case("Q17-reserved-block", "eio", zstd_frame([(3, C, b"\x5a")]), True)
    yield case("Q17-garbage", "eio", b"\x28\xb5\x2f\xfd" + b"\xff" * 999, True)


def extended():
    """The plain image with subclusters, all of them allocated."""
    p = Plain()
    p.put(">Q", 72, qcow2.INCOMPAT_EXTENDED_L2)
    for i in range(16):
        p.put(">QQ", L2 + 16 * i, (DATA + i * C) | COPIED if i < 4 else 0, 0xFFFFFFFF if i < 4 else 0)
    return p


def extended_cases():
    p = extended()
    yield Case("Q18-good", "ok", p, p.flat)
    p = extended().put(">Q", L2 + 8, 0x1_FFFFFFFF)
    yield Case("Q18-both-bits", "eio", p, p.flat, [0])
    p = extended().put(">QQ", L2 + 16 * 6, 0, 0xFF)
    yield Case("Q18-allocated-nowhere", "eio", p, p.flat, [6])
    p = extended().put(">Q", L2, DATA | COPIED | 1)
    yield Case("Q18-zero-flag", "suspect", p, p.flat, [0])
    p = extended()
    at = p.more(qcow2.deflate(bytes(C)))
    p.put(">QQ", L2 + 16 * 6, qcow2.CODED | at, 1)
    yield Case("Q18-compressed-with-bitmap", "suspect", p, p.flat, [6])


def bitmap_cases():
    entry = struct.pack(">QIIBBHI", 0, 1, 0, 1, 16, 1, 0) + b"x" + bytes(7)
    ok = {0, 1, 2, 3}

    def case(name, count, directory, **more):
        p = Plain().bitmaps(count, directory, **more)
        return Case(f"Q20-bitmaps-{name}", "suspect", p, p.flat, [], check=ok)

    yield case("none", 0, entry)
    yield case("65536", 65536, entry)
    yield case("size", 1, entry, size=1 << 40)
    yield case("outside", 1, entry, at=1 << 40)
    yield case("unaligned", 1, entry, at=DATA + 8)
    for g in (8, 32, 63, 255):
        yield case(f"granularity-{g}", 1, entry[:17] + bytes([g]) + entry[18:])
    yield case("no-name", 1, entry[:18] + bytes(2) + entry[20:])
    yield case("long-name", 1, entry[:18] + b"\x04\x00" + entry[20:])
    yield case("twice", 2, entry + entry)
    yield case("table-size", 1, entry[:8] + b"\xff\xff\xff\xff" + entry[12:])
    yield case("extra", 1, entry[:20] + b"\xff\xff\xff\xff" + entry[24:])


def tiny_chain(folder):
    for i in range(1002):
        w = qcow2.Writer(4096, 9)
        if i < 1001:
            w.backing, w.backing_format = b"deep%d.img" % (i + 1), b"qcow2"
        w.finish(os.path.join(folder, f"deep{i}.img"))


def beside(name, make):
    return lambda folder: make(os.path.join(folder, name))


def unix_socket(path):
    here = os.getcwd()
    os.chdir(os.path.dirname(path))
    s = socket.socket(socket.AF_UNIX)
    s.bind(os.path.basename(path))
    s.close()
    os.chdir(here)


def reference_cases():
    def back(name, value, kind="chain", form=b"raw", **more):
        p = Plain().backing(value, form)
        return Case("Q22-" + name, kind, p, p.flat, **more)

    yield back("self", b"Q22-self.img", form=b"qcow2")
    other = Plain().backing(b"Q22-loop-a.img", b"qcow2")
    yield back("loop-a", b"Q22-loop-b.img", form=b"qcow2", word="Q22-loop",
               prepare=lambda folder: write(folder, "Q22-loop-b.img", other.b))
    yield Case("Q22-deep", "chain", None, file="deep0.img", prepare=tiny_chain, word="deep")
    yield back("fifo", b"a.fifo", prepare=beside("a.fifo", os.mkfifo), word="a.fifo")
    yield back("directory", b"a.dir", prepare=beside("a.dir", os.mkdir), word="a.dir")
    yield back("device", b"/dev/zero", word="/dev/zero")
    yield back("socket", b"a.socket", prepare=beside("a.socket", unix_socket), word="a.socket")
    yield back("symlinks", b"a.link", word="a.link",
               prepare=beside("a.link", lambda p: os.symlink("a.link", p)))
    yield back("missing", b"nowhere.raw", word="nowhere.raw")
    yield back("passwd", b"/etc/passwd", word="/etc/passwd")
    yield back("dots", b"../../../../../../../../etc/passwd", word="etc/passwd")
    yield back("json", b'json:{"driver":"raw","file":{"driver":"file","filename":"/etc/passwd"}}')
    yield back("nbd", b"nbd://127.0.0.1:1/x")
    yield back("host-device", b"host_device:/dev/zero")
    yield back("1023", b"n" * 1023)
    yield back("1024", b"n" * 1024, "refuse")
    yield back("nul", b"base\0.raw", "any")
    p = Plain().put(">QI", 8, 512, 0)
    # Both or none: half a name is damage.
    yield Case("Q22-size-0", "refuse", p)
    yield Case("Q22-past-cluster", "refuse", Plain().put(">QI", 8, C - 10, 100))
    yield Case("Q22-over-header", "refuse", Plain().put(">QI", 8, 16, 100))
    yield back("unknown-format", b"base.raw", form=b"nosuchformat",
               prepare=lambda folder: write(folder, "base.raw", bytes(512)))
    yield back("long-format", b"base.raw", "refuse", form=b"f" * 16)
    # Each is CVE-2024-32498 or CVE-2024-4467: names in images are no commands.
    def data(name, value, kind="chain", raw=False, **more):
        p = Plain().data_file(value, raw)
        return Case("Q24-" + name, kind, p, p.flat, **more)

    yield data("data-missing", b"nowhere.bin", word="nowhere.bin")
    yield data("data-passwd", b"/etc/passwd", word="/etc/passwd", raw=True)
    yield data("data-fifo", b"b.fifo", prepare=beside("b.fifo", os.mkfifo), word="b.fifo")
    yield data("data-itself", b"Q24-data-itself.img")
    yield data("data-json", b'json:{"driver":"qcow2","file":{"driver":"quorum","vote-threshold":1,'
               b'"rewrite-corrupted":true,"children":[{"driver":"file","filename":"/etc/passwd"}]}}')
    p = Plain().data_file(b"short.bin")
    yield Case("Q24-data-short", "suspect", p, p.flat, range(16), check={0, 1, 2, 3},
               prepare=lambda folder: write(folder, "short.bin", bytes(C)))
    yield Case("Q24-raw-bit-alone", "refuse", poked(">Q", 88, 2))
    yield Case("Q24-bit-alone", "chain", poked(">Q", 72, 4))
    p = Plain().data_file(b"coded.bin")
    p.coded(qcow2.deflate(bytes(C)))
    yield Case("Q24-data-compressed", "suspect", p, p.flat, range(16), check={0, 1, 2, 3},
               prepare=lambda folder: write(folder, "coded.bin", bytes(p.flat)))


def both(p):
    return p, p.flat


def big_cases():
    # Q25: a million guest clusters that are all the same compressed one.
    p = Plain()
    p.put(">Q", 24, 64 << 30).put(">I", 36, 128)
    at = p.more(qcow2.deflate(b"again" * 13107 + b"x"))
    for i in range(128):
        p.put(">Q", L1 + 8 * i, L2)
    p.b[L2:L2 + C] = struct.pack(">Q", qcow2.CODED | at) * 8192
    yield Case("Q25-one-cluster-for-all", "any", p, convert=False)
    # A table of tables that is the same L2 over and over: 2 EiB at 2 MiB clusters.
    p = Plain()
    p.put(">Q", 24, 8192 * (512 << 20)).put(">I", 36, 8192)
    p.b[L1:L1 + C] = struct.pack(">Q", L2) * 8192
    yield Case("Q25-one-table-for-all", "any", p, convert=False)


def double_cases():
    """Two formats at once: the first sector decides, or the format that is given."""
    def also(name, at, data, end=False):
        p = Plain()
        if end:
            p.more(data, 0)
        else:
            p.b[at:at + len(data)] = data
        return p

    footer = b"conectix" + struct.pack(">IIQ", 2, 0x10000, (1 << 64) - 1) + bytes(488)
    for name, p in (
            ("vhd-footer", also("vhd", 0, bytes(C - 512) + footer, True)),
            ("vmdk-footer", also("vmdk", 0, bytes(C - 1024) + b"KDMV" + bytes(1020), True)),
            ("dmg-footer", also("dmg", 0, bytes(C - 512) + b"koly" + bytes(508), True)),
            ("mbr", also("mbr", 446, b"\x80\0\2\0\x83\0\0\0\1\0\0\0\x10\0\0\0" + bytes(48) +
                         b"\x55\xaa")),
            ("gpt", also("gpt", 512, b"EFI PART\0\0\1\0\x5c\0\0\0")),
            ("iso", also("iso", 0x8001, b"CD001\1")),
            ("ext2", also("ext2", 1080, b"\x53\xef")),
            ("luks", also("luks", 4096, b"LUKS\xba\xbe\0\1"))):
        yield Case(f"G1-both-{name}", "ok", p, p.flat, check={0})
        yield Case(f"G1-both-{name}-as-raw", "ok", bytes(p.b), bytes(p.b), check={63}, format="raw")


def raw_cases():
    yield Case("R1-empty", "ok", b"", b"", check={63}, format="raw")
    yield Case("R1-513-bytes", "ok", b"\xaa" * 513, b"\xaa" * 513, check={63}, format="raw")
    yield Case("R1-one-byte", "ok", b"\x55", b"\x55", check={63})
    p = Plain().backing(b"/etc/shadow", b"raw")
    yield Case("CVE-2008-2004-qcow2-said-raw", "ok", p, bytes(p.b), check={63}, format="raw")
    yield Case("CVE-2008-2004-probed", "chain", p, word="/etc/shadow")
    yield Case("R1-directory", "refuse", None, file="raw.dir", prepare=beside("raw.dir", os.mkdir))
    yield Case("R1-fifo", "refuse", None, file="raw.fifo", prepare=beside("raw.fifo", os.mkfifo))
    yield Case("R1-missing", "refuse", None, file="no-such-file.raw")


def truncated_cases():
    p = Plain()
    ends = [1, 3, 4, 8, 71, 72, 103, 104, 111, 112] + list(range(512, 8192, 512))
    for table in (RT, RB, L1, L2, DATA, DATA + C):
        ends += [table - 1, table, table + 1, table + 511, table + 4096]
    for end in sorted(set(ends)):
        yield Case(f"G1-cut-{end:x}", "any", bytes(p.b[:end]))


def header_byte_cases():
    """Every byte of the header set to four values; to be judged by the limits alone."""
    for at in range(112):
        for value in (0x00, 0x7F, 0x80, 0xFF):
            p = Plain()
            if p.b[at] != value:
                p.b[at] = value
                yield Case(f"G1-byte-{at}-{value:02x}", "any", p, convert=False)


GROUPS = (header_cases, snapshot_cases, table_cases, compressed_cases, extended_cases, bitmap_cases,
          reference_cases, big_cases, double_cases, raw_cases, truncated_cases, header_byte_cases)


def write(folder, name, data):
    with open(os.path.join(folder, name), "wb") as f:
        f.write(data)


def cases(groups=GROUPS):
    for group in groups:
        yield from group()


def make(case, folder):
    if case.prepare:
        case.prepare(folder)
    if case.image is not None:
        write(folder, case.file, case.image if isinstance(case.image, bytes) else case.image.b)


def main():
    os.makedirs(sys.argv[1], exist_ok=True)
    for case in cases():
        make(case, sys.argv[1])
        print(case.kind, case.file)


if __name__ == "__main__":
    main()
