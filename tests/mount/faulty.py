# SPDX-License-Identifier: LGPL-2.1-or-later
"""Mounts by imgfs-faulty (tests/crash/faulty.c), whose plan of faults is looked at and changed while
it runs."""
import mmap
import os
import struct
import subprocess
import time

READ, WRITE, FLUSH, TRUNCATE, CHANGE = (1 << bit for bit in range(5))


class Wrong(Exception):
    pass


def run(*argv, ok=(0,)):
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode not in ok:
        raise Wrong(f"{' '.join(argv)}: status {done.returncode}\n{done.stdout.decode()[-3000:]}")
    return done


class Plan:
    """struct fault_plan of io/file-fault.h, in memory that the mount shares."""

    LAYOUT = struct.Struct("<IxxxxQi?xxxQQIxxxx")

    def __init__(self, path):
        self.path = path
        with open(path, "wb") as f:
            f.truncate(self.LAYOUT.size)
        with open(path, "r+b") as f:
            self.memory = mmap.mmap(f.fileno(), self.LAYOUT.size)

    def fields(self):
        return self.LAYOUT.unpack(self.memory)

    def arm(self, kinds, nth, error=0, forever=False):
        """nth 0: they are only counted."""
        unsynced = self.fields()[6]
        self.memory[:] = self.LAYOUT.pack(kinds, nth, error, forever, 0, 0, unsynced)

    def disarm(self):
        count, failed = self.fields()[4:6]
        self.arm(0, 0)
        return count, failed

    count = property(lambda self: self.fields()[4])
    failed = property(lambda self: self.fields()[5])
    unsynced = property(lambda self: self.fields()[6])


class Mount:
    def __init__(self, program, words, image, at="m"):
        self.at, self.plan = at, Plan("plan")
        os.makedirs(at, exist_ok=True)
        self.log = open("imgfs.log", "w+", encoding="utf-8")
        self.daemon = subprocess.Popen([program, "-f", "-o", words, image, at], stdin=subprocess.DEVNULL,
                                       stderr=self.log, env={**os.environ, "IMGFS_FAULT_PLAN": self.plan.path})
        end = time.monotonic() + 30
        while not os.path.exists(at + "/disk.raw"):
            if self.daemon.poll() is not None or time.monotonic() > end:
                raise Wrong(f"imgfs: status {self.daemon.poll()}: {self.words()}")
            time.sleep(0.005)

    def words(self):
        self.log.seek(0)
        return self.log.read()

    def path(self, name):
        return f"{self.at}/{name}"

    def command(self, name, line):
        fd = os.open(self.path("control/" + name), os.O_WRONLY)
        try:
            os.write(fd, line.encode() + b"\n")
        finally:
            os.close(fd)

    def read(self, name):
        with open(self.path(name), encoding="utf-8") as f:
            return f.read()

    def unmount(self):
        """The exit status."""
        run("fusermount3", "-u", self.at)
        return self.daemon.wait(60)
