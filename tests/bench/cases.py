# SPDX-License-Identifier: LGPL-2.1-or-later
"""The cases. Each one: a name, the goal (peer's time over ours), and how to take one
sample of one side.

sample(side) -> (seconds, peak KiB) is called in turns, "ours" and "peer".
verify(side) proves once, outside of the time measured, that the side's answer
is right: a figure of a wrong result is no figure. It raises when it is not.
"""
import filecmp
import json
import os
import shutil
import subprocess
import tempfile

import mounts

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAMS = os.environ.get("IMGFS_BENCH_PROGRAMS", HERE)


class WrongResult(Exception):
    pass


def program(name, *argv):
    """Runs one of our C helpers; its line of JSON."""
    command = [os.path.join(PROGRAMS, name), *argv]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    return json.loads(out)


def timed(argv, out="/dev/null", runs=1, first_byte_of=None, allow=(0,)):
    options = ["-n", str(runs), "-o", out]
    if first_byte_of:
        options += ["-r", first_byte_of]
    result = program("timed", *options, "--", *argv)
    if result["status"] not in allow:
        raise WrongResult(f"{' '.join(argv)}: exit status {result['status']}")
    return result


def run_quiet(*argv):
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


def must_equal(left, right, what):
    if not filecmp.cmp(left, right, shallow=False):
        raise WrongResult(f"{what}: {left} and {right} differ")


class Case:
    def __init__(self, name, goal, images):
        self.name, self.goal, self.images = name, goal, images

    def prepare(self):
        """Makes what the case needs."""

    def verify(self, side):
        """Raises WrongResult."""

    def sample(self, side):
        raise NotImplementedError


class MountCase(Case):
    """Starts a fresh mount for each sample, so nothing is in the kernel's cache."""

    def __init__(self, name, goal, images, image):
        super().__init__(name, goal, images)
        self.make_image = image

    def prepare(self):
        self.image = self.make_image()

    def mount(self, side):
        return (mounts.Ours if side == "ours" else mounts.Peer)(self.image, self.images.folder)

    def verify(self, side):
        with self.mount(side) as mount:
            must_equal(mount.disk, self.images.raw(), self.name)

    def sample(self, side):
        with self.mount(side) as mount:
            wall = self.measure(mount)
        return wall, mount.rss

    def measure(self, mount):
        raise NotImplementedError


class Sequential(MountCase):
    def measure(self, mount):
        return timed(["dd", f"if={mount.disk}", "of=/dev/null", "bs=1M", "status=none"])["wall"]


class SecondRead(Sequential):
    def measure(self, mount):
        super().measure(mount)
        return super().measure(mount)


class RandomReads(MountCase):
    def __init__(self, name, goal, images, image, options, reads):
        super().__init__(name, goal, images, image)
        self.options = [*options, "-n", str(reads)]
        self.seed = 0

    def verify(self, side):
        with self.mount(side) as mount:
            program("random", *self.options, "-c", self.images.raw(), mount.disk)

    def measure(self, mount):
        # The two sides of a round read the same blocks; the next round others.
        self.seed += 1
        return program("random", *self.options, "-s", str(self.seed // 2 * 4099), mount.disk)["wall"]


class SparseCopy(MountCase):
    """cp of a huge, nearly empty disk: lives from SEEK_HOLE and honest st_blocks."""

    def copy(self, mount, check=False):
        with tempfile.TemporaryDirectory(prefix="copy.", dir=self.images.folder) as folder:
            target = os.path.join(folder, "copy")
            result = timed(["cp", "--sparse=always", mount.disk, target])
            if check:
                answer = subprocess.run(["qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2",
                                         target, self.image], check=False).returncode
                if answer:
                    raise WrongResult(f"{self.name}: the copy differs")
            return result["wall"]

    def verify(self, side):
        with self.mount(side) as mount:
            self.copy(mount, check=True)

    def measure(self, mount):
        return self.copy(mount)


class FirstByte(MountCase):
    """From typing the command to the first byte read: as a user mounts, in the background."""

    def sample(self, side):
        mount = self.mount(side)
        try:
            if side == "ours":
                command = mount.command()
            else:
                command = mount.command("--daemonize", "--pidfile", mount.pidfile)
            result = timed(command, first_byte_of=mount.disk)
            pid = daemon_of(mount)
            rss = mounts.peak_memory(pid)
        finally:
            mounts.unmount(mount.where)
            if os.path.exists(mount.pidfile if side == "peer" else ""):
                os.kill(pid, 15)
            mount.stop()
        mounts.wait_for(lambda: not os.path.exists(f"/proc/{pid}/exe"), f"end of {pid}")
        return result["wall"], rss


def daemon_of(mount):
    """The pid of a daemon in the background: the one whose command line names our own folder."""
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as line:
                    if mount.where.encode() in line.read():
                        return int(entry)
            except OSError:
                continue
    raise RuntimeError(f"{mount.where}: no daemon")


class ToolCase(Case):
    """One command, given to both programs. `{out}` is a file that does not exist yet."""

    def __init__(self, name, goal, images, argv, runs=1, inputs=()):
        super().__init__(name, goal, images)
        self.template, self.runs, self.inputs = argv, runs, inputs
        self.answers = {}

    def prepare(self):
        self.paths = {key: maker() for key, maker in self.inputs}

    def run(self, side, check=False):
        with tempfile.TemporaryDirectory(prefix="tool.", dir=self.images.folder) as folder:
            words = dict(self.paths, out=os.path.join(folder, "out"))
            argv = [word.format(**words) for word in self.template]
            tool = "imgtool" if side == "ours" else "qemu-img"
            stdout = os.path.join(folder, "stdout") if check else "/dev/null"
            result = timed([tool, *argv], out=stdout, runs=1 if check else self.runs)
            if check:
                self.check(side, words, stdout)
        return result["wall"], result["rss"]

    def check(self, side, words, stdout):
        if "{out}" in self.template:
            must_equal(words["out"], self.images.raw(), self.name)
        else:
            with open(stdout, "rb") as answer:
                self.compare_answers(side, answer.read())

    def compare_answers(self, side, text):
        """Both sides' texts must agree."""
        if not text:
            raise WrongResult(f"{self.name}: {side} printed nothing")
        self.answers[side] = text
        if len(set(self.answers.values())) > 1:
            raise WrongResult(f"{self.name}: the two answers differ")

    def verify(self, side):
        self.run(side, check=True)

    def sample(self, side):
        return self.run(side)


class WritingCase(ToolCase):
    """A command that makes or changes `{out}`, or an image in a folder of its own, `{dir}`.

    setup(folder) puts there, outside of the time measured, what the command changes; equal(folder)
    gives pairs (image, what it must read as), None in place of the second when check is enough.
    """

    def __init__(self, name, goal, images, argv, setup=None, equal=None, size_limit=None, inputs=()):
        super().__init__(name, goal, images, argv, inputs=inputs)
        self.setup, self.equal, self.size_limit = setup, equal, size_limit
        self.sizes = {}

    def run(self, side, check=False):
        with tempfile.TemporaryDirectory(prefix="tool.", dir=self.images.folder) as folder:
            words = dict(self.paths, dir=folder, out=os.path.join(folder, "out"))
            if self.setup:
                self.setup(folder)
            tool = "imgtool" if side == "ours" else "qemu-img"
            result = timed([tool, *(word.format(**words) for word in self.template)])
            if check:
                self.check_images(side, folder)
        return result["wall"], result["rss"]

    def check_images(self, side, folder):
        for image, like in self.equal(folder):
            if not image.endswith(".raw"):
                subprocess.run(["qemu-img", "check", "-q", image], check=True)
            if like and subprocess.run(["qemu-img", "compare", "-q", image, like], check=False).returncode:
                raise WrongResult(f"{self.name}: {side}: {image} does not read as {like}")
            self.sizes[side] = os.path.getsize(image)
        ratio = self.sizes.get("ours", 0) / self.sizes[side]
        if self.size_limit and ratio > self.size_limit:
            raise WrongResult(f"{self.name}: {ratio:.3f} times the size of the peer's, "
                              f"{self.size_limit} is allowed")

    def verify(self, side):
        super().verify(side)
        if self.size_limit and len(self.sizes) == 2:
            print(f"  {self.name}: {self.sizes['ours'] / self.sizes['peer']:.4f} times "
                  "the size of the peer's", flush=True)


def writing_cases(images):
    raw, flat, packed, chain = images.raw, images.flat, images.compressed, images.chain

    def case(name, goal, argv, setup=None, equal=None, size_limit=None, **inputs):
        return WritingCase(name, goal, images, argv.split(), setup, equal, size_limit, inputs.items())

    def out_is_raw(folder):
        return [(os.path.join(folder, "out"), raw())]

    def raw_out_is_raw(folder):
        return [(os.path.join(folder, "out.raw"), raw())]

    def copy(maker, name):
        return lambda folder: shutil.copyfile(maker(), os.path.join(folder, name))

    def put(*names):
        """Copies: the layers of one chain, which name each other without a directory."""
        def setup(folder):
            images.overlay()
            for name in names:
                shutil.copyfile(images.path(name), os.path.join(folder, name))
        return setup

    def sound(folder):
        return [(os.path.join(folder, "disk.qcow2"), raw())]

    def committed(folder):
        return [(os.path.join(folder, "flat.qcow2"), images.changed())]

    def rebased(folder):
        return [(os.path.join(folder, "overlay.qcow2"), images.changed())]

    def created(folder):
        return [(os.path.join(folder, "out"), None)]

    def resized(folder):
        return [(os.path.join(folder, "disk.qcow2"), None)]

    def sectors(folder):
        return [(os.path.join(folder, "out.raw"), images.raw_front())]

    def metadata(folder):
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", "preallocation=metadata",
                        os.path.join(folder, "disk.qcow2"), "256G"], check=True)

    disk = "{dir}/disk.qcow2"
    return [
        case("to-qcow2", 1.5, "convert -f raw -O qcow2 {raw} {out}", equal=out_is_raw, raw=raw),
        case("to-zlib", 4, "convert -f raw -O qcow2 -c {raw} {out}", equal=out_is_raw,
             size_limit=1.05, raw=raw),
        case("to-zstd", 1.5, "convert -f raw -O qcow2 -c -o compression_type=zstd {raw} {out}",
             equal=out_is_raw, size_limit=1.05, raw=raw),
        case("dd-512", 10, "dd -f qcow2 -O raw bs=512 count=65536 if={image} of={dir}/out.raw",
             equal=sectors, image=flat),
        case("dd-1M", 1.5, "dd -f qcow2 -O raw bs=1M if={image} of={dir}/out.raw",
             equal=raw_out_is_raw, image=flat),
        case("commit", 1.3, "commit -q -f qcow2 {dir}/overlay.qcow2",
             put("flat.qcow2", "overlay.qcow2"), committed),
        case("rebase-safe", 1.5, "rebase -f qcow2 -F qcow2 -b {base} {dir}/overlay.qcow2",
             put("flat.qcow2", "overlay.qcow2"), rebased, base=packed),
        case("snapshot-create", 1, "snapshot -c one " + disk, copy(flat, "disk.qcow2"), sound),
        case("resize", 1, "resize -q -f qcow2 " + disk + " 64G", copy(flat, "disk.qcow2"),
             resized),
        case("amend", 1, "amend -f qcow2 -o compat=0.10 " + disk, copy(flat, "disk.qcow2"), sound),
        case("amend-width", 1, "amend -f qcow2 -o refcount_bits=64 " + disk, metadata,
             resized),
        case("create-metadata", 1, "create -q -f qcow2 -o preallocation=metadata {out} 256G",
             equal=created),
    ]


def all_cases(images):
    raw, flat, packed = images.raw, images.flat, images.compressed
    chain, sparse, fragmented = images.chain, images.sparse64, images.fragmented

    def tool(name, goal, argv, runs=1, **inputs):
        return ToolCase(name, goal, images, argv.split(), runs=runs, inputs=inputs.items())

    scale = images.size / (1 << 30)
    return [
        Sequential("mount-seq", 3, images, flat),
        SecondRead("mount-second", 8, images, flat),
        Sequential("mount-compressed", 3, images, packed),
        Sequential("mount-chain", 3, images, chain),
        RandomReads("mount-random", 1.5, images, flat, [], int(49152 * scale)),
        RandomReads("mount-direct4", 2, images, flat, ["-d", "-t", "4"], int(16384 * scale)),
        SparseCopy("mount-sparse-cp", 1, images, sparse),
        FirstByte("mount-first-byte", 1, images, flat),
        tool("convert", 1.3, "convert -f qcow2 -O raw {image} {out}", image=flat),
        tool("convert-compressed", 2.5, "convert -f qcow2 -O raw {image} {out}", image=packed),
        tool("convert-chain", 1.3, "convert -f qcow2 -O raw {image} {out}", image=chain),
        tool("compare", 1.3, "compare -f qcow2 -F raw {image} {raw}", image=flat, raw=raw),
        tool("compare-compressed", 2.5, "compare -f qcow2 -F raw {image} {raw}", image=packed, raw=raw),
        tool("map", 1, "map -f qcow2 --output=json {image}", image=fragmented),
        tool("map-human", None, "map -f qcow2 {image}", image=fragmented),
        tool("check", 1.5, "check -f qcow2 {image}", image=fragmented),
        tool("info", 1, "info -f qcow2 {image}", runs=20, image=flat),
        *writing_cases(images),
    ]
