# SPDX-License-Identifier: LGPL-2.1-or-later
"""Is what must be durable synced before it is answered?

usage: durable.py IMGFS-FAULTY

After each way in which a program asks for that, no file of the image has a change that was not synced
since; and there was a change. A write without such a wish does leave one, so the question means
something.
"""
import mmap
import os
import shutil
import subprocess
import sys

from faulty import CHANGE, FLUSH, TRUNCATE, WRITE, Mount, Wrong, run

MIB = 1 << 20
BLOCK = 4096
KINDS = {
    "raw": ("raw", (), "rw"),
    "qcow2": ("qcow2", ("-o", "cluster_size=4k"), "rw"),
    "data-file": ("qcow2", ("-o", "data_file=data.raw,cluster_size=4k"), "rw"),
    "overlay": ("raw", (), "overlay=over.qcow2"),
}
FLAGS = {"O_SYNC": os.O_SYNC, "O_DSYNC": os.O_DSYNC, "O_DIRECT|O_SYNC": os.O_DIRECT | os.O_SYNC,
         "O_DIRECT|O_DSYNC": os.O_DIRECT | os.O_DSYNC}


class Trial:
    def __init__(self, program, kind):
        self.program, self.kind = program, kind
        self.format, options, self.mode = KINDS[kind]
        self.image, self.at = "disk." + self.format, 2 * MIB
        run("qemu-img", "create", "-q", "-f", self.format, *options, self.image, "16M")
        buffer = mmap.mmap(-1, BLOCK)
        buffer[:] = b"d" * BLOCK
        self.buffer = buffer

    def mount(self, more=""):
        self.m = Mount(self.program, f"{self.mode},format={self.format}{more}", self.image)
        self.m.plan.arm(WRITE | TRUNCATE | CHANGE, 0)

    def unmount(self):
        if self.m.unmount():
            raise Wrong(f"{self.kind}: imgfs: status {self.m.daemon.returncode}: {self.m.words()}")

    def changed(self, what):
        """Since the last question there was a change, and it is durable."""
        plan = self.m.plan
        if not plan.count:
            raise Wrong(f"{self.kind}: {what} changes nothing")
        if plan.unsynced:
            raise Wrong(f"{self.kind}: {what} returned, and what it changed is not synced")
        plan.arm(WRITE | TRUNCATE | CHANGE, 0)

    def write(self, disk):
        """Where nothing was yet, so that qcow2 has tables to change."""
        self.at += 64 << 10
        os.pwritev(disk, [self.buffer], self.at)

    def try_flags(self, path, what):
        for name, flags in FLAGS.items():
            disk = os.open(path, os.O_RDWR | flags)
            self.write(disk)
            self.changed(f"{what}: a write with {name}")
            os.close(disk)

    def try_calls(self, path, what):
        disk = os.open(path, os.O_RDWR)
        for call in (os.fsync, os.fdatasync):
            self.write(disk)
            call(disk)
            self.changed(f"{what}: {call.__name__}")
        os.close(disk)
        # The question's own proof.
        disk = os.open(path, os.O_RDWR | os.O_DIRECT)
        self.write(disk)
        if not self.m.plan.unsynced:
            raise Wrong(f"{self.kind}: {what}: a direct write is synced although nobody asked for it")
        os.fsync(disk)
        self.changed(f"{what}: fsync after a direct write")
        os.close(disk)

    def try_mapping(self, path):
        disk = os.open(path, os.O_RDWR)
        memory = mmap.mmap(disk, 4 * MIB)
        memory[MIB : MIB + BLOCK] = self.buffer[:]
        memory.flush()
        self.changed("msync")
        memory.close()
        os.close(disk)

    def try_disks(self):
        self.mount()
        disk, part = self.m.path("disk.raw"), self.m.path("partitions/1.raw")
        with open(disk, "r+b", buffering=0) as f:
            f.write(bytes(446) + b"\0\0\0\0\x83\0\0\0" + (2048).to_bytes(4, "little")
                    + (20000).to_bytes(4, "little") + bytes(48) + b"\x55\xaa")
            os.fsync(f.fileno())
        self.changed("fsync of a partition table")
        self.try_flags(disk, "disk.raw")
        self.try_calls(disk, "disk.raw")
        self.try_mapping(disk)
        self.at = 2 * MIB + BLOCK
        self.try_flags(part, "a partition")
        self.try_calls(part, "a partition")
        # Beside a file that the kernel caches, one that it does not.
        self.at = 2 * MIB + 2 * BLOCK
        for first, second in ((disk, part), (part, disk)):
            other = os.open(first, os.O_RDWR)
            self.try_flags(second, f"{second} beside {first}")
            self.try_calls(second, f"{second} beside {first}")
            os.close(other)
        with open(disk, "r+b", buffering=0) as f:
            f.seek(8 * MIB)
            f.write(b"e" * MIB)
        self.unmount()
        self.changed("unmounting")

    def try_commands(self):
        self.mount()
        disk = os.open(self.m.path("disk.raw"), os.O_RDWR)
        self.write(disk)
        self.m.command("resize", "20M")
        os.fsync(disk)
        self.changed("control/resize")
        os.close(disk)
        self.unmount()

    def try_snapshot(self):
        """Each of mkdir's syncs counts: where one fails, mkdir does. What it frees afterwards leaks if it
        is lost, so that the last write need not be synced."""
        self.mount()
        with open(self.m.path("disk.raw"), "r+b", buffering=0) as disk:
            self.write(disk.fileno())
            os.fsync(disk.fileno())
        self.m.plan.arm(FLUSH, 0)
        os.mkdir(self.m.path("snapshots/one"))
        syncs = self.m.plan.count
        if syncs < 2:
            raise Wrong(f"{self.kind}: mkdir of a snapshot syncs {syncs} times")
        self.unmount()
        top = "over.qcow2" if self.kind == "overlay" else self.image
        for n in range(1, syncs + 1):
            shutil.copyfile(top, "saved")
            self.mount()
            self.m.plan.arm(FLUSH, n, 5)
            try:
                os.mkdir(self.m.path("snapshots/two"))
            except OSError as e:
                if e.errno != 5:
                    raise
            else:
                raise Wrong(f"{self.kind}: sync {n} of {syncs} fails, and mkdir of a snapshot does not")
            self.m.unmount()
            os.replace("saved", top)

    def try_sync(self, words):
        self.mount("," + words)
        disk = os.open(self.m.path("disk.raw"), os.O_RDWR)
        part = os.open(self.m.path("partitions/1.raw"), os.O_RDWR)
        for fd, name in ((disk, "disk.raw"), (part, "a partition beside it")):
            self.write(fd)
            self.changed(f"-o {words}: a write of {name}")
        os.close(disk)
        os.close(part)
        self.unmount()

    def flushes(self):
        """A sync that fails is told."""
        self.mount()
        disk = os.open(self.m.path("disk.raw"), os.O_RDWR)
        self.write(disk)
        self.m.plan.arm(FLUSH, 1, 5)
        try:
            os.fsync(disk)
        except OSError as e:
            if e.errno != 5:
                raise
        else:
            raise Wrong(f"{self.kind}: fsync returns although the sync failed")
        os.close(disk)
        self.m.unmount()


def directory_synced(program):
    """A new overlay is not lost with its name."""
    if not shutil.which("strace"):
        return
    run("qemu-img", "create", "-q", "-f", "raw", "disk.raw", "16M")
    os.mkdir("m")
    with subprocess.Popen(["strace", "-f", "-y", "-o", "calls", "-e", "trace=fsync,linkat,mount", program, "-f",
                           "-o", "overlay=new.qcow2,format=raw", "disk.raw", "m"], stderr=subprocess.DEVNULL) as daemon:
        while not os.path.exists("m/disk.raw"):
            if daemon.poll() is not None:
                return # a system where nobody may trace
        run("fusermount3", "-u", "m")
        daemon.wait(60)
    with open("calls", encoding="utf-8") as f:
        calls = f.read()
    linked = calls.find("new.qcow2")
    if linked < 0 or f"<{os.getcwd()}>" not in calls[linked:].split("mount(")[0]:
        raise Wrong(f"the folder of a new overlay is not synced:\n{calls}")


def in_folder(name, function, *args):
    os.mkdir(name)
    os.chdir(name)
    function(*args)
    os.chdir("..")


def try_kind(program, kind):
    trial = Trial(program, kind)
    trial.try_disks()
    trial.try_commands()
    if kind in ("qcow2", "overlay"):
        trial.try_snapshot()
    for words in ("sync", "cache=writethrough", "cache=directsync"):
        trial.try_sync(words)
    trial.flushes()


def main():
    try:
        for kind in KINDS:
            in_folder(kind, try_kind, sys.argv[1], kind)
        in_folder("directory", directory_synced, sys.argv[1])
    except Wrong as e:
        sys.exit(str(e))


if __name__ == "__main__":
    main()
