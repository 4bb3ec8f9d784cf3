# SPDX-License-Identifier: LGPL-2.1-or-later
"""Lets the Nth I/O call of a writing command fail, for every N, and judges what is left.

usage: faults_run [-l] [-v] PROGRAM [PATTERN]
  PROGRAM  tests/crash/imgtool-faulty: imgtool whose files fail as IMGFS_FAULT says
  -l       every N (else a sample of them)        -v  say each run that is wrong in full

A command that met a fault ends with one sentence and status 1, or did all of its work all the
same (a failed hint, a copy done in another way). Then every qcow2 file that is there is one that
qemu-img check finds no corruption in, and what could be read before can be read still. What was
being made is gone.
"""
import errno
import os
import shutil
import subprocess
import sys

KINDS = (("r", errno.EIO, False), ("w", errno.ENOSPC, False), ("wt", errno.EIO, True),
         ("f", errno.EIO, False), ("tc", errno.ENOSPC, False))
SAMPLE = 2    # about that many runs for each command and two of the kinds, without -l
MUST_FAIL = "wf"
# Of qemu-img: the one hint that follows a sentence.
HINT = "Could not open backing image."
MIB = 1 << 20


def sh(*command, status=(0,), **more):
    p = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, **more)
    if status and p.returncode not in status:
        raise RuntimeError(f"{' '.join(command)}: status {p.returncode}: {p.stderr.decode()}")
    return p


def qemu_io(image, *commands, form="qcow2"):
    args = [w for c in commands for w in ("-c", c)]
    p = sh("qemu-io", "-f", form, *args, image)
    if b"rror" in p.stdout + p.stderr or b"failed" in p.stdout + p.stderr:
        raise RuntimeError(f"qemu-io {commands}: {p.stdout + p.stderr}")


def flat(image, form="qcow2", snapshot=None, out="../flat.tmp"):
    """The bytes that an image shows, or the complaint about it."""
    more = ["-l", f"snapshot.id={snapshot}"] if snapshot else []
    p = sh("qemu-img", "convert", "-f", form, *more, "-O", "raw", image, out, status=None)
    if p.returncode:
        return p.stderr
    with open(out, "rb") as f:
        return f.read()


def create(name, *options, size="1M", backing=None, form="qcow2"):
    o = ",".join(options)
    sh("qemu-img", "create", "-q", "-f", "qcow2", *(["-o", o] if o else []),
       *(["-b", backing, "-F", form] if backing else []), name, *([size] if size else []))


class Case:
    """make() puts files into an empty folder; then `command` is run there.

    keeps: images that must show what they showed before, whatever happens; new: files that a
    failed command must not leave; changes: images that show that, or what the whole command makes
    of them; snapshots: IDs of those of a.qcow2 that stay; check: False where it is damaged.
    """

    def __init__(self, name, command, make, keeps=(), new=(), changes=(), check=True, snapshots=(),
                 other_way=False):
        self.name, self.command, self.make = name, command.split(), make
        self.keeps, self.new, self.changes = keeps, new, changes
        self.check, self.snapshots = check, snapshots
        self.other_way = other_way  # that needs no room: ENOSPC need not be fatal


def form_of(name):
    return "raw" if name.endswith(".raw") else "qcow2"


# ---- what the commands work on

def raw():
    with open("a.raw", "wb") as f:
        f.write(bytes(range(256)) * 1024)
        f.seek(768 << 10)
        f.write(b"tail" * 16384)
        f.truncate(MIB)


def disk(*options):
    def make():
        create("a.qcow2", "cluster_size=4k", *options)
        qemu_io("a.qcow2", "write -P 1 0 300k", "write -P 2 600k 70k", "write -z 700k 8k")
    return make


def with_snapshots(*options):
    def make():
        disk(*options)()
        sh("qemu-img", "snapshot", "-c", "one", "a.qcow2")
        qemu_io("a.qcow2", "write -P 3 100k 200k")
        sh("qemu-img", "snapshot", "-c", "two", "a.qcow2")
        qemu_io("a.qcow2", "write -P 4 200k 200k")
    return make


def chain():
    create("base.qcow2", "cluster_size=4k")
    qemu_io("base.qcow2", "write -P 1 0 200k", "write -P 2 600k 70k")
    create("mid.qcow2", "cluster_size=4k", size=None, backing="base.qcow2")
    qemu_io("mid.qcow2", "write -P 3 100k 50k", "write -z 610k 20k")
    create("a.qcow2", "cluster_size=4k", size=None, backing="mid.qcow2")
    qemu_io("a.qcow2", "write -P 4 120k 60k", "write -P 5 900k 20k")
    create("other.qcow2", "cluster_size=4k")
    qemu_io("other.qcow2", "write -P 9 150k 300k")


def bitmaps():
    disk()()
    for name in ("one", "two"):
        sh("qemu-img", "bitmap", "--add", "a.qcow2", name)
        qemu_io("a.qcow2", "write -P 7 500k 64k")


def bitmaps_below():
    chain()
    for name in ("one", "two"):
        sh("qemu-img", "bitmap", "--add", "mid.qcow2", name)


def leaky():
    disk()()
    # One more reference to each of 32 clusters in the middle of the first refcount block.
    with open("a.qcow2", "r+b") as f:
        f.seek(48)
        table = int.from_bytes(f.read(8), "big")
        f.seek(table)
        block = int.from_bytes(f.read(8), "big")
        f.seek(block + 2 * 40)
        f.write(b"\0\2" * 32)
    sh("qemu-img", "check", "a.qcow2", status=(2, 3))


def broken():
    disk()()
    with open("a.qcow2", "r+b") as f:
        f.seek(48)
        table = int.from_bytes(f.read(8), "big")
        f.seek(table)
        f.write(bytes(8))
    sh("qemu-img", "check", "a.qcow2", status=(1, 2))


def sources():
    raw()
    disk()()


def target():
    sources()
    create("t.qcow2", "cluster_size=4k")
    qemu_io("t.qcow2", "write -P 8 0 100k")


CASES = [
    Case("create-raw", "create -f raw n.raw 1M", raw, ["a.raw"], ["n.raw"]),
    Case("create-raw-full", "create -f raw -o preallocation=full n.raw 1M", raw, ["a.raw"], ["n.raw"]),
    Case("convert-raw", "convert -f qcow2 -O raw a.qcow2 n.raw", disk(), ["a.qcow2"], ["n.raw"]),
    Case("convert-raw-flushed", "convert -t writeback -f qcow2 -O raw a.qcow2 n.raw", disk(),
         ["a.qcow2"], ["n.raw"]),
    Case("convert-raw-chain", "convert -O raw a.qcow2 n.raw", chain, ["a.qcow2"], ["n.raw"]),
    Case("dd-raw", "dd -f raw -O raw bs=64k if=a.raw of=n.raw", raw, ["a.raw"], ["n.raw"]),
    Case("resize-raw", "resize -f raw a.raw 2M", raw, changes=["a.raw"]),
    Case("resize-raw-full", "resize -f raw --preallocation=full a.raw 2M", raw, changes=["a.raw"]),
    Case("create", "create -f qcow2 -o cluster_size=4k n.qcow2 8M", raw, ["a.raw"], ["n.qcow2"]),
    Case("create-v2", "create -f qcow2 -o compat=0.10 n.qcow2 8M", raw, ["a.raw"], ["n.qcow2"]),
    Case("create-metadata", "create -f qcow2 -o preallocation=metadata,cluster_size=4k n.qcow2 8M", raw,
         ["a.raw"], ["n.qcow2"]),
    Case("create-full", "create -f qcow2 -o preallocation=full,cluster_size=4k n.qcow2 1M", raw,
         ["a.raw"], ["n.qcow2"]),
    Case("create-overlay", "create -f qcow2 -b a.qcow2 -F qcow2 n.qcow2", disk(), ["a.qcow2"],
         ["n.qcow2"]),
    Case("create-data-file", "create -f qcow2 -o data_file=d.raw,data_file_raw=on n.qcow2 1M", raw,
         ["a.raw"], ["n.qcow2"]),
    Case("convert", "convert -f raw -O qcow2 -o cluster_size=4k a.raw n.qcow2", raw, ["a.raw"],
         ["n.qcow2"]),
    Case("convert-flushed", "convert -t writeback -f raw -O qcow2 -o cluster_size=4k a.raw n.qcow2",
         raw, ["a.raw"], ["n.qcow2"]),
    Case("convert-compressed", "convert -c -t writeback -f raw -O qcow2 a.raw n.qcow2", raw, ["a.raw"],
         ["n.qcow2"]),
    Case("convert-backing", "convert -t writeback -O qcow2 -B mid.qcow2 -F qcow2 a.qcow2 n.qcow2", chain,
         ["a.qcow2"], ["n.qcow2"]),
    Case("convert-bitmaps", "convert --bitmaps -t writeback -O qcow2 a.qcow2 n.qcow2", bitmaps,
         ["a.qcow2"], ["n.qcow2"]),
    Case("convert-n", "convert -n -t writeback -f raw -O qcow2 a.raw t.qcow2", target, ["a.raw"]),
    Case("dd", "dd -f raw -O qcow2 bs=64k if=a.raw of=n.qcow2", raw, ["a.raw"], ["n.qcow2"]),
    Case("snapshot-create", "snapshot -c three a.qcow2", with_snapshots(), ["a.qcow2"],
         snapshots=["1", "2"]),
    Case("snapshot-create-first", "snapshot -c one a.qcow2", disk(), ["a.qcow2"]),
    Case("snapshot-create-v2", "snapshot -c three a.qcow2", with_snapshots("compat=0.10"), ["a.qcow2"],
         snapshots=["1", "2"]),
    Case("snapshot-apply", "snapshot -a one a.qcow2", with_snapshots(), changes=["a.qcow2"],
         snapshots=["1", "2"]),
    Case("snapshot-delete", "snapshot -d one a.qcow2", with_snapshots(), ["a.qcow2"], snapshots=["2"]),
    Case("resize", "resize a.qcow2 64M", disk(), changes=["a.qcow2"]),
    Case("resize-l1", "resize a.qcow2 1G", disk(), changes=["a.qcow2"]),
    Case("resize-metadata", "resize --preallocation=metadata a.qcow2 8M", disk(), changes=["a.qcow2"]),
    Case("resize-full", "resize --preallocation=full a.qcow2 2M", disk(), changes=["a.qcow2"]),
    Case("resize-shrink", "resize --shrink a.qcow2 512k", disk(), changes=["a.qcow2"]),
    Case("resize-snapshots", "resize a.qcow2 64M", with_snapshots(), changes=["a.qcow2"],
         snapshots=["1", "2"]),
    Case("amend-to-v2", "amend -o compat=0.10 a.qcow2", disk(), ["a.qcow2"]),
    Case("amend-to-v3", "amend -o compat=1.1 a.qcow2", with_snapshots("compat=0.10"), ["a.qcow2"],
         snapshots=["1", "2"]),
    Case("amend-lazy", "amend -o lazy_refcounts=on a.qcow2", disk(), ["a.qcow2"]),
    Case("amend-refcount-bits", "amend -o refcount_bits=64 a.qcow2", with_snapshots(), ["a.qcow2"],
         snapshots=["1", "2"]),
    Case("rebase-unsafe", "rebase -u -b other.qcow2 -F qcow2 a.qcow2", chain, changes=["a.qcow2"]),
    Case("rebase", "rebase -b other.qcow2 -F qcow2 a.qcow2", chain, ["a.qcow2"]),
    Case("rebase-down", "rebase -b base.qcow2 -F qcow2 a.qcow2", chain, ["a.qcow2"]),
    Case("rebase-none", "rebase -b \"\" a.qcow2", chain, ["a.qcow2"]),
    Case("commit", "commit a.qcow2", chain, ["a.qcow2"], other_way=True),
    Case("commit-d", "commit -d a.qcow2", chain, ["a.qcow2"]),
    # What bitmaps of mid.qcow2 noted is stored at the very end, when it is closed.
    Case("commit-bitmaps", "commit a.qcow2", bitmaps_below, ["a.qcow2"], other_way=True),
    Case("commit-base", "commit -b base.qcow2 a.qcow2", chain, ["a.qcow2"]),
    Case("check-leaks", "check -r leaks a.qcow2", leaky, ["a.qcow2"], check=False),
    Case("check-all", "check -r all a.qcow2", broken, ["a.qcow2"], check=False),
    Case("bitmap-add", "bitmap --add a.qcow2 three", bitmaps, ["a.qcow2"]),
    Case("bitmap-remove", "bitmap --remove a.qcow2 one", bitmaps, ["a.qcow2"]),
    Case("bitmap-clear", "bitmap --clear a.qcow2 one", bitmaps, ["a.qcow2"]),
    Case("bitmap-merge", "bitmap --merge two a.qcow2 one", bitmaps, ["a.qcow2"]),
    Case("bitmap-disable", "bitmap --disable a.qcow2 one", bitmaps, ["a.qcow2"]),
    Case("bench-write", "bench -w -f qcow2 -c 20 -d 4 -s 8k -S 12k a.qcow2", disk()),
    Case("bench-write-flush", "bench -w --flush-interval=4 -f qcow2 -c 20 -d 4 -s 8k -S 12k a.qcow2",
         with_snapshots(), snapshots=["1", "2"]),
]


def differs(now, may):
    for old in may:
        for at in range(0, max(len(old), len(now)), 4096):
            if old[at:at + 4096] != now[at:at + 4096]:
                return f"first at {at}"
    return ""


class Judge:
    def __init__(self, program, every, verbose):
        self.program, self.every, self.verbose = program, every, verbose
        self.runs = self.met = self.wrong = 0

    def complain(self, case, what):
        self.wrong += 1
        if self.wrong <= 40 or self.verbose:
            print(f"{case.name}: {what}", flush=True)

    def command(self, case, fault):
        env = dict(os.environ, IMGFS_FAULT=fault, IMGFS_FAULT_COUNT="../count")
        words = [w if w != '""' else "" for w in case.command]
        p = sh(self.program, *words, status=None, env=env, timeout=60)
        with open("../count", encoding="ascii") as f:
            count, failed = map(int, f.read().split())
        return p, count, failed

    def states(self, case):
        out = {name: flat(name, form_of(name)) for name in [*case.keeps, *case.changes]}
        for s in case.snapshots:
            out["a.qcow2", s] = flat("a.qcow2", snapshot=s)
        return out

    def fresh(self):
        shutil.rmtree("run", ignore_errors=True)
        shutil.copytree("made", "run", symlinks=True)
        os.chdir("run")

    def run_case(self, case):
        shutil.rmtree("made", ignore_errors=True)
        os.mkdir("made")
        os.chdir("made")
        case.make()
        before = self.states(case)
        os.chdir("..")
        first = sum(map(ord, case.name))
        some = KINDS if self.every else [KINDS[(first + i) % len(KINDS)] for i in (0, 2)]
        for kinds, error, forever in some:
            self.fresh()
            p, count, _ = self.command(case, f"{kinds}:0:{error}")
            if p.returncode:
                os.chdir("..")
                self.complain(case, f"does not work without faults: {p.stderr[:300]!r}")
                return
            after = self.states(case)
            os.chdir("..")
            step = 1 if self.every else max(1, count // SAMPLE)
            # Which of a stretch: another one of each kind.
            first = 1 if self.every else 1 + (len(case.name) + error + len(kinds)) % step
            for n in range(first, count + 1, step):
                self.fresh()
                try:
                    self.judge(case, f"{kinds}:{n}:{error}{':forever' if forever else ''}", kinds,
                               before, after)
                finally:
                    os.chdir("..")

    def judge(self, case, fault, kinds, before, after):
        try:
            p, _, failed = self.command(case, fault)
        except subprocess.TimeoutExpired:
            self.complain(case, f"{fault}: hangs")
            return
        self.runs += 1
        self.met += failed > 0
        if p.returncode == 0:
            no_room = fault.split(":")[2:3] == [str(errno.ENOSPC)]
            if failed and kinds[0] in MUST_FAIL and not (no_room and case.other_way):
                self.complain(case, f"{fault}: status 0 although a fault was met")
            self.compare(case, fault, after, after)
        else:
            lines = p.stderr.decode(errors="replace").splitlines()
            lines = [line for line in lines if line != HINT]
            statuses = [1]
            if case.command[0] == "check":
                # Findings are told too; what was not repaired is still found.
                lines = [line for line in lines if line.startswith("imgtool: ")] or lines[:1]
                statuses = [1, 2, 3]
            said = (len(lines) == 1 and lines[0].startswith("imgtool: ")) or \
                b"internal errors have occurred" in p.stdout
            if p.returncode not in statuses or (p.returncode == 1 and not said):
                self.complain(case, f"{fault}: status {p.returncode}: {p.stderr[-300:]!r}")
            for name in case.new:
                if os.path.exists(name):
                    self.complain(case, f"{fault}: {name} is left: {p.stderr[:300]!r}")
            self.compare(case, fault, before, after)
        if case.check:
            self.check(case, fault)

    def compare(self, case, fault, before, after):
        for key, now in self.states(case).items():
            # qemu-img shows a snapshot as long as the disk, which a resize changes.
            changes = (key[0] if isinstance(key, tuple) else key) in case.changes
            may = [before[key], after[key]] if changes else [before[key]]
            if now not in may:
                told = now[:300] if len(now) < 1000 else f"other content, {differs(now, may)}"
                self.complain(case, f"{fault}: {key}: {told!r}")

    def check(self, case, fault):
        for name in sorted(os.listdir(".")):
            if not name.endswith(".qcow2"):
                continue
            p = sh("qemu-img", "check", "-f", "qcow2", name, status=None)
            # A cluster with the COPIED flag whose count is one too high is told as corruption,
            # and is a leak: two places cannot change at once.
            if p.returncode == 2 and b"ERROR OFLAG_COPIED" in p.stderr + p.stdout:
                sh("qemu-img", "check", "-f", "qcow2", "-r", "leaks", name, status=None)
                p = sh("qemu-img", "check", "-f", "qcow2", name, status=None)
            if p.returncode not in (0, 3):
                self.complain(case, f"{fault}: check of {name}: {p.returncode} "
                              f"{(p.stderr + p.stdout)[:500]!r}")


def main():
    words = [w for w in sys.argv[1:] if not w.startswith("-")]
    judge = Judge(os.path.abspath(words[0]), "-l" in sys.argv, "-v" in sys.argv)
    pattern = words[1] if len(words) > 1 else ""
    done = 0
    for case in CASES:
        if pattern in case.name:
            before = judge.wrong
            judge.run_case(case)
            done += 1
            if "-v" in sys.argv:
                print("ok" if judge.wrong == before else "wrong", case.name, flush=True)
    print(f"{done} commands, {judge.runs} runs, {judge.met} met a fault, {judge.wrong} wrong")
    return 1 if judge.wrong or not judge.met else 0


if __name__ == "__main__":
    sys.exit(main())
