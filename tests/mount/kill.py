# SPDX-License-Identifier: LGPL-2.1-or-later
"""SIGKILL of imgfs at random moments, under a load that asks for durability in every way.

usage: kill.py [-n KILLS] [-s SEED] [-v] [KIND...]

One writer a way (WAYS), each with blocks of its own, and one that makes and deletes snapshots,
resizes, and commits. Each notes in a file what it is about to do, when that has returned, and when
something has told it that all of that is durable. After the kill
- check finds leaks at most, qemu-img's and imgtool's, of every file that is written,
- each block holds what was durable or something written to it since, in whole sectors,
- so does each new snapshot, counted from what had been written when it was asked for; and an old
  one is what it was, and stays so when qemu writes to the image as it was left,
- and the size is one that was asked for.
Then the image is mounted again as it is. At the end of each image a last commit is finished.
"""
import argparse
import ctypes
import hashlib
import mmap
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time

BLOCK, BLOCKS, MIB = 4096, 2048, 1 << 20
START = BLOCK * BLOCKS + MIB
WAYS = ("fsync", "fdatasync", "o_sync", "direct", "mapped", "discard")
ROUNDS = 10  # kills of one image
libc = ctypes.CDLL(None, use_errno=True)

# create options of the written image; words of -o; what else is done to it
KINDS = {
    "raw": (None, "rw", "resize"),
    "512": ("cluster_size=512", "rw", "snapshots resize"),
    "4k": ("cluster_size=4k", "rw", "snapshots resize"),
    "64k": ("cluster_size=64k", "rw", "snapshots resize"),
    "2M": ("cluster_size=2M", "rw", "snapshots resize"),
    "v2": ("compat=0.10,cluster_size=4k", "rw", "snapshots"),
    "narrow": ("refcount_bits=4,cluster_size=4k", "rw", "snapshots resize"),
    "extended": ("extended_l2=on,cluster_size=32k", "rw", "snapshots resize"),
    "lazy": ("lazy_refcounts=on,cluster_size=4k", "rw", "snapshots resize"),
    "data-file": ("data_file=data.raw,cluster_size=4k", "rw", "resize"),
    "plain": ("cluster_size=4k", "rw", "resize"),
    "direct": ("cluster_size=16k", "rw,cache=none", "snapshots"),
    "sync": ("cluster_size=16k", "rw,sync", "snapshots"),
    "overlay": (None, "overlay=over.qcow2", "snapshots"),
    "commit": ("cluster_size=4k", "rw", "commit"),
    "overlay-commit": (None, "overlay=over.qcow2", "commit"),
}


class Wrong(Exception):
    pass


def run(*argv, ok=(0,)):
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode not in ok:
        raise Wrong(f"{' '.join(argv)}: status {done.returncode}\n{done.stdout.decode()[-3000:]}")
    return done


def pattern(block, number):
    """What a block holds; 0: zeroes."""
    return struct.pack("<QQ", block, number) * (BLOCK // 16) if number else bytes(BLOCK)


# ---- the load: each in a process of its own, which may die of SIGBUS


class Log:
    """What a process says of itself, told even when it is killed: an event is one write."""

    EVENT = struct.Struct("<cIQ")

    def __init__(self, path):
        self.fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC)

    def say(self, what, block=0, number=0):
        os.write(self.fd, self.EVENT.pack(what, block, number))

    @classmethod
    def read(cls, path, end=None):
        with open(path, "rb") as log:
            data = log.read() if end is None else log.read(end)
        return cls.EVENT.iter_unpack(data[: len(data) - len(data) % cls.EVENT.size])


def punch(disk, block):
    # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
    if libc.fallocate(disk, 3, ctypes.c_long(block * BLOCK), ctypes.c_long(BLOCK)):
        raise OSError(ctypes.get_errno(), "fallocate")


def write_blocks(way, log, number, rng):
    flags = {"o_sync": os.O_SYNC, "direct": os.O_DIRECT}.get(way, 0)
    disk = os.open("m/disk.raw", os.O_RDWR | flags)
    mine = range(WAYS.index(way), BLOCKS, len(WAYS))
    buffer = mmap.mmap(-1, BLOCK)  # aligned as O_DIRECT wants it
    memory = mmap.mmap(disk, BLOCK * BLOCKS) if way == "mapped" else None
    while True:
        for block in rng.sample(mine, rng.randrange(1, 20)):
            number += 1
            erase = way == "discard" and rng.randrange(2)
            log.say(b"w", block, 0 if erase else number)
            data = pattern(block, number)
            if erase:
                punch(disk, block)
            elif memory:
                memory[block * BLOCK : (block + 1) * BLOCK] = data
            elif way == "direct":
                buffer[:] = data
                os.pwritev(disk, [buffer], block * BLOCK)
            else:
                os.pwrite(disk, data, block * BLOCK)
            log.say(b"d", block)
            if way == "o_sync":
                log.say(b"s")
        if memory:
            memory.flush()
        elif way == "fdatasync":
            os.fdatasync(disk)
        elif way != "o_sync":
            os.fsync(disk)
        log.say(b"s")


def command(name, line):
    fd = os.open("m/control/" + name, os.O_WRONLY)
    try:
        os.write(fd, line.encode() + b"\n")
    finally:
        os.close(fd)


def tell(log, *words):
    """A line of the other log, with how far each writer had come."""
    at = " ".join(str(os.path.getsize("log-" + way)) for way in WAYS)
    os.write(log, (" ".join(words) + " : " + at + "\n").encode())


def change_snapshots(log, rng, kept):
    name = f"s{rng.randrange(10**9)}"
    tell(log, "create", name)
    if rng.randrange(2):
        os.mkdir("m/snapshots/" + name)
    else:
        command("snapshot", "create " + name)
    tell(log, "created", name)
    kept.append(name)
    # The oldest may be from before the last kill.
    while len(kept) > 3 or (kept and rng.randrange(4) == 0):
        name = kept.pop(rng.randrange(len(kept)))
        tell(log, "delete", name)
        os.rmdir("m/snapshots/" + name)
        tell(log, "deleted", name)


def change_others(log, rng, what, kept):
    while True:
        time.sleep(rng.random() * 0.05)
        todo = rng.choice(what)
        if todo == "snapshots":
            change_snapshots(log, rng, kept)
        elif todo == "resize":
            size = os.stat("m/disk.raw").st_size + rng.choice((1, 3, 40)) * MIB
            size = size if size < 200 * MIB else START
            # A disk that is open for writing, as it is here, never becomes smaller.
            if size > START:
                tell(log, "resize", str(size))
                command("resize", str(size))
                tell(log, "resized", str(size))
        elif todo == "commit":
            tell(log, "commit")
            try:
                command("commit", "")
            except OSError as e:
                if e.errno != 16:  # one is running
                    raise


def start(way, function, *args):
    pid = os.fork()
    if pid:
        return pid
    try:
        function(*args)
    except OSError:
        pass
    except BaseException as e:  # must not go on as the parent
        print(f"{way}: {e!r}", flush=True)
        os._exit(3)
    os._exit(0)


# ---- one image


class Image:
    def __init__(self, kind, rng, verbose):
        options, self.words, todo = KINDS[kind]
        self.kind, self.rng, self.verbose = kind, rng, verbose
        self.todo = todo.split()
        self.commits = "commit" in self.todo
        self.number, self.sizes, self.size = 0, {START}, START
        self.now = [pattern(b, 0) for b in range(BLOCKS)]
        self.history, self.durable = {}, {}
        self.snapshots, self.uncertain = {}, {}
        self.syncs = self.leaking = self.done = 0
        self.format = "raw" if options is None else "qcow2"
        self.base = None
        self.create(options)

    def create(self, options):
        self.image = "disk." + self.format
        if self.commits and self.format == "qcow2":
            self.base = "base.qcow2"
            run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=64k", self.base, str(START))
        words = ["-o", options] if options else []
        words += ["-b", self.base, "-F", "qcow2"] if self.base else []
        run("qemu-img", "create", "-q", "-f", self.format, *words, self.image, str(START))
        self.top = self.image
        if self.words.startswith("overlay"):
            self.base, self.top = self.image, "over.qcow2"

    def mount(self):
        with open("imgfs.log", "w", encoding="utf-8") as log:
            daemon = subprocess.Popen(["imgfs", "-f", "-o", f"{self.words},format={self.format}", self.image, "m"],
                                      stdin=subprocess.DEVNULL, stderr=log)
        end = time.monotonic() + 30
        while not os.path.exists("m/disk.raw"):
            if daemon.poll() is not None or time.monotonic() > end:
                with open("imgfs.log", encoding="utf-8") as log:
                    raise Wrong(f"imgfs: status {daemon.poll()}: {log.read()}")
            time.sleep(0.005)
        return daemon

    def load(self):
        """Until the kill. The writers' numbers never meet: each has its own billions."""
        children = {}
        for i, way in enumerate(WAYS):
            rng = random.Random(self.rng.random())
            log = Log("log-" + way)
            children[start(way, write_blocks, way, log, self.number + (i << 40), rng)] = way
            os.close(log.fd)
        self.number += 1 << 20
        other = os.open("log-other", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC)
        rng = random.Random(self.rng.random())
        children[start("other", change_others, other, rng, self.todo, list(self.snapshots))] = "other"
        os.close(other)
        return children

    def kill(self):
        for way in WAYS:
            open("log-" + way, "wb").close()
        daemon = self.mount()
        children = self.load()
        time.sleep(self.rng.random() * self.rng.choice((0.05, 0.3, 0.8)))
        if daemon.poll() is not None:
            raise Wrong(f"imgfs ended by itself: {daemon.returncode}")
        daemon.kill()
        try:
            daemon.wait(20)
        except subprocess.TimeoutExpired:
            subprocess.run(["umount", "-f", "m"], stderr=subprocess.DEVNULL, check=False)
            raise Wrong("imgfs lives 20 s after SIGKILL")
        subprocess.run(["umount", "-l", "m"], stderr=subprocess.DEVNULL, check=False)
        end = time.monotonic() + 60
        while children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid:
                way = children.pop(pid, None)
                bus = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGBUS
                if status and not (bus and way == "mapped"):
                    raise Wrong(f"writer {way}: status {status}")
            elif time.monotonic() > end:
                raise Wrong(f"writers hang: {children}")
            else:
                time.sleep(0.005)
        self.done += 1

    def wait_for_locks(self):
        """The kernel closes a killed program's files in its own time where I/O is under way."""
        files = (self.image, self.top, self.base)
        inodes = [f":{os.stat(f).st_ino} " for f in files if f and os.path.exists(f)]
        for _ in range(1000):
            with open("/proc/locks", encoding="ascii") as locks:
                text = locks.read()
            if not any(inode in text for inode in inodes):
                return
            time.sleep(0.01)
        raise Wrong("the image is locked 10 s after the kill")

    # ---- judging

    def take_logs(self):
        """history: block -> what it held, in order; durable, returned: the last so told of."""
        self.history = {b: [self.now[b]] for b in range(BLOCKS)}
        self.durable = dict.fromkeys(range(BLOCKS), 0)
        for way in WAYS:
            returned = {}
            for what, block, number in Log.read("log-" + way):
                if what == b"w":
                    self.history[block].append(pattern(block, number))
                elif what == b"d":
                    returned[block] = len(self.history[block]) - 1
                else:
                    self.durable.update(returned)
                    self.syncs += 1

    def returned_at(self, ends, before):
        """For each block the index in its history of what had returned (before) or been begun."""
        index = dict.fromkeys(range(BLOCKS), 0)
        for way, end in zip(WAYS, ends):
            begun = {}
            for what, block, _ in Log.read("log-" + way, end):
                if what == b"w":
                    begun[block] = begun.get(block, 0) + 1
                if what == (b"d" if before else b"w"):
                    index[block] = begun[block]
        return index

    def judge_disk(self, path, first, last, what):
        """Every sector is of one of history[first .. last] of its block. What it is, by block."""
        held = []
        with open(path, "rb") as disk:
            for block in range(BLOCKS):
                data, history = disk.read(BLOCK), self.history[block]
                allowed = history[first[block] : last[block] + 1]
                held.append(data)
                if data in allowed:
                    continue
                # A mapping is written to while it is sent; else sectors are whole.
                step = 16 if WAYS[block % len(WAYS)] == "mapped" else 512
                for at in range(0, BLOCK, step):
                    if not any(data[at : at + step] == h[at : at + step] for h in allowed):
                        self.lost(what, block, data[at : at + step], first[block], last[block])
        return held

    def lost(self, what, block, data, first, last):
        numbers = [struct.unpack_from("<QQ", h) for h in self.history[block]]
        raise Wrong(f"{what}: block {block} ({WAYS[block % len(WAYS)]}) holds {struct.unpack_from('<QQ', data)}, "
                 f"allowed is {first} to {last} of {numbers}")

    def check(self, path):
        """Clean or leaking, whoever looks."""
        run("imgtool", "check", "-q", "-f", "qcow2", path, ok=(0, 3))
        self.leaking += run("qemu-img", "check", path, ok=(0, 3)).returncode == 3

    def read_log(self):
        """Snapshots made and deleted, and sizes."""
        created, begun, gone = {}, {}, set()
        with open("log-other", encoding="ascii") as log:
            lines = [line.partition(" : ") for line in log if line.endswith("\n")]
        for words, _, ends in lines:
            what, *name = words.split()
            ends = [int(end) for end in ends.split()]
            if what == "create":
                begun[name[0]] = ends
            elif what == "created":
                created[name[0]] = ends
            elif what in ("delete", "deleted"):
                gone.add((what, name[0]))
            elif what == "resize":
                self.sizes.add(int(name[0]))
            elif what == "resized":
                self.sizes = {int(name[0])}
        return created, begun, gone

    def judge_snapshots(self):
        created, begun, gone = self.read_log()
        listed = run("qemu-img", "snapshot", "-l", "-U", self.top).stdout.decode().split("\n")[2:]
        there = {line.split()[1] for line in listed if line}
        for name in {*created, *self.snapshots} - there:
            if ("delete", name) not in gone:
                raise Wrong(f"snapshot {name} is lost")
        for name in there:
            if ("deleted", name) in gone:
                raise Wrong(f"snapshot {name} is there again")
            self.judge_snapshot(name, created, begun)
        self.snapshots = {n: s for n, s in self.snapshots.items() if n in there}
        if there and self.rng.randrange(3) == 0:
            self.written_by_qemu()

    def written_by_qemu(self):
        shutil.copyfile(self.top, "copy.qcow2")
        run("qemu-io", "-f", "qcow2", "-c", f"write -q -P 1 0 {BLOCKS * BLOCK}", "copy.qcow2")
        for name, was in self.snapshots.items():
            if self.read_snapshot("copy.qcow2", name) != was:
                raise Wrong(f"snapshot {name} has changed by what qemu wrote")
        self.check("copy.qcow2")

    def read_snapshot(self, path, name):
        run("qemu-img", "convert", "-l", f"snapshot.name={name}", "-O", "raw", path, "snapshot.raw")
        with open("snapshot.raw", "rb") as disk:
            # As long as the disk is now, whatever it was: qemu-img does not shorten it.
            return hashlib.sha1(disk.read(BLOCKS * BLOCK)).digest()

    def judge_snapshot(self, name, created, begun):
        digest = self.read_snapshot(self.top, name)
        if name in self.snapshots:
            if digest != self.snapshots[name]:
                raise Wrong(f"snapshot {name} has changed")
            return
        first = self.returned_at(begun[name], True)
        last = {b: len(h) - 1 for b, h in self.history.items()}
        if name in created:
            last = self.returned_at(created[name], False)
        self.judge_disk("snapshot.raw", first, last, f"snapshot {name}")
        self.snapshots[name] = digest

    def judge(self):
        self.take_logs()
        for path in {self.top, self.base} - {None}:
            if path.endswith(".qcow2") and os.path.exists(path):
                self.check(path)
        if not os.path.exists(self.top):
            raise Wrong(f"{self.top} is gone")
        if self.top.endswith("qcow2") and "snapshots" in self.todo:
            self.judge_snapshots()
        else:
            self.read_log()
        kind = "qcow2" if self.top.endswith("qcow2") else "raw"
        run("qemu-img", "convert", "-f", kind, "-O", "raw", self.top, "back.raw")
        last = {b: len(h) - 1 for b, h in self.history.items()}
        self.now = self.judge_disk("back.raw", self.durable, last, "the disk")
        size = os.path.getsize("back.raw")
        if size not in self.sizes:
            raise Wrong(f"the size is {size}, asked for {self.sizes}")
        self.sizes = {size}

    def finish_commit(self):
        """What was begun comes to its end, and then the base alone is the disk."""
        daemon = self.mount()
        command("commit", "")
        text = "running"
        while "running" in text:
            time.sleep(0.02)
            with open("m/control/commit", encoding="utf-8") as f:
                text = f.read()
        if "done" not in text:
            raise Wrong(f"commit: {text}")
        run("fusermount3", "-u", "m")
        if daemon.wait():
            raise Wrong(f"imgfs: status {daemon.returncode} after the commit")
        kind = "qcow2" if self.base.endswith("qcow2") else "raw"
        run("qemu-img", "convert", "-f", kind, "-O", "raw", self.base, "back.raw")
        with open("back.raw", "rb") as back:
            for block in range(BLOCKS):
                if back.read(BLOCK) != self.now[block]:
                    raise Wrong(f"after the commit block {block} of the base is not the disk's")
        for path in (self.top, self.base):
            if path.endswith(".qcow2"):
                self.check(path)

    def trial(self, kills):
        for _ in range(kills):
            self.kill()
            self.wait_for_locks()
            self.judge()
        if self.commits:
            self.finish_commit()
        if self.verbose:
            print(f"{self.kind}: {self.done} kills, {self.syncs} syncs, {self.leaking} checks with leaks, "
                  f"{len(self.snapshots)} snapshots at the end", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("-n", type=int, default=10)
    parser.add_argument("-s", type=int, default=1)
    parser.add_argument("-v", action="store_true")
    parser.add_argument("kinds", nargs="*", choices=[[], *KINDS])
    o = parser.parse_args()
    rng = random.Random(o.s)
    kinds, kills, images = list(o.kinds or KINDS), 0, []
    rng.shuffle(kinds)
    os.mkdir("m")
    while kills < o.n:
        os.mkdir("image")
        os.chdir("image")
        os.mkdir("m")
        image = Image(kinds[len(images) % len(kinds)], rng, o.v)
        images.append(image)
        try:
            image.trial(min(ROUNDS, o.n - kills, max(1, o.n // len(kinds))))
        except Wrong as e:
            sys.exit(f"{image.kind}, kill {kills + image.done + 1}, seed {o.s}: {e}")
        kills += image.done
        os.chdir("..")
        shutil.rmtree("image")
    syncs = sum(i.syncs for i in images)
    if not syncs:
        sys.exit("nothing was ever durable")
    print(f"{kills} kills of {len(images)} images, {syncs} syncs, {sum(i.leaking for i in images)} checks with leaks")


if __name__ == "__main__":
    main()
