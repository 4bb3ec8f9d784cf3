#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The control files of a writable mount: every command, what is refused and how, lines in all kinds
# of pieces, several writers. Status against its schema.
. "$IMGFS_SRCDIR/tests/functions.sh"
requires_fuse
requires_qemu
requires_program sgdisk

qemu-img create -q -f qcow2 a.qcow2 64M
mount_imgfs -o rw a.qcow2 m
[ "$(stat -c %a:%u m/control/*| sort -u)" = "600:$(id -u)" ] || fail "modes: $(stat -c %a:%u m/control/*)"

# What a newcomer writes.
echo create one >m/control/snapshot
echo "create  two words " >>m/control/snapshot
printf 'create three' >m/control/snapshot
printf 'create "  four \\" "\ncreate five\n' | cat >m/control/snapshot
imgtool snapshot -U -l a.qcow2 >list 2>/dev/null || true
[ "$(ls m/snapshots)" = $'  four " \nfive\none\nthree\ntwo words' ] || fail "names: $(ls m/snapshots)"
echo delete one >m/control/snapshot
echo rename three 3 >m/control/snapshot
echo 'rename "two words" 2' >m/control/snapshot
echo 'rename "  four \" " "4 four"' >m/control/snapshot
[ "$(ls m/snapshots)" = $'2\n3\n4 four\nfive' ] || fail "names: $(ls m/snapshots)"
cat m/control/snapshot >list
expect_output list "Snapshot list:" "4 four"
expect_status 1 bash -c 'echo delete one >m/control/snapshot'
expect_output err "No such file"
expect_status 1 bash -c 'echo create five >m/control/snapshot'
expect_output err "File exists"

python3 - m a.qcow2 <<'PY'
import errno, json, os, sys, threading, time
mnt, image = sys.argv[1:]
ctl = mnt + '/control/'
def names(): return sorted(os.listdir(mnt + '/snapshots'))
def status(): return json.load(open(ctl + 'status'))
def write(file, data):
    fd = os.open(ctl + file, os.O_WRONLY)
    try: return os.write(fd, data)
    finally: os.close(fd)
def refused(err, file, data, words, also=()):
    before, size = names(), os.stat(mnt + '/disk.raw').st_size
    try: write(file, data)
    except OSError as e: assert e.errno == err, (file, data[:40], e)
    else: sys.exit('not refused: %s %r' % (file, data[:40]))
    last = status()['last_error']
    assert last['errno'] == err and words in last['message'] and last['source'] == file, last
    assert abs(last['time'] - time.time()) < 60 and '\n' not in last['message']
    assert names() == sorted(before + list(also)) and os.stat(mnt + '/disk.raw').st_size == size

# Status: exactly these keys.
kinds = {'mode': str, 'writable': bool, 'image': str, 'format': str, 'mountpoint': str,
         'virtual_size': int, 'uptime': int, 'dirty_bytes': int, 'unflushed_bytes': int,
         'cache': {'hits': int, 'misses': int},
         'requests': {k: int for k in ('reads', 'read_bytes', 'writes', 'written_bytes', 'flushes')},
         'job': type(None),
         'last_error': {'errno': int, 'source': str, 'message': str, 'time': int}}
def check(value, kind, where):
    if isinstance(kind, dict):
        assert list(value) == list(kind), (where, list(value))
        for k in kind: check(value[k], kind[k], k)
    else: assert type(value) is kind, (where, value)
s = status()
check(s, kinds, 'status')
assert s['mode'] == 'rw' and s['writable'] and s['format'] == 'qcow2'
assert s['image'] == os.path.realpath(image) and s['mountpoint'] == os.path.realpath(mnt)
assert s['virtual_size'] == 64 << 20

# Refusals: one sentence, nothing changed.
E = errno
for data, words in ((b'destroy five\n', 'none of create'), (b'create\n', 'missing'),
                    (b'create   \n', 'missing'), (b'rename five\n', 'missing'),
                    (b'create "a\n', 'quote'), (b'create "a"b\n', 'quoted'),
                    (b'create "a" b\n', 'too much'), (b'create ""\n', 'missing'),
                    (b'create a\0b\n', 'not text'), (b'\0' * 100 + b'\n', 'not text'),
                    (b'create \xff\xfe\n', 'not text'), (b'create a\x1bb\n', 'control'),
                    (os.urandom(3000).replace(b'\n', b'\0') + b'\n', 'not text'),
                    (b'create ' + b'x' * 5000 + b'\n', 'longer'), (b'x' * 300000, 'longer')):
    refused(E.EINVAL, 'snapshot', data, words)
refused(E.ENOENT, 'snapshot', b'delete nothing\n', 'no snapshot')
refused(E.ENOENT, 'snapshot', b'apply nothing\n', 'no snapshot')
refused(E.ENOENT, 'snapshot', b'rename nothing more\n', 'no snapshot')
refused(E.EEXIST, 'snapshot', b'create five\n', 'already')
refused(E.EEXIST, 'snapshot', b'rename five 2\n', 'already')
for data, words in ((b'big\n', 'size'), (b'-1\n', ''), (b'0\n', 'positive'), (b'1G extra\n', 'size'),
                    (b'32M\n', '--shrink'), (b'-1M\n', '--shrink'), (b'99999999E\n', 'range'),
                    (b'--shrink\n', ''), (b'--grow 1G\n', '')):
    refused(E.EINVAL, 'resize', data, words)
for file in ('status', 'events'):
    try: os.open(ctl + file, os.O_WRONLY); sys.exit(file + ' opens for writing')
    except OSError as e: assert e.errno == E.EACCES, e

# Lines in order until the first that fails; the same bytes written once more go on there.
fd = os.open(ctl + 'snapshot', os.O_WRONLY)
data = b'create p\n\ncreate q\ndelete nothing\ncreate r\n'
for i in range(2):
    try: os.write(fd, data); sys.exit('not refused')
    except OSError as e: assert e.errno == E.ENOENT, e
assert 'q' in names() and 'r' not in names()
# What else comes behind it fails likewise: a shell's printf writes each line by itself, and "apply"
# must not go on where the "create" before it failed.
for other in (b'create r\n', b'create', b'\n'):
    try: os.write(fd, other); sys.exit('not refused: %r' % other)
    except OSError as e: assert e.errno == E.ENOENT, e
os.close(fd)
assert 'r' not in names() and 'nothing' in status()['last_error']['message']
write('snapshot', b'delete p\ndelete q\n')
# A line in pieces; what follows a line that was refused in the middle belongs to it.
fd = os.open(ctl + 'snapshot', os.O_WRONLY)
for piece in (b'cre', b'ate pi', b'eces'): os.write(fd, piece)
assert 'pieces' not in names()
os.write(fd, b'\n')
assert 'pieces' in names()
for i in range(3):
    try: os.write(fd, b'y' * 2000)
    except OSError as e: assert i == 2 and e.errno == E.EINVAL, (i, e)
try: os.write(fd, b'create tail\n'); sys.exit('a tail is not refused')
except OSError as e: assert e.errno == E.EINVAL, e
os.close(fd)
assert 'tail' not in names()
write('snapshot', b'delete pieces\n')
# Not EOPNOTSUPP: posix_fallocate would write zeroes then.
fd = os.open(ctl + 'snapshot', os.O_WRONLY)
try: os.posix_fallocate(fd, 0, 10); sys.exit('fallocate')
except OSError as e: assert e.errno == E.ENODEV, e
os.close(fd)
# A name that no folder can have.
refused(E.ENAMETOOLONG, 'snapshot', b'create ' + b'x' * 256 + b'\n', '255')
refused(E.ENAMETOOLONG, 'snapshot', b'rename five ' + b'x' * 256 + b'\n', '255')
# The last line ends with the file: close(2) says how it went.
fd = os.open(ctl + 'snapshot', os.O_WRONLY)
os.write(fd, b'delete nothing')
try: os.close(fd); sys.exit('close is content')
except OSError as e: assert e.errno == E.ENOENT, e
# A child that ends does not end its parent's line.
fd = os.open(ctl + 'snapshot', os.O_RDWR)
os.write(fd, b'create ch')
if os.fork() == 0: os._exit(0)
os.wait()
os.write(fd, b'ild\n')
assert 'child' in names()
# What is read after a write is new, from there as well as from the start.
assert b'child' in os.read(fd, 65536)
assert os.read(fd, 65536) == b''
os.write(fd, b'delete child\n')
assert b'child' not in os.read(fd, 65536)
os.lseek(fd, 0, 0)
whole = os.read(fd, 65536)
assert whole.startswith(b'Snapshot list:')
os.lseek(fd, 0, 0)
assert b''.join(iter(lambda: os.read(fd, 7), b'')) == whole
assert os.pread(fd, 5, 3) == whole[3:8]
os.close(fd)
assert open(ctl + 'snapshot').read().encode() == whole

# Buffered writers see one failure.
try:
    with open(ctl + 'snapshot', 'w') as f: f.write('create once\ndelete nothing\n')
    sys.exit('not refused')
except OSError as e: assert e.errno == E.ENOENT, e
write('snapshot', b'delete once\n')

# Many writers, and one file shared by several: every command is carried out once, whole.
def make(i):
    for j in range(3): write('snapshot', b'create t%d-%d\n' % (i, j))
threads = [threading.Thread(target=make, args=(i,)) for i in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
assert sum(n.startswith('t') for n in names()) == 24, names()
fd = os.open(ctl + 'snapshot', os.O_WRONLY | os.O_APPEND)
def drop(i):
    for j in range(3): assert os.write(fd, b'delete t%d-%d\n' % (i, j))
threads = [threading.Thread(target=drop, args=(i,)) for i in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
os.close(fd)
assert not [n for n in names() if n.startswith('t')], names()

# By ID; a name goes before an ID where something is deleted.
write('snapshot', b'create 77\n')
listed = open(ctl + 'snapshot').read().splitlines()[2:]
by_name = {l[10:].split(' ' * 4)[0].strip(): l.split()[0] for l in listed}
write('snapshot', b'rename %s seven\n' % by_name['77'].encode())
assert 'seven' in names()
write('snapshot', b'delete %s\n' % by_name['77'].encode())
assert 'seven' not in names()

# Resize.
def size(): return os.stat(mnt + '/disk.raw').st_size
write('resize', b'80M\n'); assert size() == 80 << 20 and int(open(ctl + 'resize').read()) == 80 << 20
write('resize', b'+1M'); assert size() == 81 << 20
write('resize', b'--shrink 70M\n'); assert size() == 70 << 20
write('resize', b'--shrink -1M\n'); assert size() == 69 << 20
fd = os.open(mnt + '/disk.raw', os.O_RDWR)
refused(E.EBUSY, 'resize', b'--shrink 65M\n', 'open for writing')
write('resize', b'72M\n')
assert os.fstat(fd).st_size == 72 << 20
os.pwrite(fd, b'end', (72 << 20) - 3)
os.close(fd)

# Apply: refused while somebody may write; the kernel forgets what it had.
f = open(mnt + '/disk.raw', 'r+b')
f.write(b'before'); f.flush(); os.fsync(f.fileno())
write('snapshot', b'create base\n')
f.seek(0); f.write(b'after!')
refused(E.EBUSY, 'snapshot', b'apply base\n', 'open for writing')
f.close()
r = open(mnt + '/disk.raw', 'rb')
assert r.read(6) == b'after!'
write('resize', b'90M\n')
write('snapshot', b'apply base\n')
assert os.pread(r.fileno(), 6, 0) == b'before'
r.close()
assert open(mnt + '/disk.raw', 'rb').read(6) == b'before' and size() == 72 << 20
# Open for reading, a snapshot's file keeps it.
s = open(mnt + '/snapshots/base/disk.raw', 'rb')
refused(E.EBUSY, 'snapshot', b'delete base\n', 'open')
s.close()
write('snapshot', b'delete base\n')
PY

# Texts show what programs wrote, also what is not synced, as of one moment.
python3 - m <<'PY'
import json, os, sys
fd = os.open(sys.argv[1] + '/disk.raw', os.O_RDWR)
for i in range(300): os.pwrite(fd, b'x' * 4096, (30 << 20) + i * 131072)
check = json.load(open(sys.argv[1] + '/check.json'))
assert check['check-errors'] == 0 and 'leaks' not in check and 'corruptions' not in check, check
data = [(e['start'], e['length']) for e in json.load(open(sys.argv[1] + '/map.json')) if e['data']]
for i in range(300):
    assert any(s <= (30 << 20) + i * 131072 < s + n for s, n in data), (i, data[:20])
again = json.load(open(sys.argv[1] + '/check.json'))['allocated-clusters']
os.pwrite(fd, b'y', 1 << 20)
assert json.load(open(sys.argv[1] + '/check.json'))['allocated-clusters'] > again
PY

# The table that is shown is the one that is there.
[ -z "$(ls m/partitions)" ] || fail "partitions of an empty disk"
sgdisk -n 1:2048:+8M -n 2:0:+8M m/disk.raw >/dev/null
[ "$(ls m/partitions | tr '\n' ' ')" = "1.raw 2.raw " ] || fail "new table: $(ls m/partitions)"
echo hello | dd of=m/partitions/2.raw conv=notrunc,fsync status=none
cmp -n 6 -i $((9 << 20)):0 m/disk.raw <(echo hello) || fail "partition 2 is elsewhere"
exec 5<m/partitions/2.raw
sgdisk -d 2 -n 2:0:+4M -n 3:0:+4M m/disk.raw >/dev/null
[ "$(stat -c %s m/partitions/2.raw)" -eq $((8 << 20)) ] || fail "a partition that is open moved"
exec 5<&-
sleep 0.1
[ "$(ls m/partitions | tr '\n' ' ')" = "1.raw 2.raw 3.raw " ] || fail "third: $(ls m/partitions)"
[ "$(stat -c %s m/partitions/2.raw)" -eq $((4 << 20)) ] || fail "size of the new partition 2"
python3 -c 'import json; print(len(json.load(open("m/info.json"))["partitions"]))' >count
[ "$(cat count)" -eq 3 ] || fail "info.json has $(cat count) partitions"

unmount m
qemu-img check -q a.qcow2 || fail "check"

# Commands under a signal: each is whole or refused, and the mount ends.
mount_imgfs -o rw a.qcow2 m
python3 - m "$(imgfs_pids "$(realpath m)")" <<'PY'
import os, signal, sys, threading, time
mnt, pid = sys.argv[1], int(sys.argv[2])
fd = os.open(mnt + '/disk.raw', os.O_RDWR)
done = []
def commands(i):
    ctl = os.open(mnt + '/control/snapshot', os.O_WRONLY)
    for j in range(1000):
        try: os.pwrite(fd, b'z' * 65536, (i * 8 << 20) + j * 65536 % (4 << 20)); os.write(ctl, b'create k%d-%d\n' % (i, j))
        except OSError: return
        done.append('k%d-%d' % (i, j))
threads = [threading.Thread(target=commands, args=(i,)) for i in range(4)]
[t.start() for t in threads]
time.sleep(0.7)
os.kill(pid, signal.SIGTERM)
for i in range(200):
    try: os.kill(pid, 0)
    except ProcessLookupError: break
    time.sleep(0.05)
else: sys.exit('imgfs does not end')
[t.join() for t in threads]
open('done', 'w').write('\n'.join(sorted(done)) + '\n')
PY
qemu-img check -q a.qcow2 || fail "check after a signal"
qemu-img snapshot -l a.qcow2 | sed -n 's/^[0-9][0-9]* *\(k[^ ]*\) .*/\1/p' | sort >had
[ -z "$(comm -23 done had)" ] || fail "snapshots are lost: $(comm -23 done had)"

# The host is full: said so, nothing is done by halves, and it goes on when there is room.
if [ "$(id -u)" -eq 0 ]; then
	mkdir small
	mount -t tmpfs -o size=3M none small
	cleanup_add umount -l "$SCRATCH/small"
	qemu-img create -q -f qcow2 small/b.qcow2 64M
	mount_imgfs -o rw small/b.qcow2 m
	random_data 5 2000000 | dd of=m/disk.raw bs=64k conv=notrunc,fsync status=none
	head -c 3M /dev/zero >small/fill 2>/dev/null || true
	expect_status 1 mkdir m/snapshots/no
	expect_output err "No space left on device"
	expect_status 1 bash -c 'echo create no >m/control/snapshot'
	expect_output err "No space left on device"
	[ -z "$(ls m/snapshots)" ] || fail "half a snapshot"
	rm small/fill
	mkdir m/snapshots/yes
	cmp -n 2000000 m/snapshots/yes/disk.raw <(random_data 5 2000000) || fail "the snapshot's disk"
	unmount m
	qemu-img check -q small/b.qcow2 || fail "check of what was on a full host"
fi
