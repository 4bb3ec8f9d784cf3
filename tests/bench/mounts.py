# SPDX-License-Identifier: LGPL-2.1-or-later
"""A mount by imgfs and a FUSE export by qemu-storage-daemon, used alike:

    with Ours(image, scratch) as mount:
        ... read mount.disk ...
    mount.rss      peak memory of the daemon in KiB

Leaving the block always unmounts and ends the daemon.
"""
import os
import shutil
import subprocess
import tempfile
import time


def peak_memory(pid):
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return 0


def wait_for(condition, what, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"{what}: nothing after {seconds} s")
        time.sleep(0.005)


def is_mounted(path):
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as table:
        return any(line.split()[4] == path for line in table)


def unmount(path):
    for command in (["umount", path], ["fusermount3", "-u", path], ["umount", "-l", path]):
        if not is_mounted(path):
            return
        subprocess.run(command, stderr=subprocess.DEVNULL, check=False)


class Mount:
    """What both have: a folder of their own, a daemon, and an end."""

    def __init__(self, scratch):
        self.folder = tempfile.mkdtemp(prefix="mount.", dir=scratch)
        self.process = None
        self.rss = 0

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc):
        self.stop()

    def stop(self):
        try:
            if self.process and self.process.poll() is None:
                self.rss = peak_memory(self.process.pid)
            unmount(self.where)
            if self.process:
                self.end_daemon()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def end_daemon(self):
        """It may have to write what it holds: killed only when it hangs."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def start_daemon(self, argv):
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

        def ready():
            if self.process.poll() is not None:
                raise RuntimeError(f"{argv[0]} ended with {self.process.returncode}")
            return is_mounted(self.where) and os.path.exists(self.disk)
        wait_for(ready, " ".join(argv))


class Ours(Mount):
    def __init__(self, image, scratch, writable=False):
        super().__init__(scratch)
        self.image, self.writable = image, writable
        self.where = os.path.join(self.folder, "mnt")
        self.disk = os.path.join(self.where, "disk.raw")
        os.mkdir(self.where)

    def command(self, *options):
        """The command line a user would type."""
        return ["imgfs", *options, *(["-o", "rw"] if self.writable else []), self.image, self.where]

    def start(self):
        self.start_daemon(self.command("-f"))


class Peer(Mount):
    """cache, an addition to the block device's options, is for making images, never for figures."""

    def __init__(self, image, scratch, writable=False, cache=None):
        super().__init__(scratch)
        self.image, self.writable, self.cache = image, writable, cache
        self.where = self.disk = os.path.join(self.folder, "disk.raw")
        self.pidfile = os.path.join(self.folder, "pid")
        with open(self.where, "wb"):
            pass

    def command(self, *options):
        block = f"driver=qcow2,node-name=disk,file.driver=file,file.filename={self.image}"
        if not self.writable:
            block += ",read-only=on"
        if self.cache:
            block += "," + self.cache
        on = "on" if self.writable else "off"
        return ["qemu-storage-daemon", *options, "--blockdev", block, "--export",
                f"fuse,id=export,node-name=disk,mountpoint={self.where},writable={on}"]

    def start(self):
        self.start_daemon(self.command())
