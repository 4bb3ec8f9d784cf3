# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs tests/mount/model over all kinds of images and modes of a mount, and judges what is left.

usage: model-run.py PROGRAM [-s SEED] [-n OPERATIONS] [-c COUNT] [-t SECONDS] [-v] [WORD...]

COUNT images (or as many as SECONDS allow), chosen by SEED; WORD...: only those whose description
has all these words. Each image is mounted some times, with other options each time; after each
unmount `qemu-img check` is clean, and qemu-img reads the disk and every snapshot as the model says.
"""
import argparse
import filecmp
import glob
import os
import random
import shutil
import struct
import subprocess
import sys
import time

KIB, MIB = 1 << 10, 1 << 20
SMALLEST, START, LARGEST = 3 * MIB, 4 * MIB, 8 * MIB
# Of disk.raw's sectors: one that shares pages with its neighbours, one that does not.
PARTITIONS = ((63, 2048 - 63), (2048, 3000))


class Wrong(Exception):
    pass


def run(*argv, ok=(0,)):
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode not in ok:
        text = done.stdout.decode(errors="replace")
        raise Wrong(f"{' '.join(argv)}: status {done.returncode}\n{text}")
    return done.stdout.decode(errors="replace")


def qcow2_options(rng):
    """Options of a new image, and its cluster size."""
    cluster = 512 << rng.randrange(13)
    options = [f"cluster_size={cluster}"]
    if rng.randrange(6) == 0:
        options.append("compat=0.10")
        return options, cluster
    if cluster >= 16 * KIB and rng.randrange(3) == 0:
        options.append("extended_l2=on")
    if rng.randrange(3) == 0:
        options.append("lazy_refcounts=on")
    if rng.randrange(4) == 0:
        options.append("compression_type=zstd")
    if rng.randrange(6) == 0:
        options.append("data_file=DATA")
    elif rng.randrange(2) == 0:
        options.append(f"refcount_bits={rng.choice((1, 2, 4, 8, 32, 64))}")
    return options, cluster


def is_v2(options):
    return "compat=0.10" in options


def has_data_file(options):
    return any(word.startswith("data_file") for word in options)


def can_have_snapshots(options):
    # A cluster of all snapshots and the disk has to be counted.
    return not (has_data_file(options) or {"refcount_bits=1", "refcount_bits=2"} & set(options))


class Base:
    """An image below the disk's own."""

    def __init__(self, rng, form, name):
        self.form, self.name, self.options = form, f"{name}.{form}", []
        # A backing file may be shorter or longer than what stands upon it.
        self.size = rng.choice((START, START, SMALLEST, SMALLEST + 3 * 512, START + MIB))
        if form == "qcow2":
            self.options, _ = qcow2_options(rng)

    def __str__(self):
        return f"{self.form}:{self.size}:{','.join(self.options)}"


class Kind:
    """An image and a mode, chosen at random."""

    def __init__(self, rng):
        self.mode = rng.choice(("rw", "rw", "rw", "overlay", "scratch"))
        self.files = rng.choice(("single", "alone", "partitions", "partitions", "partitions"))
        self.format = rng.choice(("qcow2",) * 5 + ("raw",))
        self.options, self.cluster, self.bases = [], 64 * KIB, []
        self.snapshots = self.resize = True
        if self.format == "raw":
            self.snapshots = self.mode != "rw"
        else:
            self.qcow2(rng)
        below = self.bases or self.mode == "overlay"
        self.commit = bool(below) and self.files != "single" and self.mode != "scratch" and rng.randrange(3) > 0

    def qcow2(self, rng):
        self.options, self.cluster = qcow2_options(rng)
        if self.mode == "rw":
            self.snapshots = can_have_snapshots(self.options)
        if is_v2(self.options) and self.mode != "overlay":
            # With snapshots the size of such an image stays as it is.
            self.snapshots = rng.choice((False, True))
            self.resize = not self.snapshots
        if rng.randrange(5) < 2:
            self.bases = [Base(rng, rng.choice(("raw", "qcow2", "qcow2")), "base")]
            if self.bases[0].form == "qcow2" and rng.randrange(3) == 0:
                self.bases.append(Base(rng, rng.choice(("raw", "qcow2")), "bottom"))

    def below(self):
        """Names of the images that can be committed into, the nearest first."""
        names = [base.name for base in self.bases]
        return ["disk." + self.format] + names if self.mode == "overlay" else names

    def __str__(self):
        bases = " over ".join(map(str, self.bases))
        commit = " commit" if self.commit else ""
        return f"{self.mode} {self.files}{commit} {self.format} {','.join(self.options)} base={bases or None}"


class Trial:
    """One image in the working directory."""

    counts = {}  # of all

    def __init__(self, program, kind, rng, verbose):
        self.program, self.kind, self.rng, self.verbose = program, kind, rng, verbose
        self.image = "disk." + kind.format
        self.written = "over.qcow2" if kind.mode == "overlay" else self.image
        self.untouched = {}
        self.old = None

    def make_disk(self, path, size):
        table = bytearray(512)
        for number, (start, count) in enumerate(PARTITIONS):
            struct.pack_into("<B3sB3sII", table, 446 + 16 * number, 0, b"", 0x83, b"", start, count)
        table[510:] = b"\x55\xaa"
        with open(path, "wb") as out:
            out.write(table)
            for _ in range(12):
                out.seek(self.rng.randrange(1, size // 512 - 600) * 512)
                out.write(self.rng.randbytes(self.rng.choice((512, 4096, 300000))))
            out.truncate(size)

    def make(self, form, name, options, size, below):
        """An image with data: a copy of a new disk, or some clusters above another image."""
        words = [word for text in options for word in ("-o", text.replace("DATA", name + ".data"))]
        if below:
            run("qemu-img", "create", "-q", "-f", form, *words, "-b", below.name, "-F", below.form, name, str(size))
            for _ in range(self.rng.randrange(4)):
                at, length = self.rng.randrange(1, size // 512 - 600) * 512, self.rng.choice((512, 300032))
                run("qemu-io", "-f", form, "-c", f"write -P {self.rng.randrange(256)} {at} {length}", name)
            return
        self.make_disk("first.raw", size)
        packed = form == "qcow2" and not has_data_file(options) and self.rng.randrange(4) == 0
        run("qemu-img", "convert", *(["-c"] if packed else []), "-f", "raw", "-O", form, *words, "first.raw", name)

    def prepare(self):
        kind = self.kind
        bases = kind.bases
        for number in reversed(range(len(bases))):
            base = bases[number]
            self.make(base.form, base.name, base.options, base.size, (bases + [None])[number + 1])
        self.make(kind.format, self.image, kind.options, START, bases[0] if bases else None)
        self.prepare_old()
        for path in [base.name for base in bases] + ([self.image] if kind.mode != "rw" else []):
            if not kind.commit:
                self.keep(path)
                if os.path.exists(path + ".data"):
                    self.keep(path + ".data")

    def prepare_old(self):
        """A snapshot in the image below, which shares its clusters."""
        kind = self.kind
        if kind.mode == "overlay":
            form, name, options = kind.format, self.image, kind.options
        elif kind.bases:
            form, name, options = kind.bases[0].form, kind.bases[0].name, kind.bases[0].options
        else:
            return
        # A commit further down changes what it shows where it has no clusters.
        if kind.commit and len(kind.below()) > 1:
            return
        if form != "qcow2" or is_v2(options) or not can_have_snapshots(options) or self.rng.randrange(2):
            return
        run("qemu-img", "snapshot", "-c", "old", name)
        self.old = name
        self.copy_old("old.kept")

    def copy_old(self, to):
        run("imgtool", "convert", "-f", "qcow2", "-l", "snapshot.name=old", "-O", "raw", self.old, to)

    def keep(self, path):
        shutil.copyfile(path, path + ".kept")
        self.untouched[path] = path + ".kept"

    def mount_options(self):
        rng = self.rng
        mode = "overlay=over.qcow2" if self.kind.mode == "overlay" else self.kind.mode
        words = [mode, f"format={self.kind.format}"]
        if mode == "scratch" and rng.randrange(2):
            words[0] = "scratch=" + rng.choice(("0", "1M"))
        words += rng.sample(("sync", "discard=ignore"), rng.choice((0, 0, 1, 2)))
        if rng.randrange(2):
            words.append("cache=" + rng.choice(("none", "writethrough", "directsync", "unsafe")))
        if "cache=unsafe" in words and "sync" in words:
            words.remove("sync")
        if rng.randrange(2):
            words.append("detect_zeroes=" + rng.choice(("on", "unmap")))
        if rng.randrange(4) == 0:
            # Tables that come and go.
            words.append("cache_size=" + rng.choice(("64k", "512k")))
        if "detect_zeroes=unmap" in words and "discard=ignore" in words:
            words.remove("discard=ignore")
        return ",".join(words)

    def excluded(self):
        words = [] if self.kind.snapshots else ["snapshot"]
        words += [] if self.kind.resize else ["truncate"]
        words += [] if self.kind.commit or not self.kind.below() else ["commit"]
        words += os.environ.get("MODEL_EXCLUDE", "").split()
        return ",".join(words) or "nothing"

    def phase(self, operations):
        options, seed = self.mount_options(), self.rng.randrange(1 << 32)
        if self.verbose:
            print(f"  -o {options} seed {seed}", flush=True)
        single = self.kind.files == "single"
        if single:
            open("m", "a", encoding="ascii").close()
        else:
            os.makedirs("m", exist_ok=True)
        daemon = subprocess.Popen(["imgfs", "-f", "--pidfile", "pid", "-o", options, self.image, "m"],
                                  stdin=subprocess.DEVNULL)
        try:
            end = time.monotonic() + 20
            # Made at once, and written when the files are there.
            while not (os.path.exists("pid") and os.path.getsize("pid")):
                if daemon.poll() is not None or time.monotonic() > end:
                    raise Wrong(f"imgfs -o {options}: status {daemon.poll()}")
                time.sleep(0.01)
            windows = [] if self.kind.files != "partitions" else [word for number, (start, count) in enumerate(PARTITIONS) for word in (
                "-w", f"m/partitions/{number + 1}.raw:{start * 512}:{count * 512}")]
            bases = [word for name in self.kind.below() if self.kind.commit for word in ("-b", name)]
            where = ("m",) if single else ("-d", "m", "m/disk.raw")
            if not single and self.kind.mode == "rw" and not self.kind.bases:
                where = ("-l", "m/layers/0-disk.raw") + where
            text = run(self.program, "-s", str(seed), "-n", str(operations), "-g", str(self.kind.cluster),
                "-m", str(SMALLEST), "-M", str(LARGEST), "-S", "state", "-x", self.excluded(),
                *windows, *bases, *where)
            for word in text.splitlines()[-1].split(", "):
                number, what = word.split()
                self.counts[what] = self.counts.get(what, 0) + int(number)
        except Wrong as error:
            raise Wrong(f"-o {options} seed {seed}: {error}") from None
        finally:
            self.unmount(daemon)
        if daemon.returncode:
            raise Wrong(f"-o {options}: imgfs ended with status {daemon.returncode}")
        try:
            self.judge()
        except Wrong as error:
            raise Wrong(f"-o {options} seed {seed}, after unmounting: {error}") from None

    @staticmethod
    def unmount(daemon):
        subprocess.run(["fusermount3", "-u", "m"], stderr=subprocess.DEVNULL, check=False)
        # Twice: the whole machine may have stood still for the first time.
        for _ in range(2):
            try:
                daemon.wait(60)
                return
            except subprocess.TimeoutExpired:
                pass
        if os.environ.get("MODEL_KEEP_HUNG"):
            raise Wrong(f"imgfs did not end: process {daemon.pid}")
        subprocess.run(["umount", "-l", "m"], check=False)
        daemon.kill()
        daemon.wait()
        raise Wrong("imgfs did not end")

    def judge(self):
        for path, kept in self.untouched.items():
            if not filecmp.cmp(path, kept, shallow=False):
                raise Wrong(f"{path} was changed")
        if self.kind.mode == "scratch":
            # All of it is gone: the next mount begins with the image again.
            shutil.rmtree("state")
            os.mkdir("state")
            return
        form = self.kind.format if self.written == self.image else "qcow2"
        for name in [self.written] + self.kind.below():
            if name.endswith("qcow2"):
                run("qemu-img", "check", "-q", "-f", "qcow2", name)
                run("imgtool", "check", "-q", "-f", "qcow2", name)
        if self.old:
            self.copy_old("old.now")
            if not filecmp.cmp("old.now", "old.kept", shallow=False):
                raise Wrong(f"the snapshot in {self.old} was changed")
        self.same(form, self.written, "state/disk")
        snapshots = sorted(glob.glob("state/snapshot.*"))
        for path in snapshots:
            self.same_snapshot(form, path, path.split(".", 1)[1])
        if form == "qcow2":
            lines = run("qemu-img", "snapshot", "-l", self.written).strip().splitlines()
            if max(0, len(lines) - 2) != len(snapshots):
                raise Wrong(f"{len(snapshots)} snapshots expected: {lines}")

    @staticmethod
    def same(form, image, like):
        run("qemu-img", "convert", "-f", form, "-O", "raw", image, "back.raw")
        if not filecmp.cmp("back.raw", like, shallow=False):
            raise Wrong(f"{image}: not as {like}")

    def same_snapshot(self, form, like, name):
        """qemu-img gives a snapshot the size that the disk has now, and whatever lies behind its own."""
        where = ("-f", form, "-l", "snapshot.name=" + name, "-O", "raw", self.written, "back.raw")
        run("qemu-img", "convert", *where)
        with open("back.raw", "rb") as ours, open(like, "rb") as model:
            bytes_, expected = ours.read(), model.read()
        common = min(len(bytes_), len(expected))
        if bytes_[:common] != expected[:common]:
            raise Wrong(f"snapshot {name} by qemu-img: not as {like}")
        run("imgtool", "convert", *where)
        if not filecmp.cmp("back.raw", like, shallow=False):
            raise Wrong(f"snapshot {name} by imgtool: not as {like}")

    def run(self, phases, operations):
        os.mkdir("state")
        self.prepare()
        for _ in range(phases):
            self.phase(operations)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("word", nargs="*")
    parser.add_argument("-s", type=int, default=1)
    parser.add_argument("-n", type=int, default=1500)
    parser.add_argument("-c", type=int, default=1 << 30)
    parser.add_argument("-t", type=float, default=float("inf"))
    parser.add_argument("-v", action="store_true")
    parser.add_argument("-k", action="store_true", help="go on after a failure")
    options = parser.parse_intermixed_args()
    start, top, done, bad, seed = time.monotonic(), os.getcwd(), 0, 0, options.s
    while done < options.c and time.monotonic() - start < options.t:
        rng = random.Random(seed)
        kind = Kind(rng)
        seed += 1
        if not all(word in str(kind) for word in options.word):
            continue
        if options.v:
            print(f"seed {seed - 1}: {kind}", flush=True)
        folder = os.path.join(top, f"trial-{seed - 1}")
        os.mkdir(folder)
        os.chdir(folder)
        try:
            Trial(os.path.abspath(options.program), kind, rng, options.v).run(3, options.n)
            os.chdir(top)
            shutil.rmtree(folder)
        except Wrong as error:
            print(f"WRONG: repeat with -s {seed - 1} -c 1: {kind}\n{error}", flush=True)
            bad += 1
            os.chdir(top)
            if not options.k:
                return 1
        done += 1
    counts = "".join(f", {number} {what}" for what, number in Trial.counts.items())
    print(f"{done} images, {bad} wrong, {time.monotonic() - start:.0f} s{counts}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
