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


class Kind:
    """An image and a mode, chosen at random."""

    def __init__(self, rng):
        self.mode = rng.choice(("rw", "rw", "rw", "overlay", "scratch"))
        self.files = rng.choice(("alone", "partitions", "partitions"))
        self.format = rng.choice(("qcow2",) * 5 + ("raw",))
        self.options, self.cluster, self.base = [], 64 * KIB, None
        self.snapshots = self.resize = True
        if self.format == "raw":
            self.snapshots = self.mode != "rw"
            return
        self.cluster = 512 << rng.randrange(13)
        self.options = [f"cluster_size={self.cluster}"]
        if rng.randrange(6) == 0:
            self.options.append("compat=0.10")
            # With snapshots the size of such an image stays as it is.
            if self.mode != "overlay":
                self.snapshots = rng.choice((False, True))
                self.resize = not self.snapshots
        else:
            self.modern(rng)
        if rng.randrange(3) == 0:
            self.base = rng.choice(("raw", "qcow2"))

    def modern(self, rng):
        if self.cluster >= 16 * KIB and rng.randrange(3) == 0:
            self.options.append("extended_l2=on")
        if rng.randrange(3) == 0:
            self.options.append("lazy_refcounts=on")
        if rng.randrange(6) == 0:
            self.options.append("data_file=data.raw")
            self.snapshots = self.mode != "rw"
        elif rng.randrange(2) == 0:
            bits = rng.choice((1, 2, 4, 8, 32, 64))
            self.options.append(f"refcount_bits={bits}")
            # A cluster of all snapshots and the disk has to be counted.
            if bits < 4:
                self.snapshots = self.mode != "rw"

    def __str__(self):
        return f"{self.mode} {self.files} {self.format} {','.join(self.options)} base={self.base}"


class Trial:
    """One image in the working directory."""

    def __init__(self, program, kind, rng, verbose):
        self.program, self.kind, self.rng, self.verbose = program, kind, rng, verbose
        self.image = "disk." + kind.format
        self.written = "over.qcow2" if kind.mode == "overlay" else self.image
        self.untouched = {}

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

    def prepare(self):
        kind = self.kind
        self.make_disk("first.raw", START)
        options = [word for text in kind.options for word in ("-o", text)]
        if kind.base:
            # A backing file may be shorter than what stands upon it.
            short = self.rng.choice((START, SMALLEST))
            os.truncate("first.raw", short)
            base = "base." + kind.base
            run("qemu-img", "convert", "-f", "raw", "-O", kind.base, "first.raw", base)
            run("qemu-img", "create", "-q", "-f", "qcow2", *options, "-b", base, "-F", kind.base,
                self.image, str(START))
            self.keep(base)
        else:
            run("qemu-img", "convert", "-f", "raw", "-O", kind.format, *options, "first.raw", self.image)
        if kind.mode != "rw":
            for path in (self.image, "data.raw"):
                if os.path.exists(path):
                    self.keep(path)

    def keep(self, path):
        shutil.copyfile(path, path + ".kept")
        self.untouched[path] = path + ".kept"

    def mount_options(self):
        rng = self.rng
        mode = "overlay=over.qcow2" if self.kind.mode == "overlay" else self.kind.mode
        words = [mode, f"format={self.kind.format}"]
        words += rng.sample(("sync", "cache=none", "cache=writethrough", "discard=ignore"),
                            rng.choice((0, 0, 1, 2)))
        if {"cache=none", "cache=writethrough"} <= set(words):
            words.remove("cache=none")
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
        words += os.environ.get("MODEL_EXCLUDE", "").split()
        return ",".join(words) or "nothing"

    def phase(self, operations):
        options, seed = self.mount_options(), self.rng.randrange(1 << 32)
        if self.verbose:
            print(f"  -o {options} seed {seed}", flush=True)
        os.makedirs("m", exist_ok=True)
        daemon = subprocess.Popen(["imgfs", "-f", "-o", options, self.image, "m"], stdin=subprocess.DEVNULL)
        try:
            end = time.monotonic() + 20
            while not os.path.exists("m/disk.raw"):
                if daemon.poll() is not None or time.monotonic() > end:
                    raise Wrong(f"imgfs -o {options}: status {daemon.poll()}")
                time.sleep(0.01)
            alone = self.kind.files == "alone"
            windows = [] if alone else [word for number, (start, count) in enumerate(PARTITIONS) for word in (
                "-w", f"m/partitions/{number + 1}.raw:{start * 512}:{count * 512}")]
            run(self.program, "-s", str(seed), "-n", str(operations), "-g", str(self.kind.cluster),
                "-m", str(SMALLEST), "-M", str(LARGEST), "-S", "state", "-x", self.excluded(),
                *windows, "-d", "m", "m/disk.raw")
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
        try:
            daemon.wait(60)
        except subprocess.TimeoutExpired:
            subprocess.run(["umount", "-l", "m"], check=False)
            daemon.kill()
            daemon.wait()
            raise Wrong("imgfs did not end") from None

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
        if form == "qcow2":
            run("qemu-img", "check", "-q", "-f", form, self.written)
            run("imgtool", "check", "-q", "-f", form, self.written)
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
    print(f"{done} images, {bad} wrong, {time.monotonic() - start:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
