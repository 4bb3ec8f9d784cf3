# SPDX-License-Identifier: LGPL-2.1-or-later
"""A host that fails under a writable mount: EIO and ENOSPC at each kind of operation.

usage: faults.py IMGFS-FAULTY [-n MOUNTS] [-s SEED] [-v] [KIND...]

In each mount the Nth write, sync, truncate or allocation fails, once or from then on, while a program
writes, syncs, makes and deletes snapshots, resizes and commits. Then
- whoever wanted what failed was told, a writer at the latest by fsync, and each program that has the
  file open; the sentence stands in control/status,
- what was durable before is there, through the mount and afterwards,
- when the host has recovered, the mount takes writes again; after a sync that failed it does not, because
  nobody knows what is lost, and says so,
- the image is clean or has leaks.
"""
import argparse
import errno
import json
import os
import random
import shutil
import struct
import sys
import time

from faulty import CHANGE, FLUSH, TRUNCATE, WRITE, Mount, Wrong, run

BLOCK, BLOCKS = 4096, 1024
KINDS = {
    "raw": (None, "rw"),
    "512": ("cluster_size=512", "rw"),
    "4k": ("cluster_size=4k", "rw"),
    "64k": ("cluster_size=64k", "rw"),
    "extended": ("extended_l2=on,cluster_size=16k", "rw"),
    "lazy": ("lazy_refcounts=on,cluster_size=4k", "rw"),
    "data-file": ("data_file=data.raw,cluster_size=4k", "rw"),
    "overlay": (None, "overlay=over.qcow2"),
}
FAULTS = ((WRITE, "write"), (FLUSH, "sync"), (TRUNCATE, "truncate"), (CHANGE, "change"),
          (WRITE | TRUNCATE | CHANGE, "anything"))
ALLOWED = (errno.EIO, errno.ENOSPC)


def pattern(block, number):
    return struct.pack("<QQ", block, number) * (BLOCK // 16) if number else bytes(BLOCK)


class Trial:
    def __init__(self, program, kind, rng):
        self.rng, self.kind = rng, kind
        options, self.mode = KINDS[kind]
        self.format = "raw" if options is None else "qcow2"
        self.image = "disk." + self.format
        run("qemu-img", "create", "-q", "-f", self.format, *(("-o", options) if options else ()), self.image,
            str(BLOCK * BLOCKS))
        self.top = "over.qcow2" if self.mode.startswith("overlay") else self.image
        self.number = 0
        self.history = {b: [0] for b in range(BLOCKS)}
        self.durable = dict.fromkeys(range(BLOCKS), 0)
        self.told = []  # what failed, and its errno
        self.program = program
        self.snapshots = 0

    # ---- the load

    def attempt(self, what, function, *args):
        try:
            function(*args)
        except OSError as e:
            if e.errno not in ALLOWED and not (what == "commit" and e.errno == errno.EBUSY):
                raise Wrong(f"{what}: {e}") from e
            self.told.append((what, e.errno))
            return False
        return True

    def write(self, disk, count):
        """What it wrote; None when it was told of an error."""
        wrote = {}
        for block in self.rng.sample(range(BLOCKS), count):
            self.number += 1
            self.history[block].append(self.number)
            wrote[block] = len(self.history[block]) - 1
            if not self.attempt("write", os.pwrite, disk, pattern(block, self.number), block * BLOCK):
                return None
        return wrote

    def write_durable(self, disk, count):
        wrote = self.write(disk, count)
        if not self.attempt("fsync", os.fsync, disk) or wrote is None:
            return False
        self.durable.update(wrote)
        return True

    def load(self, disk):
        for _ in range(self.rng.randrange(1, 4)):
            self.write_durable(disk, self.rng.randrange(1, 60))
        if self.top.endswith("qcow2") and self.kind != "data-file":
            self.snapshots += 1
            name = self.m.path(f"snapshots/s{self.snapshots}")
            if self.attempt("mkdir", os.mkdir, name):
                self.write_durable(disk, 20)
                if self.rng.randrange(2):
                    self.attempt("rmdir", os.rmdir, name)
        self.attempt("resize", self.m.command, "resize", f"+{self.rng.randrange(1, 9)}M")
        if self.kind == "overlay" and self.rng.randrange(2):
            self.commit()
        return self.write_durable(disk, 20)

    def commit(self):
        """Without snapshots, which forbid it."""
        for name in os.listdir(self.m.path("snapshots")):
            self.attempt("rmdir", os.rmdir, self.m.path("snapshots/" + name))
        if os.listdir(self.m.path("snapshots")) or not self.attempt("commit", self.m.command, "commit", ""):
            return
        text = "running"
        while "running" in text:
            time.sleep(0.005)
            text = self.m.read("control/commit")
        if "failed" in text:
            self.told.append(("commit", 0))

    # ---- one mount

    def mounted(self, kinds, name):
        self.m = Mount(self.program, f"{self.mode},format={self.format}", self.image)
        plan, rng = self.m.plan, self.rng
        disk, other = (os.open(self.m.path("disk.raw"), os.O_RDWR) for _ in range(2))
        if not self.write_durable(disk, 50):
            raise Wrong(f"before any fault: {self.told}")
        plan.arm(kinds, rng.choice((1, 2, 3, rng.randrange(1, 20), rng.randrange(1, 80))),
                 rng.choice(ALLOWED), rng.randrange(2) == 0)
        self.told = []
        self.load(disk)
        _, failed = plan.disarm()
        if failed:
            self.judge_told(name, disk, other)
        self.judge_mounted(disk)
        self.judge_recovery(disk, name, failed)
        os.close(disk)
        os.close(other)
        status = self.m.unmount()
        if status not in (0, 32) or (status == 32 and not (name == "sync" and self.m.words())):
            raise Wrong(f"imgfs: status {status}: {self.m.words()}")
        return failed

    def judge_told(self, name, disk, other):
        # Space that is not given back, or not reserved, is no harm.
        if name in ("write", "sync") and not self.told:
            raise Wrong("nobody was told")
        if not self.told:
            return
        error = json.loads(self.m.read("control/status"))["last_error"]
        if not error or not error["message"]:
            raise Wrong(f"told {self.told}, but control/status knows of nothing: {error}")
        if name == "sync" and self.base_only(error):
            # The base's is in doubt, which the disk above it is not: only the next commit must not rely on it.
            self.told = []
            self.commit()
            if not self.told:
                raise Wrong("a sync of the base failed, and the next commit is said to have done it")
        elif name == "sync":
            # Another program's bytes may be among those that are lost.
            for _ in range(2):
                if self.attempt("fsync", os.fsync, other) or self.attempt("fsync", os.fsync, disk):
                    raise Wrong("a sync failed, and the next one is said to have done it")

    def base_only(self, error):
        return {what for what, _ in self.told} == {"commit"} and f"'{self.image}'" in error["message"]

    def judge_mounted(self, disk):
        """What was durable and not written since is read."""
        for block, at in self.durable.items():
            if at == len(self.history[block]) - 1:
                if os.pread(disk, BLOCK, block * BLOCK) != pattern(block, self.history[block][at]):
                    raise Wrong(f"block {block} cannot be read in the mount")

    def judge_recovery(self, disk, name, failed):
        if name == "sync" and failed:
            return
        # The first asks for the errors that nobody has asked for yet.
        self.attempt("fsync", os.fsync, disk)
        self.told = []
        if not self.write_durable(disk, 30):
            raise Wrong(f"the host has recovered, but {self.told}: {self.m.words()}")

    def ending(self, kinds, how):
        """What cannot be written at the end is said, and the status is that of a failure."""
        self.m = Mount(self.program, f"{self.mode},format={self.format}", self.image)
        disk = os.open(self.m.path("disk.raw"), os.O_RDWR)
        if not self.write_durable(disk, 50):
            raise Wrong(f"before any fault: {self.told}")
        self.write(disk, 50)
        if how == "unmount":
            os.close(disk)  # sends what the kernel keeps, and syncs nothing
        self.m.plan.arm(kinds, 1, errno.EIO, True)
        if how == "unmount":
            status = self.m.unmount()
        else:
            self.m.daemon.terminate()
            status = self.m.daemon.wait(60)
            try:
                os.close(disk)
            except OSError:
                pass  # nobody is there any more
        if status != 32 or self.image not in self.m.words() and "over.qcow2" not in self.m.words():
            raise Wrong(f"{how}: status {status}: {self.m.words()}")
        self.judge()

    def judge(self):
        for path in {self.top, self.image}:
            if path.endswith(".qcow2"):
                run("imgtool", "check", "-q", "-f", "qcow2", path, ok=(0, 3))
                run("qemu-img", "check", path, ok=(0, 3))
        run("qemu-img", "convert", "-f", self.top.rsplit(".")[-1], "-O", "raw", self.top, "back.raw")
        with open("back.raw", "rb") as back:
            for block in range(BLOCKS):
                data, allowed = back.read(BLOCK), self.history[block][self.durable[block] :]
                held = [n for n in allowed if pattern(block, n) == data]
                sectors = range(0, BLOCK, 512)
                if not held and not all(any(data[at : at + 512] == pattern(block, n)[at : at + 512] for n in allowed)
                                        for at in sectors):
                    raise Wrong(f"block {block} holds {struct.unpack_from('<QQ', data)}, allowed is {allowed}")


def in_folder(name, function, program, kind, seed):
    """Calls function with a new image of this kind."""
    os.mkdir("trial")
    os.chdir("trial")
    t = Trial(program, kind, random.Random(seed))
    try:
        done = function(t)
    except Wrong as e:
        sys.exit(f"{name}, seed {seed}, plan {t.m.plan.fields()}: {e}")
    os.chdir("..")
    shutil.rmtree("trial")
    return done


def fault(t):
    kinds, name = t.rng.choice(FAULTS)
    failed = t.mounted(kinds, name)
    t.judge()
    return failed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("-n", type=int, default=16)
    parser.add_argument("-s", type=int, default=1)
    parser.add_argument("-v", action="store_true")
    parser.add_argument("kinds", nargs="*")
    o = parser.parse_args()
    kinds, met = o.kinds or list(KINDS), 0
    for kind in kinds if o.n > 100 else ("raw", "4k", "overlay"):
        for name, bits, how in (("sync", FLUSH, "unmount"), ("sync", FLUSH, "signal"), ("write", WRITE, "signal")):
            in_folder(f"{kind}, last {name}, {how}", lambda t: t.ending(bits, how), o.program, kind, o.s)
    for i in range(o.n):
        failed = in_folder(kinds[i % len(kinds)], fault, o.program, kinds[i % len(kinds)], f"{o.s} {i}")
        met += failed > 0
        if o.v:
            print(f"{i}: {kinds[i % len(kinds)]}: {failed} failed", flush=True)
    if not met:
        sys.exit("nothing ever failed")
    print(f"{o.n} mounts, a host that failed in {met}")


if __name__ == "__main__":
    main()
