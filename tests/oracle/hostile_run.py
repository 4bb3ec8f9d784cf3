# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs imgtool and imgfs on each hostile image and judges what they do.

usage: hostile_run [-m] [-u] [-v] [PATTERN]
  -m  mount too      -u  no limit of the address space (sanitizers)      -v  say each case

A failing command says one sentence that begins with the program's name and has
the file in it, with the right exit status; none is ended by a signal, takes 10
seconds, or more memory than the budget of the project.
"""
import json
import os
import resource
import subprocess
import sys
import time

import hostile

GIB = 1 << 30
SECONDS = 10
KIB_OF = {"info": 64 << 10, "check": 96 << 10, "map": 256 << 10, "convert": 256 << 10}
OUTPUT_MOST = 1 << 20


class Judge:
    def __init__(self, mount, unlimited, verbose):
        self.mount, self.unlimited, self.verbose = mount, unlimited, verbose
        self.wrong, self.done, self.slowest = 0, 0, (0, "")

    def complain(self, case, what):
        self.wrong += 1
        print(f"{case.name} ({case.kind}): {what}")

    def limits(self):
        if not self.unlimited:
            resource.setrlimit(resource.RLIMIT_AS, (GIB, GIB))
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 * GIB, 4 * GIB))

    def run(self, case, *command):
        """(status, out, err); complains of signals, time and memory by itself."""
        label = " ".join(command[:2])
        with open("run.out", "w+b") as out, open("run.err", "w+b") as err:
            begin = time.monotonic()
            p = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                                 preexec_fn=self.limits)
            status, usage = self.wait(p)
            took = time.monotonic() - begin
            out.seek(0)
            err.seek(0)
            output, errors = out.read(), err.read()
        self.done += 1
        self.slowest = max(self.slowest, (took, f"{label} {case.name}"))
        if status is None:
            self.complain(case, f"{label}: took more than {SECONDS} s")
        elif status < 0 or status >= 124 or b"Sanitizer" in errors or b"runtime error" in errors:
            self.complain(case, f"{label}: status {status}: {errors[:2000]!r}")
        most = KIB_OF.get(command[1])
        if most and not self.unlimited and usage and usage.ru_maxrss > most:
            self.complain(case, f"{label}: {usage.ru_maxrss} KiB of memory, budget {most}")
        # A map of many extents is long by right; everything else is bounded.
        rows = command[1] == "map"
        if (len(output) > OUTPUT_MOST and not rows) or len(errors) > OUTPUT_MOST:
            self.complain(case, f"{label}: {len(output)} + {len(errors)} bytes of output")
        return status, output, errors

    def wait(self, p):
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            pid, code, usage = os.wait4(p.pid, os.WNOHANG)
            if pid:
                p.returncode = os.waitstatus_to_exitcode(code)
                return p.returncode, usage
            time.sleep(0.002)
        p.kill()
        p.wait()
        return None, None

    def sentence(self, case, label, program, errors):
        lines = errors.split(b"\n")
        if len(lines) != 2 or lines[1] or not lines[0].startswith(program.encode() + b": ") or \
                case.word.encode() not in lines[0]:
            self.complain(case, f"{label}: expected one sentence that names {case.word}: "
                          f"{errors[:600]!r}")
        elif any(c < 32 or c == 127 for c in lines[0]):
            self.complain(case, f"{label}: control bytes in {lines[0]!r}")

    def expect(self, case, statuses, program, *command):
        status, output, errors = self.run(case, program, *command)
        label = f"{program} {command[0]}"
        if status is not None and status >= 0 and status not in statuses:
            self.complain(case, f"{label}: status {status}, expected {sorted(statuses)}: "
                          f"{errors[:300]!r}")
        elif status in (1, 32) and command[0] != "check":
            self.sentence(case, label, program, errors)
        return status, output

    def json(self, case, label, output):
        try:
            return json.loads(output.decode("utf-8"))
        except ValueError as e:
            self.complain(case, f"{label}: not JSON: {e}: {output[:200]!r}")

    def tool(self, case):
        form = ["-f", case.format] if case.format else []
        plain = {"refuse": {1}, "chain": {1}, "any": {0, 1}}.get(case.kind, {0})
        info = {0, 1} if case.kind == "chain" else plain
        status, output = self.expect(case, info, "imgtool", "info", "--output=json", *form, case.file)
        if status == 0:
            self.json(case, "info", output)
        self.expect(case, info, "imgtool", "info", *form, case.file)
        if case.name.startswith("G1-byte"):
            self.expect(case, {0, 1}, "imgtool", "map", "--output=json", *form, case.file)
            return
        check = {1, 2, 63} if case.kind == "refuse" else case.check
        self.expect(case, check, "imgtool", "check", *form, case.file)
        damaged = {"eio": {0, 1}, "suspect": {0, 1}}.get(case.kind, plain)
        status, output = self.expect(case, damaged, "imgtool", "map", "--output=json", *form, case.file)
        if status == 0:
            self.json(case, "map", output)
        if not case.convert:
            return
        damaged = {"eio": {1}, "suspect": {0, 1}}.get(case.kind, plain)
        status, _ = self.expect(case, damaged, "imgtool", "convert", "-O", "raw", *form, case.file,
                                "out.raw")
        if status == 0 and case.flat is not None:
            with open("out.raw", "rb") as f:
                self.compare(case, "convert", lambda at, n: os.pread(f.fileno(), n, at),
                             os.fstat(f.fileno()).st_size)
        if case.snapshot:
            self.expect(case, {1}, "imgtool", "convert", "-O", "raw", "-l", case.snapshot, case.file,
                        "out.raw")

    def compare(self, case, label, read, size):
        """The content is what it must be, and errors are only where damage is."""
        if size != len(case.flat):
            self.complain(case, f"{label}: {size} bytes, expected {len(case.flat)}")
            return
        for at in range(0, size, hostile.C):
            damaged = at // hostile.C in case.bad
            want = bytes(case.flat[at:at + hostile.C])
            try:
                got = read(at, len(want))
            except OSError as e:
                if not damaged:
                    self.complain(case, f"{label}: {e.strerror} at {at}, which is sound")
                    return
                continue
            if damaged and case.kind == "eio":
                self.complain(case, f"{label}: no error at {at}, which is damaged")
                return
            elif not damaged and got != want:
                self.complain(case, f"{label}: other content at {at}")
                return

    def through_mount(self, case):
        form = ["-o", f"format={case.format}"] if case.format else []
        statuses = {"refuse": {32}, "chain": {32}, "any": {0, 32}}.get(case.kind, {0})
        status, _ = self.expect(case, statuses, "imgfs", *form, case.file, "mnt")
        if status != 0:
            return
        try:
            fd = os.open("mnt/disk.raw", os.O_RDONLY)
            try:
                size = os.fstat(fd).st_size
                if case.flat is not None:
                    self.compare(case, "mount", lambda at, n: os.pread(fd, n, at), size)
                else:
                    for at in (0, size // 2, max(0, size - 512)):
                        self.attempt(lambda at=at: os.pread(fd, 512, at))
            finally:
                os.close(fd)
            self.walk(case)
        finally:
            subprocess.run(["fusermount3", "-u", "mnt"], check=True)

    def attempt(self, what):
        try:
            what()
        except OSError:
            pass

    def walk(self, case):
        """Every name in the tree is a name; small JSON files are JSON."""
        names = []
        for folder, folders, files in os.walk("mnt"):
            names += folders + files
            if len(names) > 4000:
                break
        if any("\n" in n or n in (".", "..") for n in names):
            self.complain(case, "mount: a name with a newline")
        try:
            with open("mnt/info.json", "rb") as f:
                self.json(case, "mnt/info.json", f.read())
        except OSError as e:
            self.complain(case, f"mnt/info.json: {e.strerror}")

    def judge(self, case):
        hostile.make(case, ".")
        before = self.wrong
        self.tool(case)
        if self.mount and case.convert and not case.name.startswith("G1-byte"):
            self.through_mount(case)
        if self.verbose:
            print("ok" if self.wrong == before else "wrong", case.name, flush=True)
        if os.path.isfile(case.file) and not case.file.startswith("deep"):
            os.unlink(case.file)


def main():
    words = sys.argv[1:]
    options = {w for w in words if w.startswith("-")}
    pattern = "".join(w for w in words if not w.startswith("-"))
    judge = Judge("-m" in options, "-u" in options, "-v" in options)
    os.makedirs("mnt", exist_ok=True)
    count = 0
    for case in hostile.cases():
        if pattern in case.name:
            judge.judge(case)
            count += 1
    print(f"{count} images, {judge.done} commands, {judge.wrong} wrong, "
          f"slowest {judge.slowest[0]:.2f} s ({judge.slowest[1]})")
    return 1 if judge.wrong or not count else 0


if __name__ == "__main__":
    sys.exit(main())
