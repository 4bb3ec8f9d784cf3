#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# control/events: every event to every reader, waiting reads, poll, slow readers, signals, unmount.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_fuse
requires_qemu

qemu-img create -q -f qcow2 a.qcow2 16M
mount_imgfs -o rw a.qcow2 m
cat m/control/events >before 2>/dev/null &
reader=$!
python3 - m <<'PY'
import errno, json, os, select, signal, subprocess, sys, threading, time
mnt = sys.argv[1]; ctl = mnt + '/control/'
def write(file, data):
    fd = os.open(ctl + file, os.O_WRONLY)
    try: os.write(fd, data)
    finally: os.close(fd)
def opened(flags=os.O_NONBLOCK): return os.open(ctl + 'events', os.O_RDONLY | flags)
def lines(fd):
    out = b''
    while True:
        try: out += os.read(fd, 4096)
        except BlockingIOError: break
    assert not out or out.endswith(b'\n'), out
    return [json.loads(l) for l in out.splitlines()]
def bare(events):
    for e in events:
        assert abs(e.pop('time') - time.time()) < 60
    return events

# From its opening on, in order, and each reader all of them.
a, b = opened(), opened()
write('snapshot', b'create x\nrename x "y \xc3\xa4"\n')
late = opened()
os.mkdir(mnt + '/snapshots/dir'); os.rename(mnt + '/snapshots/dir', mnt + '/snapshots/ren')
os.rmdir(mnt + '/snapshots/ren')
write('snapshot', b'apply "y \xc3\xa4"\n'); write('resize', b'17M\n')
write('snapshot', b'delete "y \xc3\xa4"\n')
first = [{'event': 'snapshot-created', 'name': 'x'},
         {'event': 'snapshot-renamed', 'name': 'x', 'new_name': 'y ä'}]
rest = [{'event': 'snapshot-created', 'name': 'dir'},
        {'event': 'snapshot-renamed', 'name': 'dir', 'new_name': 'ren'},
        {'event': 'snapshot-deleted', 'name': 'ren'}, {'event': 'snapshot-applied', 'name': 'y ä'},
        {'event': 'resized', 'size': 17 << 20}, {'event': 'snapshot-deleted', 'name': 'y ä'}]
for fd, want in ((a, first + rest), (b, first + rest), (late, rest)):
    got = bare(lines(fd))
    assert got == want, got
    try: os.read(fd, 100); sys.exit('no EAGAIN')
    except BlockingIOError: pass
# An error of one kind is told once.
for i in range(3):
    try: write('snapshot', b'delete nothing\n')
    except OSError: pass
got = bare(lines(a))
assert [e['event'] for e in got] == ['error'] and got[0]['source'] == 'snapshot', got
assert 'nothing' in got[0]['message'] and got[0]['errno'] == errno.ENOENT
# A small buffer gets a line in pieces.
lines(b)
write('snapshot', b'create small\n')
os.set_blocking(b, True)
text = b''
while not text.endswith(b'\n'): text += os.read(b, 7)
assert json.loads(text)['name'] == 'small'
os.close(b); os.close(late)

# poll: nothing, then something, then nothing again.
lines(a)
p = select.poll(); p.register(a, select.POLLIN)
assert p.poll(0) == []
t = threading.Timer(0.2, write, ('snapshot', b'delete small\n')); t.start()
start = time.monotonic()
assert p.poll(5000) == [(a, select.POLLIN)] and 0.1 < time.monotonic() - start < 2
t.join(); assert len(lines(a)) == 1 and p.poll(0) == []
# The other files are always ready to be read.
s = os.open(ctl + 'status', os.O_RDONLY)
assert select.select([s], [], [], 0)[0] == [s]
os.close(s)

# More readers wait than requests are received at a time, and the mount serves on.
waiting = [subprocess.Popen(['head', '-n1', ctl + 'events'], stdout=subprocess.PIPE)
           for i in range(100)]
time.sleep(1)
assert os.stat(mnt + '/disk.raw').st_size == 17 << 20
write('snapshot', b'create wake\n')
for w in waiting:
    out, _ = w.communicate(timeout=10)
    assert json.loads(out)['name'] == 'wake', out

# A signal ends a read that waits.
w = subprocess.Popen(['cat', ctl + 'events'])
time.sleep(0.3)
w.send_signal(signal.SIGTERM)
assert w.wait(timeout=5) == -signal.SIGTERM
c = opened(0)
class Alarm(Exception): pass
def ring(*_): raise Alarm
signal.signal(signal.SIGALRM, ring); signal.setitimer(signal.ITIMER_REAL, 0.2)
try: os.read(c, 100); sys.exit('no event, but a read')
except Alarm: pass
write('snapshot', b'delete wake\n')
assert json.loads(os.read(c, 4096))['name'] == 'wake'
os.close(c)

# A slow reader is told how much it missed, and what came first and last is whole.
lines(a)
for i in range(600): write('resize', b'%d\n' % ((16 << 20) + 512 * (i + 20000)))
got = bare(lines(a))
lost = [e for e in got if e['event'] == 'lost']
assert len(lost) == 1 and len(got) - 1 + lost[0]['count'] == 600, (len(got), lost)
assert got[0]['size'] == (16 << 20) + 512 * 20000
write('resize', b'40M\n')
assert bare(lines(a)) == [{'event': 'resized', 'size': 40 << 20}]
# A program that makes the disk longer is one more way.
os.truncate(mnt + '/disk.raw', 48 << 20)
assert bare(lines(a)) == [{'event': 'resized', 'size': 48 << 20}]
os.close(a)

# Programs that walk a tree (they follow no links) get the end of the file where others wait.
for flags in (os.O_NOFOLLOW, os.O_NOFOLLOW | os.O_NONBLOCK):
    f = opened(flags)
    assert os.read(f, 100) == b''
    write('resize', b'49M\n' if flags & os.O_NONBLOCK else b'50M\n--shrink 48M\n')
    assert json.loads(os.read(f, 4096).splitlines()[-1])['event'] == 'resized'
    assert os.read(f, 100) == b''
    os.close(f)
subprocess.run(['cp', '-r', ctl, 'copy'], check=True, timeout=10)
assert sorted(os.listdir('copy')) == sorted(os.listdir(ctl))
PY
# Readers that wait do not keep a mount from ending: they read of the end, then the end.
exec 5<m/control/events
cat <&5 >after 2>/dev/null &
second=$!
wait_until_waits "$second" cat
pids=$(imgfs_pids "$(realpath m)")
kill "$pids"
wait "$reader" "$second" 2>/dev/null || true
exec 5<&-
for ((i = 0; i < 100; i++)); do runs "$pids" || break; sleep 0.05; done
! runs "$pids" || fail "readers keep imgfs from ending"
python3 - before after <<'PY'
import json, sys
for name in sys.argv[1:]:
    events = [json.loads(l) for l in open(name)]
    assert events[-1]['event'] == 'unmount', (name, events)
assert len(events) == 1 and [e['name'] for e in map(json.loads, list(open('before'))[:1])] == ['x']
PY
qemu-img check -q a.qcow2 || fail "check"
