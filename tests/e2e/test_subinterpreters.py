"""Subinterpreters: those with a heap of their own are all counted, as their own sys._debugmallocstats() counts them;
legacy ones share the main heap.

To compare exactly, each interpreter runs in a thread of its own that prints its table into a file of its own and then
sleeps for ever: nothing is freed after it was counted. The main interpreter counts itself last."""
import os
import re
import tempfile

from lib import main, snapshot, start_python, survived
from lib_b import pyenv_pythons, root_pythons

NUMBER = 2

CODE = """
import gc, os, sys, threading, time
try:
    import _interpreters as api
    new = lambda kind: api.create(kind)
    run = lambda i, code: api.exec(i, code)
except ImportError:
    import _xxsubinterpreters as api
    new = lambda kind: api.create(isolated=kind == 'isolated')
    run = api.run_string
kind, number = %(kind)r, %(number)d
files = [os.open('%(folder)s/' + str(k), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644) for k in range(number + 1)]
out, into = os.pipe()
gc.collect()
gc.disable()
ids = [new(kind) for _ in range(number)]
body = '''
import gc, os, sys, time
gc.disable()
keep = [str(i) * 2 for i in range(50000)]
del keep[::3]
if {file} >= 0:
    os.dup2({file}, 2)
    sys._debugmallocstats()
os.write({into}, b'x')
while True:
    time.sleep(1000)
'''
for n, i in enumerate(ids):
    code = body.format(file=files[n + 1] if kind == 'isolated' else -1, into=into)
    threading.Thread(target=run, args=(i, code), daemon=True).start()
    os.read(out, 1)
    time.sleep(0.2)
time.sleep(0.3)
saved = os.dup(2)
os.dup2(files[0], 2)
sys._debugmallocstats()
os.dup2(saved, 2)
os.write(1, b'READY\\n')
while True:
    time.sleep(1000)
"""


def own_tables(folder):
    """The sum of the size-class tables: {size: [pools, used, free]}, and how many there were."""
    total, tables = {}, 0
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name)) as f:
            rows = [[int(n) for n in m.groups()] for m in (re.match(r"\s*\d+\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s*$", x) for x in f) if m]
        tables += bool(rows)
        for size, *numbers in rows:
            total[size] = [a + b for a, b in zip(total.get(size, [0, 0, 0]), numbers)]
    return total, tables


def check(tap, name, kind, exe, prefix, root):
    with tempfile.TemporaryDirectory(dir=(root or "") + "/tmp") as folder:
        inside = folder[len(root or ""):]
        code = CODE % {"kind": kind, "number": NUMBER, "folder": inside}
        with start_python(code, exe=exe, prefix=prefix) as target:
            total, tables = own_tables(folder)
            heaps = NUMBER + 1 if kind == "isolated" else 1
            tap.ok(tables == heaps, f"{name}: {heaps} tables to compare with", tables)
            for way in (("--read", "copy"), ("--read", "window"), ("--no-pause",)):
                snap = snapshot(target.pid, *way)
                found = snap.one("pymalloc")
                got = {c["size"]: [c["pools"], c["blocks_used"], c["blocks_free"]] for c in found["size_classes"]}
                wrong = {s: (got.get(s), total.get(s)) for s in set(got) | set(total) if got.get(s) != total.get(s)}
                what = f"{name}, {way[-1].lstrip('-')}"
                tap.ok(not wrong, f"{what}: every size class is the sum of what they count themselves", wrong)
                tap.ok(found["heaps"] == heaps, f"{what}: {heaps} heaps", found["heaps"])
                tap.ok(snap.header["python"]["interpreters"] == NUMBER + 1, f"{what}: {NUMBER + 1} interpreters")
            tap.ok(survived(target.pid), f"{name}: it runs on")


def test_subinterpreters(tap):
    found = 0
    for name, exe, prefix, root in pythons():
        for kind in ("isolated", "legacy"):
            check(tap, f"{name} {kind}", kind, exe, prefix, root)
        found += 1
    if not found:
        tap.skip("subinterpreters", "no interpreters of pyenv on this machine")


def pythons():
    """(name, executable, command in front of it, root folder) of every Python that has own-GIL subinterpreters."""
    series = ("3.12", "3.13", "3.14", "3.15")
    for version, exe in pyenv_pythons(*series):
        yield f"pyenv {version}", exe, [], None
    for suite, minor, folder in root_pythons(*series):
        yield f"{suite} {minor}", f"/usr/bin/python{minor}", ["chroot", folder], folder


main(test_subinterpreters)
