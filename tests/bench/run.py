#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""make bench: imgfs and imgtool against qemu-storage-daemon's FUSE export and qemu-img.

usage: make bench [BENCH="[CASE...] [-r ROUNDS] [-s SIZE_MIB] [--only ours|peer] [--json FILE] ..."]

A CASE is a name or the beginning of one: `make bench BENCH=mount-seq`. Every
case is first verified on both sides, then measured in rounds; a round runs
both sides, and the order changes from round to round. Medians are compared.
Times are seconds, memory is the peak of the program or daemon.
"""
import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys

import cases
import images
import writes

SIDES = ("ours", "peer")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("case", nargs="*", help="name of a case, or how names begin (default: all)")
    parser.add_argument("-r", "--rounds", type=int, default=5)
    parser.add_argument("-s", "--size", type=int, default=1024, metavar="MIB", help="size of the disk")
    parser.add_argument("-l", "--list", action="store_true", help="print the cases and end")
    parser.add_argument("-v", "--verbose", action="store_true", help="print each sample")
    parser.add_argument("--only", choices=SIDES, help="one side (no ratios); for profiling")
    parser.add_argument("--no-verify", action="store_true", help="skip the proof of equal results")
    parser.add_argument("--json", metavar="FILE", help="write all samples there")
    parser.add_argument("--scratch", default=os.environ.get("IMGFS_BENCH_DIR", "/dev/shm/imgfs-bench"),
                        help="where images are made and kept (default: %(default)s)")
    parser.add_argument("--clean", action="store_true", help="remove the scratch folder and end")
    return parser.parse_args()


def measure(case, rounds, sides, verify, verbose):
    case.prepare()
    if verify:
        for side in sides:
            case.verify(side)
    samples = {side: [] for side in sides}
    for number in range(rounds):
        for side in sides if number % 2 == 0 else sides[::-1]:
            samples[side].append(case.sample(side))
            if verbose:
                wall, rss = samples[side][-1]
                print(f"  {case.name} {side} {wall:.4f} s {rss} KiB", flush=True)
    return samples


def row(case, samples):
    """One line of the table, and whether goal and memory limit were reached."""
    wall = {side: statistics.median(w for w, _ in taken) for side, taken in samples.items()}
    rss = {side: max(r for _, r in taken) / 1024 for side, taken in samples.items()}
    if len(samples) < 2:
        (side,) = samples
        return f"{case.name:<20} {side} {wall[side]:.4f} s {rss[side]:.1f} MiB", True
    ratio, memory = wall["peer"] / wall["ours"], rss["ours"] / rss["peer"]
    good = (case.goal is None or ratio >= case.goal) and memory <= 2
    goal = "" if case.goal is None else f"{case.goal:g}x"
    return (f"{case.name:<20} {wall['ours']:>9.4f} {wall['peer']:>9.4f} {ratio:>7.2f}x {goal:>5} "
            f"{rss['ours']:>9.1f} {rss['peer']:>9.1f} {memory:>7.2f}  {'' if good else 'MISSED'}"), good


HEADING = (f"{'case':<20} {'ours s':>9} {'peer s':>9} {'ratio':>8} {'goal':>5} "
           f"{'our MiB':>9} {'peer MiB':>9} {'memory':>7}")


def main():
    options = arguments()
    if options.clean:
        shutil.rmtree(options.scratch, ignore_errors=True)
        return 0
    # An interrupted run unwinds, so mounts and daemons end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.makedirs(options.scratch, exist_ok=True)
    made = images.Images(options.scratch, options.size << 20)
    chosen = [case for case in cases.all_cases(made) + writes.all_cases(made)
              if not options.case or any(case.name.startswith(word) for word in options.case)]
    if options.list or not chosen:
        print("\n".join(case.name for case in chosen) or "no such case")
        return 0 if chosen else 2
    sides = (options.only,) if options.only else SIDES
    print(f"{os.cpu_count()} processors, Linux {platform.release()}, {options.size} MiB disk, "
          f"{options.rounds} rounds, median", flush=True)
    print(HEADING, flush=True)
    taken, missed = {}, 0
    for case in chosen:
        try:
            taken[case.name] = measure(case, options.rounds, sides, not options.no_verify, options.verbose)
            line, good = row(case, taken[case.name])
        except (cases.WrongResult, RuntimeError, OSError, subprocess.CalledProcessError) as error:
            line, good = f"{case.name:<20} FAILED: {error}", False
        print(line, flush=True)
        missed += not good
    if options.json:
        with open(options.json, "w", encoding="utf-8") as out:
            json.dump(taken, out, indent=1)
    return 1 if missed and not options.only else 0


if __name__ == "__main__":
    sys.exit(main())
