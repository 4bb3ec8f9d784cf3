#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Random sequences of commands, each step by imgtool on one copy and by qemu-img on another.

After every step must agree: the exit status, what was printed (without sizes on the host, dates,
times and progress), and for each image that the step touched the bytes and snapshots of the disk;
and qemu-img must find nothing wrong with ours. A failure prints the seed and the fewest steps that
still fail in that way. `differential.py -n 500 -j 2` runs 500 sequences; `-s SEED -v` one of them.

Where imgtool means to differ is in KNOWN, with the reason; everything else is a bug.
"""
import argparse
import concurrent.futures
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile

KNOWN = {
    # what: why. Each is looked up by the function that makes allowance for it.
    "create-guess": "create -b without -F works as in older versions: the format is found out, recorded and said",
    "dd-count": "dd count= is counted after skip=, as the manual says; qemu-img counts from the front of the image",
    "dd-zeroes": "dd writes no zeroes into a new image, as convert does not; qemu-img allocates them",
    "repair-snapshots": "check -r keeps the snapshots of an image with bitmaps; qemu-img deletes them all",
    "shrink-zeroes": "a disk that is made shorter and longer again ends with zeroes; in qemu-img's the old bytes come back inside a cluster",
    "grow-v2": "an image of version 2 above a longer backing file grows, with zeroes; qemu-img refuses",
    "resize-longer-file": "resize with falloc or full works where the file is longer than its clusters; qemu-img refuses, and the sequence ends",
    "one-bit-counts": "which clusters have two users depends on which were written anew, for instance at the end of a disk that grows",
    "failed-amend": "a refused amend changes nothing; qemu-img does some of the changes and then refuses another",
    "amend-slow": "qemu-img takes minutes to give an image of large clusters refcounts of another width",
    "measure-compat": "measure takes compat=v2 and v3, which qemu-img only takes when it creates",
    "downgrade-bitmaps": "amend to compat=0.10 is refused while there are bitmaps, which qemu-img silently makes useless",
    "empty-bitmap": "a disk of 0 bytes gets no bitmap; qemu-img says that it added it and then loses it",
    "apply-bitmaps": "snapshot -a works on an image with dirty bitmaps, which are made to say what changed; qemu-img refuses",
    "rebase-v2": "safe rebase keeps what an image without a backing file shows; qemu-img lets the new base show through where it has compat=0.10",
    "snapshot-size": "convert -l makes a disk of the snapshot's own size, as snapshot -a does; qemu-img makes it as long as the disk is now",
    "base-changed": "where an image has clusters of its own follows from how it was copied, and shows when its base is written to",
    "stderr": "sentences on stderr name the file and the place; only that there is one is compared",
    "host-holes": "what map and measure say of holes of the host's file follows from how it was written (qemu-img gives a raw file its first block)",
    "check-statistics": "fragmentation and the end of the file follow from where clusters are put",
    "failed-target": "a target that could not be made is removed",
}

CLUSTERS = ["512", "1k", "4k", "16k", "64k", "64k", "256k", "2M"]
MODES = ["writeback", "writethrough", "unsafe", "none", "directsync"]
LIMIT = 120  # seconds a command: more is a hang


def sizeof(text):
    return int(text[:-1]) << {"k": 10, "M": 20}[text[-1]] if text[-1] in "kM" else int(text)


class Failure(Exception):
    pass


class Stop(Exception):
    """From here on the two images differ as they are meant to."""


# ---- making steps -------------------------------------------------------------------------------

class Image:
    def __init__(self, name, fmt, size, cluster=65536, backing=None, options=()):
        self.name, self.fmt, self.size, self.cluster, self.backing = name, fmt, size, cluster, backing
        self.options = dict(options)
        self.snapshots, self.bitmaps = [], []
        self.placed_by_us = False  # since it was written by more than qemu-io
        self.from_dd = False
        self.cut = False           # inside a cluster
        self.one_bit = self.options.get("refcount_bits") == "1"
        self.was_resized = False
        self.resized = False       # since it has snapshots
        self.v2 = self.options.get("compat") in ("0.10", "v2")


class Maker:
    """Keeps roughly in mind what there is, so that most commands make sense."""

    def __init__(self, seed, commands):
        self.r = random.Random(seed)
        self.images, self.count, self.commands = [], 0, commands

    def chance(self, p):
        return self.r.random() < p

    def new_name(self, fmt):
        self.count += 1
        return f"{fmt[0]}{self.count}.{'raw' if fmt == 'raw' else 'qcow2'}"

    def size(self, small=False):
        unit = self.r.choice([512, 4096, 65536, 1 << 20])
        return max(unit, self.r.randrange(512, (1 << 20) if small else (6 << 20)) // unit * unit)

    def pick(self, fmt=None):
        some = [i for i in self.images if fmt in (None, i.fmt)]
        return self.r.choice(some) if some else None

    def qcow2_options(self, backed):
        r, o = self.r, {}
        if self.chance(.6):
            o["cluster_size"] = r.choice(CLUSTERS)
        if self.chance(.25):
            o["compat"] = r.choice(["0.10", "1.1", "v2", "v3"])
        if self.chance(.25):
            o["refcount_bits"] = str(r.choice([1, 2, 4, 8, 16, 32, 64]))
        if self.chance(.2):
            o["lazy_refcounts"] = r.choice(["on", "off"])
        if self.chance(.2):
            o["extended_l2"] = r.choice(["on", "on", "off"])
        if self.chance(.2):
            o["compression_type"] = r.choice(["zlib", "zstd"])
        if self.chance(.25):
            o["preallocation"] = r.choice(["off", "metadata", "falloc", "full"])
        if self.chance(.05):
            o["nocow"] = r.choice(["on", "off"])
        if self.chance(.05):
            o["extent_size_hint"] = "0"  # others fail with a warning where it is not XFS
        if self.chance(.08) and not backed:
            o["data_file"] = f"data{self.count}.bin"
            if self.chance(.5):
                o["data_file_raw"] = "on"
        return o

    def cluster_of(self, o):
        return sizeof(o.get("cluster_size", "64k"))

    def option_words(self, o):
        return ["-o", ",".join(f"{k}={v}" for k, v in o.items())] if o else []

    def in_chain(self, img, top):
        while top:
            if top is img:
                return True
            top = top.backing
        return False

    def may_change(self, img, through=None):
        """KNOWN base-changed: `through` is the overlay that is committed."""
        return not any(i.placed_by_us and i is not img and self.in_chain(img, i) and
                       not self.in_chain(i, through) for i in self.images)

    def pick_changeable(self, fmt=None):
        img = self.pick(fmt)
        return img if img and self.may_change(img) else None

    def may_grow(self, img):
        return not img.cut and not (img.v2 and img.backing)  # KNOWN shrink-zeroes, grow-v2

    # Each returns (program, words, names touched) or None.

    def create(self):
        fmt = self.r.choice(["raw", "qcow2", "qcow2", "qcow2"])
        backing = self.pick() if fmt == "qcow2" and self.chance(.4) else None
        o = self.qcow2_options(backing) if fmt == "qcow2" else {}
        if fmt == "raw" and self.chance(.3):
            o["preallocation"] = self.r.choice(["off", "falloc", "full", "metadata"])
        if fmt == "raw" and self.chance(.1):
            o["nocow"] = self.r.choice(["on", "off"])
            o["extent_size_hint"] = "0"
        small = self.cluster_of(o) <= 1024
        size = self.size(small)
        img = Image(self.new_name(fmt), fmt, size, self.cluster_of(o), backing, o)
        words = ["create", "-f", fmt] + (["-q"] if self.chance(.2) else [])
        if backing:
            if self.chance(.3):
                img.size, size = backing.size, None
            if self.chance(.8):
                words += ["-b", backing.name, "-F", backing.fmt]
            else:
                o = dict(o, backing_file=backing.name, backing_fmt=backing.fmt)
            if size is not None and self.chance(.2):
                words += ["-u"]
        if size is not None and self.chance(.2):
            o, size = dict(o, size=str(size)), None
        words += self.option_words(o) + [img.name] + ([str(size)] if size is not None else [])
        self.images.append(img)
        return "img", words, [img.name]

    def extent(self, img, unit):
        start = self.r.randrange(0, max(1, img.size)) // unit * unit
        n = self.r.choice([unit, 4096, img.cluster, 3 * img.cluster, 300000])
        n = max(unit, n // unit * unit)
        return start, max(0, min(n, img.size - start))

    def write(self):
        img = self.pick_changeable()
        if not img:
            return None
        words = []
        for _ in range(self.r.randrange(1, 5)):
            how = self.r.random()
            start, n = self.extent(img, self.r.choice([1, 512, 512, 4096, img.cluster]))
            if n <= 0:
                continue
            if how < .6:
                words.append(f"write -P {self.r.randrange(256)} {start} {n}")
            elif how < .7:
                words.append(f"write -z {'-u ' if self.chance(.5) else ''}{start} {n}")
            elif how < .8:
                words.append(f"discard {start} {n}")
            elif how < .9 and img.fmt == "qcow2":
                start = start // img.cluster * img.cluster
                # It fails where there is data already, and the two may have put it elsewhere.
                if start + img.cluster <= img.size and not img.placed_by_us:
                    words.append(f"write -c -P {self.r.randrange(256)} {start} {img.cluster}")
            else:
                words.append(f"write -P 0 {start} {n}")
        argv = ["-f", img.fmt, "-d", "unmap"]
        for w in words:
            argv += ["-c", w]
        return ("io", argv + [img.name], [img.name]) if words else None

    def bench(self):
        img = self.pick_changeable()
        if not img:
            return None
        s = self.r.choice([512, 1000, 4096, 65536, 200000])
        words = ["bench", "-f", img.fmt, "-c", str(self.r.randrange(1, 30)), "-d", str(self.r.choice([1, 4])),
                 "-s", str(s), "-o", str(self.r.randrange(0, max(1, img.size)) // 512 * 512)]
        if self.chance(.3):
            words += ["-S", str(self.r.choice([512, 65536, 4097]))]
        # A request past the end fails, and which were done before it is a matter of chance.
        words += ["-w", f"--pattern={self.r.randrange(256)}"]
        end = int(words[words.index("-o") + 1])
        step = int(words[words.index("-S") + 1]) if "-S" in words else s
        if end + (int(words[4]) - 1) * step + s > img.size:
            return None
        if self.chance(.2):
            words += ["--flush-interval=8"]
        return "img", words + [img.name], [img.name]

    def snapshot(self):
        img = self.pick("qcow2")
        if not img:
            return None
        how = self.r.random()
        if how < .45 or not img.snapshots:
            if img.one_bit and img.was_resized:  # KNOWN one-bit-counts
                return None
            name = f"s{self.r.randrange(4)}"
            img.snapshots.append(name)
            return "img", ["snapshot", "-c", name, img.name], [img.name]
        name = self.r.choice(img.snapshots + ["none"])
        if how < .7:
            if img.bitmaps or not self.may_change(img):  # KNOWN apply-bitmaps
                return None
            return "img", ["snapshot", "-a", name, img.name], [img.name]
        if how < .9:
            if name in img.snapshots:
                img.snapshots.remove(name)
            return "img", ["snapshot", "-d", name, img.name], [img.name]
        return "img", ["snapshot", "-l", img.name], []

    def resize(self):
        img = self.pick_changeable()
        if not img or not self.may_grow(img):
            return None
        words = ["resize", "-f", img.fmt]
        before = img.size
        img.resized, img.was_resized = bool(img.snapshots), True
        kind = self.r.random()
        size = self.size(img.cluster <= 1024)
        if kind < .4:
            delta = self.r.choice([512, 4096, 65536, 300032])
            words += ["--preallocation=" + self.r.choice(["off", "metadata", "falloc", "full"])] if self.chance(.3) else []
            words += [img.name, f"+{delta}"]
            img.size += delta
        elif kind < .6:
            words += ["--shrink"] if self.chance(.8) else []
            delta = self.r.choice([512, 65536, img.size // 1024 * 512])
            words += [img.name, f"-{delta}"]
            img.size = max(512, img.size - delta)
        else:
            words += ["--shrink"] if self.chance(.8) else []
            words += [img.name, str(size)]
            img.size = size
        # KNOWN shrink-zeroes. Where it ends may have been mistaken, so not only if it got shorter.
        img.cut = img.fmt == "qcow2" and "--shrink" in words and bool(img.size % img.cluster or img.size > before)
        return "img", words, [img.name]

    def amend(self):
        img = self.pick("qcow2")
        if not img:
            return None
        o = self.r.choice([{"compat": "0.10"}, {"compat": "1.1"}, {"lazy_refcounts": "on"}, {"lazy_refcounts": "off"},
                           {"refcount_bits": str(self.r.choice([1, 4, 8, 16, 64]))}, {"size": str(img.size + 65536)},
                           {"compat": "1.1", "lazy_refcounts": "on"}, {"compat": "0.10", "refcount_bits": "16"}])
        if "refcount_bits" in o and img.cluster > 65536:  # KNOWN amend-slow
            return None
        if o.get("refcount_bits") == "1":
            if img.placed_by_us or (img.was_resized and img.snapshots):  # KNOWN dd-zeroes, one-bit-counts
                return None
            img.one_bit = True
        if "size" in o:
            if not self.may_change(img) or not self.may_grow(img):
                return None
            img.size += 65536
            img.resized, img.was_resized = bool(img.snapshots), True
        if o.get("compat") == "0.10" and img.bitmaps:  # KNOWN downgrade-bitmaps
            return None
        img.v2 = o.get("compat", img.v2) in (True, "0.10")
        return "img", ["amend", "-f", "qcow2"] + self.option_words(o) + [img.name], [img.name]

    def bitmap(self):
        img = self.pick("qcow2")
        if not img:
            return None
        if not img.size:  # KNOWN empty-bitmap
            return None
        how, name = self.r.random(), f"b{self.r.randrange(3)}"
        words = ["bitmap", "-f", "qcow2"]
        if how < .45:
            words += ["--add"]
            img.bitmaps.append(name)
            if self.chance(.5):
                words += ["-g", self.r.choice(["512", "4k", "64k", "1M"])]
            if self.chance(.3):
                words += ["--disable"]
        elif how < .9:
            words += [self.r.choice(["--remove", "--clear", "--enable", "--disable"])]
        else:
            words += ["--merge", f"b{self.r.randrange(3)}"]
        if how < .45 and self.chance(.2):
            words += ["--disable", "--enable", "--clear"][:self.r.randrange(1, 4)]
        other = self.pick("qcow2")
        if how >= .9 and other.bitmaps and other.size == img.size and self.chance(.5):
            words += ["-b", other.name, "-F", "qcow2"]
        return "img", words + [img.name, name], [img.name]

    def convert(self):
        source = self.pick()
        if not source:
            return None
        r, fmt = self.r, self.r.choice(["raw", "qcow2", "qcow2"])
        words, backing = ["convert", "-f", source.fmt, "-O", fmt], None
        existing = self.pick()
        if existing is not source and existing.size >= source.size and self.chance(.3) and \
                self.may_change(existing) and not self.in_chain(existing, source) and not self.in_chain(source, existing):
            existing.placed_by_us = True
            more = ["-m", "3", "-W"] if self.chance(.2) else []
            return "img", words[:-1] + [existing.fmt, "-n"] + more + [source.name, existing.name], [existing.name]
        o = self.qcow2_options(False) if fmt == "qcow2" and self.chance(.6) else {}
        img = Image(self.new_name(fmt), fmt, source.size, self.cluster_of(o), None, o)
        img.placed_by_us = True
        if fmt == "qcow2" and self.chance(.3):
            words += ["-c"]
        if self.chance(.2):
            words += ["-S", r.choice(["0", "512", "4k", "64k"])]
        if self.chance(.2):
            words += ["-m", str(r.randrange(1, 17))]
        if self.chance(.2):
            words += ["-W"]
        if "-c" not in words and self.chance(.1):
            words += ["-C"] if "-S" not in words else []
        if "-C" not in words and self.chance(.1):
            words += ["--salvage"] if "-c" not in words else []
        if self.chance(.2):
            words += r.choice([["-q"], ["-p"], ["-t", r.choice(MODES)], ["-T", r.choice(MODES)], ["-r", "1G"]])
        if source.snapshots and not source.resized and self.chance(.4):  # KNOWN snapshot-size
            words += ["-l", r.choice(source.snapshots)]
        elif source.backing and fmt == "qcow2" and self.chance(.3):
            words += ["-B", source.backing.name, "-F", source.backing.fmt]
            img.backing = source.backing
        if fmt == "qcow2" and self.chance(.1):
            words += ["--bitmaps"]
            img.bitmaps = list(source.bitmaps)
        sources = [source.name]
        if "-l" not in words and "-B" not in words and "--bitmaps" not in words and self.chance(.1):
            more = r.choice([i for i in self.images if i.fmt == source.fmt])
            sources.append(more.name)
            img.size += more.size
        self.images.append(img)
        return "img", words + self.option_words(o) + sources + [img.name], [img.name]

    def dd(self):
        source = self.pick()
        if not source:
            return None
        fmt = self.r.choice(["raw", "qcow2"])
        bs = self.r.choice(["512", "4k", "1M", "1000"])
        img = Image(self.new_name(fmt), fmt, source.size)
        img.placed_by_us = img.from_dd = True
        words = ["dd", "-f", source.fmt, "-O", fmt, f"bs={bs}", f"if={source.name}", f"of={img.name}"]
        # KNOWN dd-count: only one of both, where both programs mean the same.
        if self.chance(.5):
            n = self.r.randrange(1, 20)
            what = self.r.choice(["count", "skip"])
            words.append(f"{what}={n}")
            n *= sizeof(bs)
            img.size = min(img.size, n) if what == "count" else max(0, img.size - n)
        self.images.append(img)
        return "img", words, [img.name]

    def look(self):
        img = self.pick()
        if not img:
            return None
        r = self.r
        f = ["-f", img.fmt]
        words = r.choice([["info"] + f, ["info", "--output=json"] + f, ["info", "--output=json", "--backing-chain"] + f,
                          ["map", "--output=json"] + f, ["map"] + f, ["check"] + f, ["check", "--output=json"] + f,
                          ["measure", "-O", "qcow2"] + f, ["measure", "--output=json", "-O", "qcow2", "-o",
                           f"cluster_size={r.choice(CLUSTERS)}"] + f, ["check", "-r", "leaks"] + f, ["map", "--output=json",
                           f"--start-offset={r.randrange(1 << 20)}", f"--max-length={r.randrange(1, 1 << 20)}"] + f,
                          ["measure", "--output=json", "-O", "raw"] + f,
                          ["snapshot", "-l"], ["check", "-r", "all"] + f])
        if words[0] == "map" and any(i.from_dd and self.in_chain(i, img) for i in self.images):  # KNOWN dd-zeroes
            return None
        if "-r" in words and img.bitmaps and img.snapshots:  # KNOWN repair-snapshots
            return None
        return "img", words + [img.name], []

    def measure_size(self):
        o = self.qcow2_options(False)
        o.pop("data_file", None)
        o.pop("data_file_raw", None)
        if o.get("compat", "").startswith("v"):  # KNOWN measure-compat
            del o["compat"]
        return "img", ["measure", "--output=json", "-O", "qcow2", "--size", str(self.size())] + self.option_words(o), []

    def compare(self):
        a, b = self.pick(), self.pick()
        if not a:
            return None
        more = ["-q"] if self.chance(.1) else []
        return "img", ["compare", "-f", a.fmt, "-F", b.fmt] + more + [a.name, b.name], []

    def rebase(self):
        img = self.pick("qcow2")
        if not img:
            return None
        new = self.pick()
        words = ["rebase", "-f", "qcow2"]
        if self.chance(.25):
            img.backing, img.placed_by_us = None, True
            return "img", words + ["-b", "", img.name], [img.name]
        if self.chance(.1) and not self.in_chain(img, new):
            # What the disk shows afterwards is compared like everything else.
            if not all(self.may_change(i) for i in [img]):
                return None
            img.backing = new
            return "img", words + ["-u", "-b", new.name, "-F", new.fmt, img.name], [img.name]
        if self.in_chain(img, new) or (img.v2 and not img.backing):  # KNOWN rebase-v2
            return None
        if self.chance(.2):
            words += self.r.choice([["-p"], ["-q"], ["-t", "writeback"], ["-T", "none"]])
        img.backing, img.placed_by_us = new, True
        return "img", words + ["-b", new.name, "-F", new.fmt, img.name], [img.name]

    def commit(self):
        img = self.pick("qcow2")
        if not img or (not img.backing and self.chance(.9)):
            return None
        words = ["commit", "-f", "qcow2"]
        chain, top = [], img.backing
        while top:
            chain.append(top)
            top = top.backing
        if not all(self.may_change(i, img) and self.may_grow(i) for i in chain):
            return None
        if self.chance(.3):
            words += ["-d"]
        if self.chance(.2):
            words += self.r.choice([["-p"], ["-q"], ["-t", "writethrough"], ["-r", "1G"]])
        touched = [img.name] + [i.name for i in chain[:1]]
        for i in [img] + chain:
            i.placed_by_us = i.was_resized = True
            i.resized = i.resized or bool(i.snapshots)
        if len(chain) > 1 and self.chance(.4):
            base = self.r.choice(chain)
            words += ["-b", base.name]
            touched = [img.name, base.name]
            chain[0].size = max(chain[0].size, img.size)
        elif chain:
            chain[0].size = max(chain[0].size, img.size)
        return "img", words + [img.name], touched

    def step(self):
        weights = {"create": 2, "write": 6, "bench": 1, "snapshot": 3, "resize": 2, "amend": 1.5, "bitmap": 1.5,
                   "convert": 2, "dd": .7, "look": 2, "measure_size": .5, "compare": .7, "rebase": 1.5, "commit": 1.5}
        names = [n for n in weights if n in ("look", "write", "measure_size") or n in self.commands]
        if not self.images or (len(self.images) < 2 and self.chance(.5)):
            return self.create()
        for _ in range(20):
            made = getattr(self, self.r.choices(names, [weights[n] for n in names])[0])()
            if made:
                return made
        return self.create()

    def sequence(self, n):
        return [self.step() for _ in range(n)]


# ---- running steps ------------------------------------------------------------------------------

def strip_progress(text):
    return re.sub(r" *\(\d+\.\d+/100%\)[\r\n]\n?", "", text)


def normal_text(words, out):
    """What is printed, without what may differ."""
    out = strip_progress(out)
    out = re.sub(r"(?m)^disk size: .*$", "disk size: X", out)
    out = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "DATE", out)
    out = re.sub(r"Run completed in .* seconds", "Run completed", out)
    if words[0] == "measure" and "--size" not in words:
        out = re.sub(r"(?m)^required size: .*\n", "", out)  # KNOWN host-holes
    if words[0] == "check":
        out = re.sub(r"(?m)^(Image end offset: .*|.* clusters)\n", "", out)  # KNOWN check-statistics
    return out


def merge_map(rows):
    """KNOWN host-holes: which layer describes what, without places; neighbours are joined."""
    merged = []
    for row in rows:
        row = {k: row[k] for k in ("start", "length", "depth", "present")}
        last = merged[-1] if merged else {}
        if all(last.get(k) == row[k] for k in ("depth", "present")):
            last["length"] += row["length"]
        else:
            merged.append(row)
    return merged


def normal_json(words, out):
    def clean(x):
        if isinstance(x, list):
            return [clean(y) for y in x]
        if isinstance(x, dict):
            drop = {"actual-size", "date-sec", "date-nsec", "image-end-offset", "fragmented-clusters",
                    "allocated-clusters", "total-clusters", "compressed-clusters"}
            return {k: clean(v) for k, v in x.items() if k not in drop}
        return x
    data = json.loads(out)
    if words[0] == "map":
        return merge_map(data)
    if words[0] == "measure" and "--size" not in words:
        data.pop("required")  # KNOWN host-holes
    return clean(data)


class Runner:
    def __init__(self, where, imgtool, verbose=False):
        self.where, self.verbose = where, verbose
        self.sides = {"q": "qemu-img", "i": imgtool}
        for side in self.sides:
            os.makedirs(os.path.join(where, side))

    def command(self, side, argv):
        try:
            p = subprocess.run(argv, cwd=os.path.join(self.where, side), stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=LIMIT)
        except subprocess.TimeoutExpired:
            raise Failure(f"{argv[0]} did not end in {LIMIT} s")
        return p.returncode, p.stdout.decode(errors="replace"), p.stderr.decode(errors="replace")

    def path(self, side, name):
        return os.path.join(self.where, side, name)

    def run(self, step):
        program, words, touched = step
        got, kept = {}, None
        if words[0] == "amend" and os.path.exists(self.path("q", touched[0])):
            kept = self.path("q", "kept.tmp")
            shutil.copyfile(self.path("q", touched[0]), kept)
        for side, tool in self.sides.items():
            got[side] = self.command(side, [tool if program == "img" else "qemu-io"] + words)
        if self.verbose:
            print("$", program, *words, "->", got["q"][0], got["i"][0], flush=True)
        if program == "img":
            self.judge_words(words, got["q"], got["i"])
        elif got["q"][0] != got["i"][0] or got["q"][2] != got["i"][2]:
            raise Failure(f"qemu-io finds other things: {got['q']} {got['i']}")
        if kept and got["q"][0]:  # KNOWN failed-amend
            os.replace(kept, self.path("q", touched[0]))
        if words[0] in ("create", "convert", "dd") and got["q"][0]:
            for side in self.sides:  # KNOWN failed-target
                if "-n" not in words and os.path.exists(self.path(side, touched[0])):
                    os.unlink(self.path(side, touched[0]))
            return
        for name in touched:
            self.judge_image(name)

    def judge_words(self, words, q, i):
        if i[0] < 0:
            raise Failure(f"imgtool died of signal {-i[0]}: {i[2]}")
        if words[0] == "resize" and not i[0] and "Cannot use preallocation for shrinking files" in q[2]:
            raise Stop  # KNOWN resize-longer-file
        if q[0] != i[0]:
            raise Failure(f"status {i[0]}, qemu-img's {q[0]}\n  ours: {i[2].strip()}\n  qemu: {q[2].strip()}")
        if bool(i[0]) and not i[2].strip() and q[2].strip():
            raise Failure(f"failed without a word; qemu-img: {q[2]}")
        if "--output=json" in words and i[0] == 0:
            a, b = normal_json(words, q[1]), normal_json(words, i[1])
        elif words[0] == "map":
            return  # KNOWN places; JSON is compared without them
        else:
            a, b = normal_text(words, q[1]), normal_text(words, i[1])
        if a != b:
            raise Failure(f"other output\n  ours: {b}\n  qemu: {a}")

    def judge_image(self, name):
        there = [os.path.exists(self.path(s, name)) for s in "qi"]
        if there[0] != there[1]:
            raise Failure(f"{name}: only one of both made it: {there}")
        if not there[0]:
            return
        fmt = "raw" if name.endswith(".raw") else "qcow2"
        info = {}
        for side in "qi":
            status, out, err = self.command(side, ["qemu-img", "info", "--output=json", "-f", fmt, name])
            info[side] = normal_json(["info"], out) if status == 0 else (status, err)
        if info["q"] != info["i"]:
            raise Failure(f"{name}: qemu-img info finds\n  ours: {info['i']}\n  qemu: {info['q']}")
        if fmt == "qcow2":
            status, out, err = self.command("i", ["qemu-img", "check", "-f", fmt, name])
            if status:
                s2, o2, e2 = self.command("q", ["qemu-img", "check", "-f", fmt, name])
                if s2 != status:
                    raise Failure(f"{name}: qemu-img check: {status}\n{err}{out}")
        self.judge_contents(name, fmt, info["i"])

    def judge_contents(self, name, fmt, info):
        status, out, err = self.command("", ["qemu-img", "compare", "-f", fmt, "-F", fmt, f"q/{name}", f"i/{name}"])
        if status == 1:
            raise Failure(f"{name}: other contents: {out}")
        if status:
            a = self.command("q", ["qemu-img", "map", "-f", fmt, name])[0]
            b = self.command("i", ["qemu-img", "map", "-f", fmt, name])[0]
            if a != b or status != 2:
                raise Failure(f"{name}: compare: {status} {out}{err}")
        seen = set()
        for s in info.get("snapshots", []) if isinstance(info, dict) else []:
            if s["name"] in seen:
                continue
            seen.add(s["name"])
            self.judge_snapshot(name, s["name"])

    def judge_snapshot(self, name, snapshot):
        got = []
        for side in "qi":
            status, _, err = self.command(side, ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", "-l",
                                                 f"snapshot.name={snapshot}", name, "flat.tmp"])
            got.append((status, open(self.path(side, "flat.tmp"), "rb").read() if status == 0 else err))
        if got[0][0] != got[1][0] or (got[0][0] == 0 and got[0][1] != got[1][1]):
            raise Failure(f"{name}: snapshot {snapshot} has other contents ({got[0][0]}, {got[1][0]})")


def try_steps(steps, imgtool, verbose=False):
    """None, or (index of the step that failed, why)."""
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    where = tempfile.mkdtemp(prefix="imgfs-differential-", dir=base)
    try:
        runner = Runner(where, imgtool, verbose)
        for i, step in enumerate(steps):
            try:
                runner.run(step)
            except Failure as f:
                return i, str(f)
            except Stop:
                break
        return None
    finally:
        shutil.rmtree(where, ignore_errors=True)


def kind(why):
    return re.sub(r"[\d']+", "N", why.splitlines()[0])[:60]


def shrink(steps, why, imgtool):
    """The fewest steps that still fail alike: drops one after the other, the last first."""
    i = len(steps) - 2
    while i >= 0:
        fewer = steps[:i] + steps[i + 1:]
        got = try_steps(fewer, imgtool)
        if got and got[0] == len(fewer) - 1 and kind(got[1]) == kind(why):
            steps, why = fewer, got[1]
        i -= 1
    return steps, why


def shown(step):
    program = "qemu-io" if step[0] == "io" else "IMGTOOL"
    return program + " " + " ".join(f"'{w}'" if re.search(r"[^\w.,=/:+-]", w) or not w else w for w in step[1])


def one(seed, length, imgtool, commands, verbose, no_shrink):
    steps = Maker(seed, commands).sequence(length)
    got = try_steps(steps, imgtool, verbose)
    if not got:
        return None
    steps, why = steps[:got[0] + 1], got[1]
    if not no_shrink:
        steps, why = shrink(steps, why, imgtool)
    return f"seed {seed}: {why}\n" + "\n".join("    " + shown(s) for s in steps)


def known_commands(imgtool):
    out = subprocess.run([imgtool, "--help"], stdout=subprocess.PIPE).stdout.decode()
    return set(re.findall(r"(?m)^  ([a-z]+) ", out))


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("-n", type=int, default=6, help="how many sequences (default: 6)")
    p.add_argument("-s", "--seed", type=int, default=1, help="the first seed")
    p.add_argument("-l", "--length", type=int, default=12, help="steps in each")
    p.add_argument("-j", type=int, default=1, help="how many at a time")
    p.add_argument("-v", action="store_true", help="print each step")
    p.add_argument("-k", action="store_true", help="go on after a failure")
    p.add_argument("--no-shrink", action="store_true")
    p.add_argument("--only", help="commands, with commas")
    p.add_argument("--known", action="store_true", help="print the intended differences")
    a = p.parse_args()
    if a.known:
        for what, why in KNOWN.items():
            print(f"{what}: {why}")
        return 0
    tools = tempfile.mkdtemp(prefix="imgfs-differential-")
    if not shutil.which("imgtool"):
        sys.exit("differential.py: imgtool is not in PATH")
    imgtool = os.path.join(tools, "qemu-img")  # so it follows references, and names itself alike
    os.symlink(shutil.which("imgtool"), imgtool)
    commands = known_commands(imgtool)
    if a.only:
        commands &= set(a.only.split(","))
    failed = 0
    try:
        with concurrent.futures.ThreadPoolExecutor(a.j) as pool:
            jobs = [pool.submit(one, a.seed + i, a.length, imgtool, commands, a.v, a.no_shrink) for i in range(a.n)]
            for job in concurrent.futures.as_completed(jobs):
                text = job.result()
                if text:
                    failed += 1
                    print(text, flush=True)
                    if not a.k:
                        for other in jobs:
                            other.cancel()
                        break
    finally:
        shutil.rmtree(tools)
    print(f"{a.n} sequences from seed {a.seed}, {failed} failed" if a.k or not failed else "stopped at a failure")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
