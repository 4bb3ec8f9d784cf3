# SPDX-License-Identifier: LGPL-2.1-or-later
"""json_eq.py A B [KEY...]: exit 0 when both files hold the same JSON.

Order of keys does not count, order in lists does. With KEYs only those of the
top object (or of each object of the top list) are compared; "-KEY" leaves one
out, at any depth. The first difference is printed with its path.
"""
import json
import sys


def load(name):
    with open(name, "rb") as f:
        return json.loads(f.read().decode("utf-8"))


def drop(value, keys):
    if isinstance(value, dict):
        return {k: drop(v, keys) for k, v in value.items() if k not in keys}
    if isinstance(value, list):
        return [drop(v, keys) for v in value]
    return value


def pick(value, keys):
    if isinstance(value, list):
        return [pick(v, keys) for v in value]
    return {k: value.get(k) for k in keys}


def difference(a, b, path="$"):
    if type(a) is not type(b):
        return f"{path}: {a!r} and {b!r}"
    if isinstance(a, dict):
        for k in sorted(set(a) | set(b)):
            if k not in a or k not in b:
                return f"{path}.{k}: only in the {'first' if k in a else 'second'}"
            d = difference(a[k], b[k], f"{path}.{k}")
            if d:
                return d
    elif isinstance(a, list):
        for i, (x, y) in enumerate(zip(a, b)):
            d = difference(x, y, f"{path}[{i}]")
            if d:
                return d
        if len(a) != len(b):
            return f"{path}: {len(a)} and {len(b)} entries"
    elif a != b:
        return f"{path}: {a!r} and {b!r}"
    return None


def main():
    a, b = load(sys.argv[1]), load(sys.argv[2])
    without = {k[1:] for k in sys.argv[3:] if k.startswith("-")}
    only = [k for k in sys.argv[3:] if not k.startswith("-")]
    a, b = drop(a, without), drop(b, without)
    if only:
        a, b = pick(a, only), pick(b, only)
    d = difference(a, b)
    if d:
        print(f"{sys.argv[1]} {sys.argv[2]}: {d}", file=sys.stderr)
        return 1
    return 0


sys.exit(main())
