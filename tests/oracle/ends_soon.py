# SPDX-License-Identifier: LGPL-2.1-or-later
"""How soon commands end after SIGINT.

usage: ends_soon [-n TRIES] COMMAND...        one argument a command, split at spaces

Each command is stopped after some tenths of a second, a few times. It must end of the signal; in
every try with less than 100 ms of processor time for each processor, and at least once within
100 ms by the clock: another process may have had the machine in the meantime, so the best time
counts. A command that was done before is a mistake of the caller.
"""
import os
import shlex
import signal
import subprocess
import sys
import time

MOST = 0.100
TICK = os.sysconf("SC_CLK_TCK")


def used(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def stop(words, delay):
    """(seconds by the clock, of processors) between the signal and the end; or a complaint."""
    p = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                         stderr=subprocess.PIPE)
    time.sleep(delay)
    before = used(p.pid)
    if os.waitid(os.P_PID, p.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        return f"was done after {delay} s: {p.stderr.read()[-300:]!r}"
    begin = time.monotonic()
    p.send_signal(signal.SIGINT)
    _, status, usage = os.wait4(p.pid, 0)
    took = time.monotonic() - begin
    p.returncode = os.waitstatus_to_exitcode(status)
    if p.returncode != -signal.SIGINT:
        return f"status {p.returncode} after SIGINT: {p.stderr.read()[-300:]!r}"
    return took, usage.ru_utime + usage.ru_stime - before


def judge(command, tries):
    times = []
    for i in range(tries):
        got = stop(shlex.split(command), 0.1 + 0.09 * i)
        if isinstance(got, str):
            return got
        times.append(got)
    best, busy = min(t[0] for t in times), max(t[1] for t in times)
    print(f"{command}: ended after {best * 1000:.0f} ms at best, {busy * 1000:.0f} ms of "
          f"processor time at most", flush=True)
    if best > MOST:
        return f"takes {best * 1000:.0f} ms to end"
    # The count of ticks before is coarse.
    if busy > MOST * os.cpu_count() + 2 / TICK:
        return f"works for {busy * 1000:.0f} ms before it ends"
    return None


def main():
    words = sys.argv[1:]
    tries = 4
    if words[0] == "-n":
        tries, words = int(words[1]), words[2:]
    wrong = 0
    for command in words:
        complaint = judge(command, tries)
        if complaint:
            print(f"{command}: {complaint}")
            wrong += 1
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
