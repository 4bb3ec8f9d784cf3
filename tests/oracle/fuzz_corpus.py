# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes the inputs that fuzzing begins with (tests/fuzz/fuzz.h has their form).

Images of every kind that the oracle writes, with a few bytes in each cluster, and one of each
hostile case: kept small, so that a fuzzer's changes hit tables.

usage: fuzz_corpus FOLDER         makes FOLDER/qcow2-map and so on, beside what is there
       fuzz_corpus pack FILE      a disk image as an input, on stdout
       fuzz_corpus unpack FILE    and back
"""
import hashlib
import os
import random
import struct
import sys
import tempfile
import zlib

import hostile
import qcow2

SECTOR = 512
OPTIONS = (
    b"odriver=qcow2,file.filename=a,,b,size=1M,lazy=on", b"ofile.filename=x,cache.direct=on",
    b"osize=10k,compat=0.10,n.m=7", b"ox", b"oread-only,file.driver=file,file.filename=/x",
    b'j{"driver":"qcow2","file":{"driver":"file","filename":"x"},"backing":null}',
    b'j{"driver":"raw","size":"1k","offset":512,"file.filename":"\\u00e4\\ud83d\\ude00"}',
    b'j{"a":[1,2,{"b":true}],"c":-1.5e3,"force-share":"on"}',
    b'j{"driver":"qcow2","backing":{"driver":"raw","file.filename":"b"},"file":{"filename":"x"}}',
    b"s1.5k", b"s0x10000", b"s7E", b"s9223372036854775807", b"son", b"s1e3", b"s 12b", b"s-1",
    b"nfile:///x", b"njson:{}", b"nnbd:host:1", b"n../..", b"na/b\nc\x1b%41", b"n..", b"n" + b"\xc3\xa4" * 200,
    b"rplain", b"r\xff\xfe\x00\x01", b'r"\\\xe2\x80\xa8\x7f', b"r\xed\xa0\x80\xf4\x90\x80\x80")


def pack(image):
    """The records of the sectors that are not empty."""
    out, at, end = bytearray(b"S"), 0, len(image)
    sectors = -(-end // SECTOR)
    while at < sectors:
        if not any(image[at * SECTOR:(at + 1) * SECTOR]):
            at += 1
            continue
        first = at
        while at < sectors and at - first < 127 and any(image[at * SECTOR:(at + 1) * SECTOR]):
            at += 1
        data = bytes(image[first * SECTOR:at * SECTOR])
        if at < sectors:
            data = data.rstrip(b"\0")
        out += struct.pack(">HH", first, len(data)) + data
    if end and not any(image[(sectors - 1) * SECTOR:]):
        out += struct.pack(">HH", sectors - 1, end - (sectors - 1) * SECTOR)
        out += bytes(end - (sectors - 1) * SECTOR)
    return bytes(out)


def unpack(data):
    if data[:1] != b"S":
        return data
    out, at = bytearray(), 1
    while len(data) - at >= 4:
        first, length = struct.unpack_from(">HH", data, at)
        piece = data[at + 4:at + 4 + length]
        at += 4 + len(piece)
        end = first * SECTOR + len(piece)
        out += bytes(max(0, end - len(out)))
        out[first * SECTOR:end] = piece
    return bytes(out)


def a_few_bytes(rng, size):
    out = bytearray(size)
    for _ in range(rng.randrange(3)):
        at = rng.randrange(size)
        piece = rng.randbytes(rng.choice((1, 9)))[:size - at]
        out[at:at + len(piece)] = piece
    return bytes(out)


def entry(w, rng, index):
    kind = rng.randrange(5)
    data = a_few_bytes(rng, w.cluster)
    if kind == 0 and not w.data_file:
        return w.coded_entry(data, skew=rng.choice((0, 0, 37)))
    if kind == 1 and w.version == 3:
        return qcow2.Entry("zero")
    if kind == 2 and w.version == 3 and not w.extended:
        return w.data_entry(data, index, kind="zero")
    if w.extended:
        zero = rng.choice((0, rng.getrandbits(32)))
        return w.data_entry(data, index, kind="sub", alloc=rng.getrandbits(32) & ~zero, zero=zero)
    return w.data_entry(data, index)


def sound_images():
    for number in range(40):
        rng = random.Random(f"corpus {number}")
        bits = (9, 9, 9, 10, 12, 14, 16, 21)[number % 8]
        version = 2 if number % 5 == 4 else 3
        w = qcow2.Writer((70 if bits < 12 else 6) << bits, bits, version, number % 7,
                         "zstd" if version == 3 and number % 3 == 0 else "zlib",
                         version == 3 and bits >= 14 and number % 2 == 0)
        if number % 6 == 0:
            w.active.size += 1000
        for index in range(0, -(-w.active.size // w.cluster), rng.randrange(1, 5)):
            w.active.entries[index] = entry(w, rng, index)
        if number % 7 not in (0, 1) and number % 3 == 1:
            s = qcow2.View(w.active.size, dict(list(w.active.entries.items())[::2]), None, b"1",
                           b"first", 0, 16 if number % 2 else 24)
            w.snapshots = [s]
        if version == 3 and number % 4 == 1:
            w.bitmap(b"b", 9, rng.randbytes(4), flags=2)
        if number % 4 == 2 and bits > 9:
            w.extensions.append((0x12345678, b"unknown"))
        with tempfile.NamedTemporaryFile() as f:
            w.finish(f.name)
            f.seek(0)
            yield f"sound-{number}", f.read()


def hostile_images():
    for case in hostile.cases():
        if case.image is None or case.name.startswith("G1-byte"):
            continue
        image = bytearray(case.image if isinstance(case.image, bytes) else case.image.b)
        # The plain image's own data: a few bytes of each cluster are enough.
        for at in range(hostile.DATA, min(hostile.DATA + 4 * hostile.C, len(image)), hostile.C):
            end = min(at + hostile.C, len(image))
            image[at + 8:end] = bytes(max(0, end - at - 8))
        if len(image) <= 32 << 20:
            yield case.name, bytes(image)


def gpt(sector, entries=4, backup_only=False):
    """A GPT disk of 34 + 2 sectors and some, with its backup."""
    total = 80
    disk = bytearray(total * sector)
    struct.pack_into("<BBBBBBBBII", disk, 446, 0, 0, 2, 0, 0xEE, 255, 255, 255, 1, total - 1)
    disk[510:512] = b"\x55\xaa"
    table = bytearray(128 * entries)
    for i in range(entries - 1):
        name = f"part {i}".encode("utf-16-le")
        struct.pack_into("<16s16sQQQ", table, 128 * i, bytes(range(16)), bytes([i] * 16),
                         40 + i * 4, 42 + i * 4, 4 if i else 0)
        table[128 * i + 56:128 * i + 56 + len(name)] = name

    def head(me, other, where):
        h = bytearray(92)
        struct.pack_into("<8sIIIIQQQQ16sQIII", h, 0, b"EFI PART", 0x10000, 92, 0, 0, me, other, 34,
                         total - 8, b"G" * 16, where, entries, 128, zlib.crc32(table))
        struct.pack_into("<I", h, 16, zlib.crc32(h))
        disk[me * sector:me * sector + 92] = h
        disk[where * sector:where * sector + len(table)] = table

    if not backup_only:
        head(1, total - 1, 2)
    head(total - 1, 1, total - 6)
    return bytes(disk)


def mbr(logical=0):
    disk = bytearray(64 * SECTOR)
    struct.pack_into("<I", disk, 440, 0x12345678)
    for i, (kind, start, length) in enumerate(((0x83, 8, 8), (0x07, 16, 4), (0x05, 24, 40))):
        struct.pack_into("<BBBBBBBBII", disk, 446 + 16 * i, 0x80 if i == 0 else 0, 0, 2, 0, kind, 0,
                         0, 0, start, length)
    disk[510:512] = b"\x55\xaa"
    for i in range(logical):
        at = (24 + 8 * i) * SECTOR
        struct.pack_into("<BBBBBBBBII", disk, at + 446, 0, 0, 0, 0, 0x83, 0, 0, 0, 1, 4)
        if i + 1 < logical:
            struct.pack_into("<BBBBBBBBII", disk, at + 462, 0, 0, 0, 0, 0x05, 0, 0, 0, 8 * (i + 1), 8)
        disk[at + 510:at + 512] = b"\x55\xaa"
    return bytes(disk)


def disks():
    yield "mbr", mbr()
    yield "mbr-logical", mbr(4)
    yield "gpt", gpt(512)
    yield "gpt-4096", gpt(4096)
    yield "gpt-backup", gpt(512, backup_only=True)
    fat = bytearray(40 * SECTOR)
    struct.pack_into("<3s8sHBHBHHBH", fat, 0, b"\xeb\x3c\x90", b"mkfs.fat", 512, 1, 1, 2, 16, 40, 0xF8, 1)
    fat[38:62] = b"\x29\x01\x02\x03\x04VOLUME NAMEFAT12   "
    fat[510:512] = b"\x55\xaa"
    yield "fat", bytes(fat)
    yield "empty", b""


def everything():
    for name, image in list(sound_images()) + list(hostile_images()):
        packed = pack(image)
        yield "qcow2-map", name, packed
        yield "qcow2-read", name, packed
        # Two bytes that are no record: they choose what is done.
        yield "qcow2-write", name, packed + b"\x12" + bytes([len(packed) % 256])
        yield "qcow2-header", name, image[:1024].rstrip(b"\0") if len(image) > 1024 else image
    for number, word in enumerate(OPTIONS):
        yield "options", f"word-{number}", word
    for name, image in disks():
        yield "partition", name, pack(image)


def main():
    if sys.argv[1] in ("pack", "unpack"):
        with open(sys.argv[2], "rb") as f:
            sys.stdout.buffer.write((pack if sys.argv[1] == "pack" else unpack)(f.read()))
        return
    seen = set()
    for target, name, data in everything():
        key = target, hashlib.sha1(data).digest()
        folder = os.path.join(sys.argv[1], target)
        os.makedirs(folder, exist_ok=True)
        if key not in seen:
            with open(os.path.join(folder, name), "wb") as f:
                f.write(data)
        seen.add(key)


if __name__ == "__main__":
    main()
