# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs every writing command of imgtool on the hostile images.

usage: hostile_write [-l] [-u] [-v] PROGRAM [PATTERN]
  -l  every command on every image (else some on each)   -u  no limit of memory (sanitizers)
  -v  say each case

No command is ended by a signal, takes 10 seconds or writes more than the budget; what lies beside
the image stays as it is; a failing command says a sentence. An image that was sound shows
afterwards what it showed before, and no command, repair least of all, loses clusters that could be
read.
"""
import hashlib
import os
import resource
import shutil
import subprocess
import sys
import time

import hostile
import qcow2

SECONDS = 10
GIB = 1 << 30
FILE_MOST = 256 << 20

# Name, words, what becomes of the disk: same, grown, shrunk, other (only the limits count).
COMMANDS = (
    ("snapshot-create", ["snapshot", "-c", "new", "{}"], "same"),
    ("snapshot-apply", ["snapshot", "-a", "1", "{}"], "other"),
    ("snapshot-delete", ["snapshot", "-d", "1", "{}"], "same"),
    ("resize-grow", ["resize", "-f", "qcow2", "{}", "+64M"], "grown"),
    ("resize-shrink", ["resize", "-f", "qcow2", "--shrink", "{}", "128k"], "shrunk"),
    ("resize-full", ["resize", "-f", "qcow2", "--preallocation=metadata", "{}", "+2M"], "grown"),
    ("amend-v2", ["amend", "-f", "qcow2", "-o", "compat=0.10", "{}"], "same"),
    ("amend-lazy", ["amend", "-f", "qcow2", "-o", "lazy_refcounts=on", "{}"], "same"),
    ("amend-bits", ["amend", "-f", "qcow2", "-o", "refcount_bits=64", "{}"], "same"),
    ("rebase-unsafe", ["rebase", "-u", "-f", "qcow2", "-b", "", "{}"], "other"),
    ("rebase", ["rebase", "-f", "qcow2", "-b", "plain.qcow2", "-F", "qcow2", "{}"], "same"),
    ("commit-into", ["commit", "top.qcow2"], "other"),
    ("check-leaks", ["check", "-f", "qcow2", "-r", "leaks", "{}"], "repaired"),
    ("check-all", ["check", "-f", "qcow2", "-r", "all", "{}"], "repaired"),
    ("bitmap-add", ["bitmap", "-f", "qcow2", "--add", "{}", "new"], "same"),
    ("bitmap-remove", ["bitmap", "-f", "qcow2", "--remove", "{}", "one"], "same"),
    ("convert-into", ["convert", "-n", "-f", "raw", "-O", "qcow2", "source.raw", "{}"], "other"),
    ("bench", ["bench", "-w", "-f", "qcow2", "-c", "24", "-d", "4", "-s", "20k", "-S", "52k", "{}"],
     "other"),
    ("create-over", ["create", "-f", "qcow2", "-b", "{}", "-F", "qcow2", "new.qcow2"], "same"),
)
OUR_FILES = ("top.qcow2", "new.qcow2", "run.out", "run.err", "out.raw")


def digest(path):
    st = os.lstat(path)
    if not os.path.isfile(path) or os.path.islink(path):
        return st.st_mode, st.st_size
    with open(path, "rb") as f:
        return hashlib.sha1(f.read()).digest(), st.st_mtime_ns


class Judge:
    def __init__(self, program, every, unlimited, verbose):
        self.program, self.every = program, every
        self.unlimited, self.verbose = unlimited, verbose
        self.seconds = SECONDS * 3 if unlimited else SECONDS
        self.wrong = self.done = self.succeeded = 0
        self.slowest = (0, "")

    def complain(self, case, command, what):
        self.wrong += 1
        print(f"{case.name} ({case.kind}) {command}: {what}", flush=True)

    def limits(self):
        if not self.unlimited:
            resource.setrlimit(resource.RLIMIT_AS, (GIB, GIB))
        resource.setrlimit(resource.RLIMIT_FSIZE, (GIB, GIB))

    def run(self, case, label, words):
        begin = time.monotonic()
        try:
            p = subprocess.run([self.program, *words], stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=self.seconds,
                               preexec_fn=self.limits)
        except subprocess.TimeoutExpired:
            self.complain(case, label, f"took more than {self.seconds} s")
            return None
        self.slowest = max(self.slowest, (time.monotonic() - begin, f"{label} {case.name}"))
        self.done += 1
        if p.returncode < 0 or p.returncode >= 124 or b"Sanitizer" in p.stderr or \
                b"runtime error" in p.stderr:
            self.complain(case, label, f"status {p.returncode}: {p.stderr[:3000]!r}")
            return None
        if len(p.stdout) + len(p.stderr) > 1 << 20:
            self.complain(case, label, f"{len(p.stdout)} + {len(p.stderr)} bytes of output")
        return p

    def read(self, case, label):
        """The disk by clusters: bytes, or None where it cannot be read."""
        out = {}
        p = self.run(case, label + ", read", ["convert", "--salvage", "-f", "qcow2", "-O", "raw",
                                              case.file, "out.raw"])
        if p is None or p.returncode:
            return None
        lost = p.stderr.count(b"\n")
        with open("out.raw", "rb") as f:
            at = 0
            while piece := f.read(hostile.C):
                out[at] = piece
                at += len(piece)
        return out, lost

    def judge(self, case, name, words, effect):
        hostile.make(case, ".")
        original = digest(case.file)
        if name == "commit-into":
            w = qcow2.Writer(hostile.SIZE, 16, backing=case.file.encode(), backing_format=b"qcow2")
            for i in (0, 3, 9):
                w.active.entries[i] = w.data_entry(b"top " * (hostile.C // 4))
            w.finish("top.qcow2")
        before = {n: digest(n) for n in os.listdir(".") if n != case.file and n not in OUR_FILES}
        p = self.run(case, name, [w.replace("{}", case.file) for w in words])
        if p is None:
            return
        self.succeeded += p.returncode == 0
        if p.returncode and name[:5] != "check" and b"imgtool: " not in p.stderr:
            self.complain(case, name, f"no sentence: {p.stderr[:300]!r}")
        after = {n: digest(n) for n in os.listdir(".") if n != case.file and n not in OUR_FILES}
        for other in before.keys() | after.keys():
            # The data file is a part of the image.
            if "-data-" not in case.name and before.get(other) != after.get(other):
                self.complain(case, name, f"{other} beside it was changed: {p.stderr[:200]!r}")
        if not os.path.exists(case.file):
            self.complain(case, name, "the image is gone")
            return
        if os.stat(case.file).st_blocks * 512 > FILE_MOST:
            self.complain(case, name, f"the image takes {os.stat(case.file).st_blocks * 512} bytes")
        if digest(case.file)[0] != original[0]:
            self.contents(case, name, effect, p)

    def contents(self, case, name, effect, p):
        """It was written to: what it shows is what it showed."""
        self.run(case, name + ", check", ["check", "-f", "qcow2", case.file])
        # A cluster whose count is too low may be given away while somebody uses it: only check
        # sees that.
        if case.name in ("Q15-count-0-of-data", "Q14-two-users-counted-once") and \
                effect != "repaired":
            return
        if case.flat is None or effect == "other" or case.kind not in ("ok", "eio") or \
                not case.convert:
            return
        got = self.read(case, name)
        if got is None:
            self.complain(case, name, f"cannot be read afterwards; it said {p.stderr[:200]!r}")
            return
        size = sum(len(piece) for piece in got[0].values())
        wanted = {"shrunk": min(128 << 10, len(case.flat)) if p.returncode == 0 else size}
        if effect == "shrunk" and len(case.flat) < 128 << 10:
            effect = "grown"
        if effect != "grown" and size not in (wanted.get(effect, len(case.flat)),
                                              -(-len(case.flat) // 512) * 512):
            self.complain(case, name, f"{size} bytes afterwards")
        for at, piece in got[0].items():
            if at // hostile.C in case.bad:
                continue
            want = bytes(case.flat[at:at + len(piece)]).ljust(len(piece), b"\0")
            if piece != want:
                self.complain(case, name, f"status {p.returncode}, but other content at {at}: "
                              f"{p.stderr[:200]!r}")
                return


def plain_images():
    hostile.make(hostile.Case("plain", "ok", hostile.Plain(), file="plain.qcow2"), ".")
    hostile.write(".", "source.raw", bytes(range(256)) * (hostile.SIZE // 256))


def chosen(number, case, every):
    """Some commands for each image, all of them over the images; header bytes last."""
    if every:
        return COMMANDS
    if case.name.startswith(("G1-byte", "G1-cut")):
        return COMMANDS[number % len(COMMANDS)::len(COMMANDS)] if number % 7 == 0 else ()
    return [COMMANDS[(number * 5 + i * 7) % len(COMMANDS)] for i in range(2)]


def main():
    words = [w for w in sys.argv[1:] if not w.startswith("-")]
    judge = Judge(os.path.abspath(words[0]), "-l" in sys.argv, "-u" in sys.argv, "-v" in sys.argv)
    pattern = words[1] if len(words) > 1 else ""
    for number, case in enumerate(hostile.cases()):
        if pattern not in case.name or case.image is None or case.format == "raw":
            continue
        for name, command, effect in chosen(number, case, judge.every):
            shutil.rmtree("run", ignore_errors=True)
            os.mkdir("run")
            os.chdir("run")
            plain_images()
            before = judge.wrong
            judge.judge(case, name, command, effect)
            if judge.verbose:
                print("ok" if judge.wrong == before else "wrong", case.name, name, flush=True)
            os.chdir("..")
    print(f"{judge.done} commands, {judge.succeeded} succeeded, {judge.wrong} wrong, slowest "
          f"{judge.slowest[0]:.2f} s ({judge.slowest[1]})")
    return 1 if judge.wrong or not judge.succeeded else 0


if __name__ == "__main__":
    sys.exit(main())
