# SPDX-License-Identifier: LGPL-2.1-or-later
"""The images that the cases read: made once by qemu's programs, kept in the scratch folder.

Nothing of this project makes or reads them here, so a figure never rests on
our own idea of the format.
"""
import hashlib
import os
import random
import shutil
import subprocess

import mounts

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def run(*argv, **keywords):
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, **keywords)


def regular_files(top):
    """Regular files below top, each once, in an order that mixes kinds but is always the same."""
    found, seen = [], set()
    for folder, folders, names in os.walk(top):
        folders.sort()
        for name in names:
            path = os.path.join(folder, name)
            try:
                st = os.lstat(path)
            except OSError:
                continue
            if os.path.isfile(path) and not os.path.islink(path) and (st.st_dev, st.st_ino) not in seen:
                seen.add((st.st_dev, st.st_ino))
                found.append((hashlib.sha1(path.encode(errors="surrogateescape")).digest(), path, st.st_size))
    return [(path, size) for _, path, size in sorted(found)]


class Images:
    """Each method returns the path of one image, making it if it is not there."""

    def __init__(self, scratch, size):
        self.size = size
        self.folder = os.path.join(scratch, f"images-{size // MIB}M")
        os.makedirs(self.folder, exist_ok=True)

    def path(self, name):
        return os.path.join(self.folder, name)

    def make(self, name, maker):
        path = self.path(name)
        if not os.path.exists(path):
            print(f"making {name} ...", flush=True)
            part = path + ".part"
            if os.path.exists(part):
                os.unlink(part)
            maker(part)
            os.rename(part, path)
        return path

    def raw(self):
        """An ext4 filled to about nine tenths with files of /usr."""
        def maker(path):
            tree, room = self.path("tree"), self.size * 88 // 100
            for source, size in regular_files("/usr"):
                cost = -(-size // 4096) * 4096 + 512
                if size > 64 * MIB or cost > room:
                    continue
                target = tree + source
                os.makedirs(os.path.dirname(target), exist_ok=True)
                shutil.copyfile(source, target)
                room -= cost
                if room < MIB:
                    break
            try:
                os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))
                os.truncate(path, self.size)
                run("mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-O", "^has_journal", "-d", tree, path)
            finally:
                shutil.rmtree(tree, ignore_errors=True)
        return self.make("disk.raw", maker)

    def flat(self):
        return self.make("flat.qcow2", lambda path: run(
            "qemu-img", "convert", "-O", "qcow2", self.raw(), path))

    def empty(self):
        return self.make("empty.qcow2", lambda path: run(
            "qemu-img", "create", "-q", "-f", "qcow2", path, str(self.size)))

    def empty16(self):
        return self.make("empty16.qcow2", lambda path: run(
            "qemu-img", "create", "-q", "-f", "qcow2", path, str(16 * self.size)))

    def compressed(self):
        return self.make("compressed.qcow2", lambda path: run(
            "qemu-img", "convert", "-c", "-W", "-m", "4", "-O", "qcow2", self.raw(), path))

    def chain(self):
        """Eight layers; the upper seven each hold scattered runs of the disk's own bytes.

        The base has other bytes where a layer covers it, so a reader that
        misses a layer is found out. The sum of all is disk.raw.
        """
        def maker(top):
            rng = random.Random(8)
            runs = []
            pieces = self.size // (64 * KIB)
            for layer in range(1, 8):
                for _ in range(pieces // 64):
                    length = rng.choice((1, 1, 2, 4, 8, 16)) * 64 * KIB
                    offset = rng.randrange(pieces) * 64 * KIB
                    runs.append((layer, offset, min(length, self.size - offset)))
            base = self.path("layer0.qcow2")
            if os.path.exists(base):
                os.unlink(base)
            run("qemu-img", "convert", "-O", "qcow2", self.raw(), base)
            with mounts.Peer(base, self.folder, writable=True) as peer, open(peer.disk, "r+b", 0) as out:
                for _, offset, length in runs:
                    os.pwrite(out.fileno(), rng.randbytes(4096) * (length // 4096), offset)
            for layer in range(1, 8):
                # The top is named as its part file until the chain is complete.
                name = top if layer == 7 else self.path(f"layer{layer}.qcow2")
                run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2",
                    "-b", f"layer{layer - 1}.qcow2", name)
                with mounts.Peer(name, self.folder, writable=True) as peer, \
                        open(peer.disk, "r+b", 0) as out, open(self.raw(), "rb", 0) as data:
                    for where, offset, length in runs:
                        if where == layer:
                            os.pwrite(out.fileno(), os.pread(data.fileno(), length, offset), offset)
        return self.make("chain.qcow2", maker)

    def overlay(self):
        """Upon flat.qcow2: a quarter of the disk, written in runs of 64 KiB to 1 MiB."""
        self.flat()

        def maker(path):
            run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "flat.qcow2", path)
            rng, done = random.Random(4), 0
            with mounts.Peer(path, self.folder, writable=True) as peer, open(peer.disk, "r+b", 0) as out:
                while done < self.size // 4:
                    length = rng.choice((1, 2, 4, 16)) * 64 * KIB
                    offset = rng.randrange((self.size - length) // (64 * KIB)) * 64 * KIB
                    os.pwrite(out.fileno(), rng.randbytes(4096) * (length // 4096), offset)
                    done += length
        return self.make("overlay.qcow2", maker)

    def changed(self):
        """What the overlay reads as."""
        return self.make("changed.raw", lambda path: run(
            "qemu-img", "convert", "-O", "raw", self.overlay(), path))

    def raw_front(self):
        def maker(path):
            with open(self.raw(), "rb") as disk, open(path, "wb") as out:
                out.write(disk.read(32 * MIB))
        return self.make("front.raw", maker)

    def sparse64(self):
        """64 GiB with a fresh file system: some MiB of metadata scattered over all of it."""
        def maker(path):
            raw = path + ".raw"
            try:
                run("truncate", "-s", "64G", raw)
                run("mke2fs", "-q", "-F", "-t", "ext4", raw)
                run("qemu-img", "convert", "-O", "qcow2", raw, path)
            finally:
                os.unlink(raw)
        return self.make("sparse64.qcow2", maker)

    def fragmented(self):
        """64 GiB virtual, clusters of 4 KiB, written in random order and with small gaps."""
        def maker(path):
            run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", path, "64G")
            rng, block = random.Random(64), os.urandom(16 * KIB)
            with mounts.Peer(path, self.folder, writable=True, cache="l2-cache-size=134217728") as peer, \
                    open(peer.disk, "r+b", 0) as out:
                for _ in range(self.size // (8 * KIB)):
                    os.pwrite(out.fileno(), block[:rng.choice((4, 4, 8)) * KIB],
                              rng.randrange(64 * GIB // (16 * KIB)) * 16 * KIB)
        return self.make("fragmented.qcow2", maker)
