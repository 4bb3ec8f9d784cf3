# SPDX-License-Identifier: LGPL-2.1-or-later
"""python3 -m maintain FOLDER SEED...: random changes of an image's structure by imgtool.

The content of the disk and of every snapshot is kept here as bytes; qemu-img judges what imgtool
made of the image after each step. Prints the sequence of a seed that goes wrong; status 1.
"""
import os
import random
import subprocess
import sys

STEPS = 14
KINDS = ("", "compat=0.10", "cluster_size=512", "cluster_size=4k,refcount_bits=64", "cluster_size=2M",
         "cluster_size=16k,extended_l2=on", "lazy_refcounts=on", "refcount_bits=8,cluster_size=1k")


class Wrong(Exception):
    pass


class Sequence:
    def __init__(self, seed):
        self.rng = random.Random(f"maintain {seed}")
        self.kind = self.rng.choice(KINDS)
        self.log = []
        self.size = self.rng.randrange(1, 4096) * 512
        self.below = None
        backing = []
        if self.rng.random() < 0.4:
            self.below = self.rng.randbytes(1 << 12) * 512
            with open("base.raw", "wb") as f:
                f.write(self.below)
            backing = ["-b", "base.raw", "-F", "raw"]
        self.run("qemu-img", "create", "-q", "-f", "qcow2", "-o", self.kind or "compat=1.1", *backing,
                 "a.qcow2", str(self.size))
        self.disk = bytearray((self.below or b"")[:self.size].ljust(self.size, b"\0"))
        self.snapshots = []  # (name, bytes)
        self.names = 0

    def run(self, *command, may_fail=False):
        self.log.append(" ".join(command))
        p = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, check=False)
        if p.returncode and not may_fail:
            raise Wrong(p.stdout.decode(errors="replace")[:2000])
        return p.returncode == 0

    def write(self):
        commands = []
        for _ in range(self.rng.randrange(1, 5)):
            at = self.rng.randrange(self.size // 512) * 512
            length = min(self.rng.choice((512, 4096, 65536, 300000)) // 512 * 512, self.size - at)
            pattern = self.rng.randrange(0, 256)
            commands += ["-c", f"write -q -P {pattern} {at} {length}"]
            self.disk[at:at + length] = bytes([pattern]) * length
        self.run("qemu-io", "-f", "qcow2", *commands, "a.qcow2")

    def create(self):
        name = f"s{self.names}"
        self.names += 1
        if self.run("imgtool", "snapshot", "-c", name, "a.qcow2", may_fail="refcount_bits" in self.kind):
            self.snapshots.append((name, bytes(self.disk)))

    def apply(self):
        if self.snapshots:
            name, data = self.rng.choice(self.snapshots)
            self.run("imgtool", "snapshot", "-a", name, "a.qcow2")
            self.disk, self.size = bytearray(data), len(data)

    def delete(self):
        if self.snapshots:
            i = self.rng.randrange(len(self.snapshots))
            self.run("imgtool", "snapshot", "-d", self.snapshots.pop(i)[0], "a.qcow2")

    def rename(self):
        if self.snapshots:
            i = self.rng.randrange(len(self.snapshots))
            new = f"renamed to {self.names}" * self.rng.randrange(1, 4)
            self.names += 1
            self.run("imgtool", "snapshot", "-r", self.snapshots[i][0], new, "a.qcow2")
            self.snapshots[i] = (new, self.snapshots[i][1])

    def resize(self):
        size = self.rng.choice((self.rng.randrange(1, 8192) * 512, self.size + 512,
                                max(512, self.size - 512)))
        mode = self.rng.choice(("off", "off", "metadata", "falloc", "full")) if size > self.size else "off"
        if self.run("imgtool", "resize", "-q", "--shrink", f"--preallocation={mode}", "a.qcow2", str(size),
                    may_fail=bool(self.snapshots)):
            self.disk = self.disk[:size].ljust(size, b"\0")
            self.size = size

    def amend(self):
        what = self.rng.choice(("refcount_bits=16", "refcount_bits=32", "refcount_bits=64", "compat=1.1",
                                "compat=0.10", "lazy_refcounts=on", "lazy_refcounts=off"))
        self.run("imgtool", "amend", "-q", "-o", what, "a.qcow2", may_fail=True)

    def repair(self):
        self.run("imgtool", "check", "-q", "-r", "all", "a.qcow2")

    def judge(self):
        self.run("qemu-img", "check", "-q", "a.qcow2")
        self.run("imgtool", "check", "-q", "a.qcow2")
        for name, data in [(None, bytes(self.disk)), *self.snapshots]:
            for program in ("qemu-img", "imgtool"):
                more = ["-l", f"snapshot.name={name}"] if name else []
                self.run(program, "convert", *more, "-O", "raw", "a.qcow2", "out.raw")
                with open("out.raw", "rb") as f:
                    now = f.read()
                # qemu-img shows a snapshot as long as the disk is now.
                n = min(len(now), len(data)) if program == "qemu-img" else max(len(now), len(data))
                if now[:n] != data[:n]:
                    at = next((i for i in range(n) if now[i:i + 1] != data[i:i + 1]), n)
                    raise Wrong(f"{program} shows {name or 'the disk'} differently at {at}")

    def go(self):
        steps = (self.write, self.write, self.write, self.create, self.create, self.apply, self.delete,
                 self.rename, self.resize, self.resize, self.amend, self.repair)
        for _ in range(STEPS):
            self.rng.choice(steps)()
            self.judge()


def main():
    os.chdir(sys.argv[1])
    bad = 0
    for seed in sys.argv[2:]:
        for name in ("a.qcow2", "base.raw", "out.raw"):
            if os.path.exists(name):
                os.unlink(name)
        s = Sequence(seed)
        try:
            s.go()
        except Wrong as e:
            bad += 1
            words = [w for w in s.log if " convert " not in w and " check -q a" not in w]
            print(f"seed {seed}: {e}\n  " + "\n  ".join(words), flush=True)
    print(f"{len(sys.argv) - 2} sequences, {bad} wrong")
    sys.exit(bad > 0)


main()
