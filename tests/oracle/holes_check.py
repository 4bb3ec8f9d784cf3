# SPDX-License-Identifier: LGPL-2.1-or-later
"""holes_check FILE [zero]: SEEK_HOLE and SEEK_DATA are consistent, and holes read as zeroes.

With "zero" it is the data that must be zeroes, and the holes are believed, not
read: the quick way to say that a huge disk is empty.
"""
import errno
import os
import sys


def runs(fd, size):
    """(start, end) of each data run."""
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as e:
            if e.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(fd, start, os.SEEK_HOLE)
        if not at <= start < end <= size:
            sys.exit(f"from {at}: data at {start}, hole at {end}, size {size}")
        yield start, end
        at = end


def main():
    fd = os.open(sys.argv[1], os.O_RDONLY)
    size = os.fstat(fd).st_size
    data = list(runs(fd, size))
    holes = zip([0] + [end for _, end in data], [start for start, _ in data] + [size])
    for start, end in data if sys.argv[2:] == ["zero"] else holes:
        while start < end:
            piece = os.pread(fd, min(1 << 20, end - start), start)
            if not piece or piece.strip(b"\0"):
                sys.exit(f"{sys.argv[1]}: not zero, or cut short, at {start}")
            start += len(piece)


if __name__ == "__main__":
    main()
