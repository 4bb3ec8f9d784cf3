# SPDX-License-Identifier: LGPL-2.1-or-later
"""Cases that write through a mount: imgfs -o rw and qemu-storage-daemon's writable export.

Each sample has a fresh image and a fresh mount; the time ends when the writer's fsync has
returned. To verify, the same is done to a raw file: after unmounting, the image must be sound
and read the same.
"""
import os
import shutil
import subprocess
import tempfile

import cases
import mounts


class MountWrite(cases.MountCase):
    """setup() makes the image in a folder of its own; write(path) is what is measured."""

    def __init__(self, name, goal, images, image):
        super().__init__(name, goal, images, image)
        self.seed = 0

    def setup(self, folder):
        return shutil.copyfile(self.image, os.path.join(folder, "disk.qcow2"))

    def reference(self, folder):
        """A raw file that reads as the image does before it is written to."""
        path = os.path.join(folder, "disk.raw")
        cases.run_quiet("qemu-img", "convert", "-O", "raw", self.image, path)
        return path

    def run(self, side, check=False):
        with tempfile.TemporaryDirectory(prefix="write.", dir=self.images.folder) as folder:
            image = self.setup(folder)
            kind = mounts.Ours if side == "ours" else mounts.Peer
            with kind(image, folder, writable=True) as mount:
                wall = self.write(mount.disk)
            if check:
                self.check(image, self.reference(folder))
        return wall, mount.rss

    def check(self, image, raw):
        self.write(raw)
        if subprocess.run(["qemu-img", "check", "-q", image], check=False).returncode:
            raise cases.WrongResult(f"{self.name}: check finds errors")
        if subprocess.run(["qemu-img", "compare", "-q", image, raw], check=False).returncode:
            raise cases.WrongResult(f"{self.name}: the image reads otherwise")

    def verify(self, side):
        self.run(side, check=True)

    def sample(self, side):
        self.seed += 1
        return self.run(side)

    def write(self, path):
        raise NotImplementedError


class SequentialWrite(MountWrite):
    """dd of as many bytes as the disk has, those of disk.raw."""

    def write(self, path):
        return cases.timed(["dd", f"if={self.images.raw()}", f"of={path}", "bs=1M",
                            "conv=notrunc,fsync", "status=none"])["wall"]


class RandomWrites(MountWrite):
    def __init__(self, name, goal, images, image, options, count):
        super().__init__(name, goal, images, image)
        self.options = ["-w", *options, "-n", str(count)]

    def write(self, path):
        # The two sides of a round write the same blocks.
        return cases.program("random", *self.options, "-s", str(self.seed // 2 * 4099), path)["wall"]


class MakeFileSystem(MountWrite):
    """mkfs.ext4 on a loop device over the disk, until all is on the disk."""

    def write(self, path):
        loop = subprocess.run(["losetup", "-f", "--show", path], check=True,
                              stdout=subprocess.PIPE, text=True).stdout.strip()
        try:
            # The same file system each time.
            stable = "E2FSPROGS_FAKE_TIME=1700000000 mkfs.ext4 -q -F -U clear -E hash_seed="
            stable += "00000000-0000-0000-0000-000000000001"
            return cases.timed(["sh", "-c", f"{stable} {loop} && blockdev --flushbufs {loop} && "
                                f"sync -d {path}"])["wall"]
        finally:
            cases.run_quiet("losetup", "-d", loop)


def all_cases(images):
    flat, empty, empty16 = images.flat, images.empty, images.empty16

    scale = images.size / (1 << 30)
    return [
        SequentialWrite("write-seq", 2, images, flat),
        RandomWrites("write-random", 3, images, flat, [], int(65536 * scale)),
        RandomWrites("write-direct1", 1.2, images, flat, ["-d"], int(16384 * scale)),
        RandomWrites("write-direct4", 1.5, images, flat, ["-d", "-t", "4"], int(8192 * scale)),
        SequentialWrite("write-empty", 2, images, empty),
        RandomWrites("write-empty-random", None, images, empty, [], int(8192 * scale)),
        MakeFileSystem("write-mkfs", 1, images, empty16),
    ]
