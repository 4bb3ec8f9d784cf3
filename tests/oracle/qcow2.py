# SPDX-License-Identifier: LGPL-2.1-or-later
"""A writer of qcow2 images, made from the specification alone.

It shares nothing with the program under test: the content that an image must
show is kept beside the tables while both are made. Small images only: all of
it lies in memory. See qcow2_random.py for images from a seed, hostile.py for
malformed ones, qcow2_read.py for the way back.
"""
import ctypes
import struct
import zlib

MAGIC = 0x514649FB
EXT_BACKING_FORMAT = 0xE2792ACA
EXT_FEATURE_NAMES = 0x6803F857
EXT_BITMAPS = 0x23852875
EXT_DATA_FILE = 0x44415441
INCOMPAT_DIRTY, INCOMPAT_CORRUPT, INCOMPAT_DATA_FILE = 1, 2, 4
INCOMPAT_COMPRESSION, INCOMPAT_EXTENDED_L2 = 8, 16
COMPAT_LAZY = 1
AUTOCLEAR_BITMAPS, AUTOCLEAR_RAW_DATA = 1, 2
COPIED, CODED, ZERO = 1 << 63, 1 << 62, 1


def up(value, unit):
    return (value + unit - 1) // unit * unit


class Zstd:
    """One call of the system's libzstd; no Python package is needed."""

    def __init__(self):
        self.lib = ctypes.CDLL("libzstd.so.1")
        for name in "ZSTD_compressBound ZSTD_compress ZSTD_decompress ZSTD_isError".split():
            getattr(self.lib, name).restype = ctypes.c_size_t

    def encode(self, data):
        bound = self.lib.ZSTD_compressBound(ctypes.c_size_t(len(data)))
        out = ctypes.create_string_buffer(bound)
        n = self.lib.ZSTD_compress(out, ctypes.c_size_t(bound), data,
                                   ctypes.c_size_t(len(data)), ctypes.c_int(3))
        assert not self.lib.ZSTD_isError(ctypes.c_size_t(n))
        return out.raw[:n]

    def decode(self, data, size):
        self.lib.ZSTD_findFrameCompressedSize.restype = ctypes.c_size_t
        frame = self.lib.ZSTD_findFrameCompressedSize(data, ctypes.c_size_t(len(data)))
        out = ctypes.create_string_buffer(size)
        n = self.lib.ZSTD_decompress(out, ctypes.c_size_t(size), data, ctypes.c_size_t(frame))
        if self.lib.ZSTD_isError(ctypes.c_size_t(n)) or n != size:
            raise ValueError("bad zstd data")
        return out.raw


def deflate(data, level=6):
    z = zlib.compressobj(level, zlib.DEFLATED, -12)
    return z.compress(data) + z.flush()


def encode(data, codec, level=6):
    return Zstd().encode(data) if codec == "zstd" else deflate(data, level)


def decode(data, codec, size):
    if codec == "zstd":
        return Zstd().decode(data, size)
    out = zlib.decompressobj(-15).decompress(data, size)
    if len(out) != size:
        raise ValueError("bad deflate data")
    return out


class Entry:
    """What an L2 entry says of one cluster. host None: nothing is allocated."""

    def __init__(self, kind, host=None, data=b"", sectors=0, alloc=0, zero=0):
        self.kind = kind        # "data", "zero", "coded", "sub"
        self.host = host        # byte offset; of the first byte for "coded"
        self.data = data        # content of the cluster ("data", "coded", "sub")
        self.sectors = sectors  # "coded": the additional 512-byte sectors
        self.alloc, self.zero = alloc, zero  # "sub": one bit a subcluster


class View:
    """The active disk or a snapshot: entries by guest cluster number."""

    def __init__(self, size, entries=None, l1_size=None, ident=b"", name=b"", vm_state=0,
                 extra=24, date=0):
        self.size, self.l1_size = size, l1_size
        self.entries = entries if entries is not None else {}
        self.ident, self.name, self.vm_state = ident, name, vm_state
        self.extra, self.date = extra, date
        self.l1 = 0  # where its L1 table went


class Writer:
    def __init__(self, size, cluster_bits=16, version=3, refcount_order=4, codec="zlib",
                 extended=False, backing=None, backing_format=None, data_file=None,
                 data_raw=False):
        self.bits, self.cluster = cluster_bits, 1 << cluster_bits
        self.version, self.codec, self.extended = version, codec, extended
        self.refcount_order = refcount_order if version == 3 else 4
        self.max_refcount = (1 << (1 << self.refcount_order)) - 1
        self.backing, self.backing_format = backing, backing_format
        self.data_file, self.data_raw = data_file, data_raw
        self.active = View(size)
        self.snapshots = []
        self.bitmaps = []
        self.extensions = []    # (magic, bytes) that nobody knows
        self.incompatible = self.compatible = self.autoclear = 0
        self.header_length = 112
        self.l2_entries = self.cluster // (16 if extended else 8)
        self.end = 1            # first host cluster that was never handed out
        self.count = {0: 1}     # refcounts by host cluster; the header has one
        self.pieces = {}        # host byte offset -> bytes
        self.data_pieces = {}   # the same for the external data file
        self.data_end = 0
        self.pack = None        # where the next compressed cluster may begin
        self.tail = None        # an Entry whose cluster is the last, cut one

    # ---- space

    def alloc(self, clusters=1, gap=0):
        at = self.end + gap
        self.end = at + clusters
        return at * self.cluster

    def refer(self, host, length=1):
        for c in range(host // self.cluster, (host + length - 1) // self.cluster + 1):
            self.count[c] = self.count.get(c, 0) + 1

    def room(self, host, length):
        """May one more reference be counted in each cluster of the range?"""
        return all(self.count.get(c, 0) + self.pending.get(c, 0) < self.max_refcount
                   for c in range(host // self.cluster, (host + length - 1) // self.cluster + 1))

    # ---- content

    def data_entry(self, data, guest=0, gap=0, **more):
        """A cluster of its own for data (bytes of one cluster)."""
        kind = more.pop("kind", "data")
        if self.data_file:
            host = guest * self.cluster     # the specification demands it
            self.data_end = max(self.data_end, host + self.cluster)
            self.data_pieces[host] = data
        else:
            host = self.alloc(1, gap)
            self.pieces[host] = data
        return Entry(kind, host, data, **more)

    def coded_entry(self, data, packed=True, level=6, skew=0, uses=1):
        """A compressed cluster, which begins where the last one ended if packed."""
        raw = encode(data, self.codec, level)
        self.pending = getattr(self, "pending", {})
        most = ((1 << (self.bits - 8)) - 1) * 512
        if len(raw) > most:
            return self.data_entry(data)
        at = self.pack + skew if self.pack is not None and packed else None
        # The rest of the cluster that pack lies in, and what follows if it is the end.
        if at is not None:
            span_end = up(at + len(raw), 512)
            ends = up(self.pack, self.cluster)
            tail_free = ends == self.end * self.cluster
            fits = span_end <= ends or tail_free
            if not fits or any(self.pending.get(c, 0) + uses > self.max_refcount
                               for c in range(at // self.cluster,
                                              (span_end - 1) // self.cluster + 1)):
                at = None
        if at is None:
            at = self.alloc(1)
            at += skew if up(at + skew + len(raw), 512) <= at + self.cluster else 0
            span_end = up(at + len(raw), 512)
        while self.end * self.cluster < span_end:
            self.end += 1
        for c in range(at // self.cluster, (span_end - 1) // self.cluster + 1):
            self.pending[c] = self.pending.get(c, 0) + uses
        self.pieces[at] = raw
        self.pack = at + len(raw)
        return Entry("coded", at, data, sectors=(span_end - 1) // 512 - at // 512)

    def bitmap(self, name, granularity_bits, bits, flags=0, ones=False):
        """bits: bytes of the bitmap; ones: a table of "all ones" entries instead."""
        self.bitmaps.append((name, granularity_bits, bits, flags, ones))

    # ---- what it must show

    def flat(self, view, below=b""):
        """The bytes of the view over a backing disk (bytes)."""
        out = bytearray(view.size)
        n = min(len(below), view.size)
        out[:n] = below[:n]
        for index, e in view.entries.items():
            at = index * self.cluster
            if at >= view.size:
                continue
            if e.kind == "sub":
                size = self.cluster // 32
                for i in range(32):
                    a, z = at + i * size, min(at + (i + 1) * size, view.size)
                    if a >= view.size:
                        break
                    if e.zero >> i & 1:
                        out[a:z] = bytes(z - a)
                    elif e.alloc >> i & 1:
                        out[a:z] = e.data[i * size:i * size + z - a]
            else:
                z = min(at + self.cluster, view.size)
                out[at:z] = bytes(z - at) if e.kind == "zero" else e.data[:z - at]
        return out

    # ---- tables

    def entry_words(self, e):
        if e.kind == "coded":
            x = 62 - (self.bits - 8)
            word = CODED | e.sectors << x | e.host
        else:
            word = 0
            if e.host is not None:
                copied = self.data_file or self.count[e.host // self.cluster] == 1
                word = e.host | (COPIED if copied else 0)
            if e.kind == "zero" and not self.extended:
                word |= ZERO
        if not self.extended:
            return [word]
        if e.kind == "coded":
            return [word, 0]
        if e.kind == "zero":
            return [word, 0xFFFFFFFF << 32]
        if e.kind == "data":
            return [word, 0xFFFFFFFF]
        return [word, e.zero << 32 | e.alloc]

    def place_tables(self, view, known):
        """Gives every L2 table of the view a place; equal ones are shared."""
        groups = {}
        for index, e in view.entries.items():
            groups.setdefault(index // self.l2_entries, {})[index % self.l2_entries] = e
        need = -(-view.size // (self.cluster * self.l2_entries))
        need = max([need] + [g + 1 for g in groups])
        view.l1_size = max(view.l1_size or 0, need)
        tables = {}
        for number, entries in groups.items():
            key = tuple(sorted((i, id(e)) for i, e in entries.items()))
            place = known.get(key)
            if place is None or self.count[place // self.cluster] >= self.max_refcount:
                place = known[key] = self.alloc()
            self.refer(place)
            for e in entries.values():
                if e.kind == "coded":
                    first = e.host // 512 * 512
                    self.refer(first, (e.sectors + 1) * 512)
                elif e.host is not None and not self.data_file and e is not self.tail:
                    self.refer(e.host)
            tables[number] = (place, entries)
        view.l1 = self.alloc(max(1, -(-view.l1_size * 8 // self.cluster)))
        self.refer(view.l1, max(1, view.l1_size * 8))
        return tables

    def write_tables(self, view, tables):
        l1 = [0] * view.l1_size
        for number, (place, entries) in tables.items():
            words = [0] * (self.cluster // 8)
            per = 2 if self.extended else 1
            for i, e in entries.items():
                words[i * per:(i + 1) * per] = self.entry_words(e)
            self.pieces[place] = struct.pack(f">{len(words)}Q", *words)
            l1[number] = place | (COPIED if self.count[place // self.cluster] == 1 else 0)
        self.pieces[view.l1] = struct.pack(f">{len(l1)}Q", *l1)

    def snapshot_table(self):
        out = bytearray()
        for s in self.snapshots:
            extra = struct.pack(">QQQ", s.vm_state, s.size, (1 << 64) - 1)[:s.extra]
            extra += bytes(max(0, s.extra - 24))
            out += struct.pack(">QIHHIIQII", s.l1, s.l1_size, len(s.ident), len(s.name), s.date, 5,
                               7_000_000_123, s.vm_state & 0xFFFFFFFF, len(extra))
            out += extra + s.ident + s.name
            out += bytes(-len(out) % 8)
        return bytes(out)

    def put_table(self, data):
        """Metadata in clusters of its own, each counted once."""
        place = self.alloc(max(1, -(-len(data) // self.cluster)))
        self.refer(place, max(1, len(data)))
        self.pieces[place] = data
        return place

    def bitmap_extension(self):
        directory = bytearray()
        for name, granularity, bits, flags, ones in self.bitmaps:
            count = max(1, -(-len(bits) // self.cluster))
            if ones:
                words = [1] * count
            else:
                words = [self.put_table(bits[i * self.cluster:(i + 1) * self.cluster]
                                        .ljust(self.cluster, b"\0")) for i in range(count)]
            table = self.put_table(struct.pack(f">{count}Q", *words))
            directory += struct.pack(">QIIBBHI", table, count, flags, 1, granularity, len(name), 0)
            directory += name + bytes(-len(name) % 8)
        place = self.put_table(bytes(directory))
        self.autoclear |= AUTOCLEAR_BITMAPS
        return struct.pack(">IIQQ", len(self.bitmaps), 0, len(directory), place)

    def refcounts(self):
        """Refcount table and blocks, which count themselves (and the tail's cluster)."""
        per = self.cluster * 8 >> self.refcount_order
        tail = 1 if self.tail else 0
        blocks = table = 0
        while True:
            total = self.end + blocks + table + tail
            used = {c // per for c in self.count} | set(range(self.end // per, -(-total // per)))
            want = len(used), max(1, -(-(max(used) + 1) * 8 // self.cluster))
            if want == (blocks, table):
                break
            blocks, table = max(blocks, want[0]), max(table, want[1])
            if want[0] < blocks or want[1] < table:
                break
        place = self.alloc(table)
        self.refer(place, table * self.cluster)
        words = [0] * (table * self.cluster // 8)
        for number in sorted(used):
            words[number] = self.alloc()
            self.refer(words[number])
        if tail:
            self.tail.host = self.alloc()
            self.refer(self.tail.host)
        width = 1 << self.refcount_order
        for number in sorted(used):
            if width < 8:
                block = bytearray(self.cluster)
                for i in range(per):
                    value = self.count.get(number * per + i, 0)
                    block[i * width // 8] |= value << i * width % 8
            else:
                block = b"".join(self.count.get(number * per + i, 0).to_bytes(width // 8, "big")
                                 for i in range(per))
            self.pieces[words[number]] = bytes(block)
        self.pieces[place] = struct.pack(f">{len(words)}Q", *words)
        return place, table

    def header(self, refcount_place, refcount_clusters, snapshots, bitmap_extension):
        a = self.active
        extensions = bytearray()
        todo = list(self.extensions)
        if self.backing_format:
            todo.insert(0, (EXT_BACKING_FORMAT, self.backing_format))
        if bitmap_extension:
            todo.append((EXT_BITMAPS, bitmap_extension))
        if self.data_file:
            todo.append((EXT_DATA_FILE, self.data_file))
        for magic, data in todo:
            extensions += struct.pack(">II", magic, len(data)) + data + bytes(-len(data) % 8)
        extensions += bytes(8)
        length = 72 if self.version == 2 else self.header_length
        name = self.backing or b""
        name_at = length + len(extensions) if name else 0
        head = struct.pack(">IIQIIQIIQQIIQ", MAGIC, self.version, name_at, len(name), self.bits,
                           a.size, 0, a.l1_size, a.l1, refcount_place, refcount_clusters,
                           len(self.snapshots), snapshots)
        if self.version == 3:
            head += struct.pack(">QQQII", self.incompatible, self.compatible, self.autoclear,
                                self.refcount_order, length)
            head += bytes([1 if self.codec == "zstd" else 0])
            head = head.ljust(length, b"\0")[:length]
        head += extensions + name
        assert len(head) <= self.cluster, "the header does not fit its cluster"
        return head

    def finish(self, path, data_path=None):
        if self.codec == "zstd":
            self.incompatible |= INCOMPAT_COMPRESSION
        if self.extended:
            self.incompatible |= INCOMPAT_EXTENDED_L2
        if self.data_file:
            self.incompatible |= INCOMPAT_DATA_FILE
            if self.data_raw:
                self.autoclear |= AUTOCLEAR_RAW_DATA
        known = {}
        views = [self.active] + self.snapshots
        placed = [self.place_tables(v, known) for v in views]
        snapshots = self.put_table(self.snapshot_table()) if self.snapshots else 0
        bitmap_extension = self.bitmap_extension() if self.bitmaps else None
        place, clusters = self.refcounts()
        if self.tail:
            self.pieces[self.tail.host] = self.tail.data.rstrip(b"\0") or b"\0"
        for view, tables in zip(views, placed):
            self.write_tables(view, tables)
        self.pieces[0] = self.header(place, clusters, snapshots, bitmap_extension)
        length = self.end * self.cluster
        if self.tail:
            length = self.tail.host + len(self.pieces[self.tail.host])
        write_pieces(path, self.pieces, length)
        if data_path:
            size = max(self.data_end, self.active.size if self.data_raw else 0)
            write_pieces(data_path, self.data_pieces, size)


def write_pieces(path, pieces, length):
    with open(path, "wb") as f:
        for at, data in pieces.items():
            f.seek(at)
            f.write(data)
        f.truncate(length)


def write_flat(path, data):
    """Sparse, so that a big empty disk costs nothing."""
    with open(path, "wb") as f:
        view, step = memoryview(data), 1 << 16
        zero = bytes(step)
        for at in range(0, len(data), step):
            piece = view[at:at + step]
            if piece != zero[:len(piece)]:
                f.seek(at)
                f.write(piece)
        f.truncate(len(data))
