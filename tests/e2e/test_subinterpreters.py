"""Subinterpreters: those with a heap of their own are all counted, as their own sys._debugmallocstats() counts them;
legacy ones share the main heap.

To compare exactly, every interpreter calls sys._debugmallocstats() in a thread of its own with stderr a full pipe: each
then waits in the print, its blocks as they were when they were counted, and all stay so through the census.
The lines come interleaved; only whole rows of the size-class table are read, and summed."""
import fcntl
import os
import re
import select
import time

from lib import main, start_python, wait_for
from lib_b import WAYS, Census, held, pyenv_pythons, root_pythons, tasks, thread_status

OWN, OBJECTS = 3, 50000

# Run by each version.
CODE = """
import sys, threading, time
try:
    import _interpreters as api
    new = lambda kind: api.create(kind)
except ImportError:
    import _xxsubinterpreters as api
    new = lambda kind: api.create(isolated=kind == 'isolated')
number, kind, objects = %d, %r, %d
ids = [new(kind) for _ in range(number)]
for i in ids:
    api.run_string(i, 'keep = [[n] for n in range(%%d)]; import sys' %% objects)
threads = [threading.Thread(target=api.run_string, args=(i, 'sys._debugmallocstats()'))
           for i in ids if kind == 'isolated']
for thread in threads:
    thread.start()
print('READY', flush=True)
sys.stdin.readline()
sys._debugmallocstats()
for thread in threads:
    thread.join()
print('DONE', flush=True)
time.sleep(600)
"""


def full_pipe():
    """A pipe that takes no byte more: (read end, write end)."""
    out, into = os.pipe()
    fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(into, False)
    try:
        while True:
            os.write(into, b"\n" * 4096)
    except BlockingIOError:
        os.set_blocking(into, True)
    return out, into


def activity(pid):
    """Changes whenever one of its threads ran."""
    status = [(t, thread_status(pid, t)) for t in tasks(pid)]
    return [(t, s.get("State"), s.get("voluntary_ctxt_switches"), s.get("nonvoluntary_ctxt_switches"))
            for t, s in status]


def wait_still(pid):
    """Until no thread ran for a while: all wait in their prints."""
    def still():
        before = activity(pid)
        time.sleep(0.6)
        return before == activity(pid) and all(a[1][:1] == "S" for a in before)
    return wait_for(still, 20)


def drain(target, out):
    """What the interpreters print once they may, until the main one says that all have."""
    said, done, end = [], False, time.monotonic() + 20
    os.set_blocking(out, False)
    while time.monotonic() < end:
        readable = select.select([out] + ([] if done else [target.popen.stdout]), [], [], 0 if done else 1)[0]
        if out in readable:
            said.append(os.read(out, 65536))
        elif readable:
            done = target.line() == "DONE"
        elif done:
            break
    return b"".join(said).decode(errors="replace")


def rows_sum(text):
    """(blocks in use, tables) of all the size-class tables in it."""
    rows = re.findall(r"^ *(\d+) +(\d+) +(\d+) +(\d+) +(\d+)$", text, re.M)
    return sum(int(r[3]) for r in rows), text.count("Small block threshold")


def check_counts(tap, name, census, kind, truth):
    used, tables = truth
    heaps = 1 + OWN if kind == "isolated" else 1
    heap, python = census.doc["pymalloc"], census.doc["python"]
    tap.ok(python["interpreters"] == 1 + OWN, f"{name}: {1 + OWN} interpreters", python)
    tap.ok(heap["heaps"] == heaps, f"{name}: heaps", f"{heap['heaps']}, not {heaps}")
    tap.ok(tables == heaps and heap["blocks_used"] == used, f"{name}: blocks_used is what they count themselves",
           f"{heap['blocks_used']}, they say {used} in {tables} tables")
    tap.ok(heap["blocks_used"] > OWN * OBJECTS, f"{name}: their objects are among them", heap["blocks_used"])


def check(tap, name, kind, **options):
    """One interpreter with OWN subinterpreters of a kind, by every way."""
    out, into = full_pipe()
    code = CODE % (OWN, kind, OBJECTS)
    try:
        with start_python(code, stderr=into, **options) as target:
            others = wait_still(target.pid)  # the main heap changes until their threads are there
            target.send("count")
            tap.ok(others and wait_still(target.pid), f"{name}: all wait in their prints", activity(target.pid))
            done = {way: Census(target.pid, *words) for way, words in WAYS.items()}
            truth = rows_sum(drain(target, out))
            for way, census in done.items():
                what = f"{name}, {way}"
                tap.ok(census.code == 0 and census.adds_up(), f"{what}: a whole census", census)
                if census.doc:
                    check_counts(tap, what, census, kind, truth)
            tap.ok(not held(target.pid), f"{name}: the target is free")
    finally:
        os.close(out)
        os.close(into)


def test_pyenv(tap):
    for series in "3.12", "3.13":
        found = pyenv_pythons(series)
        if not found:
            tap.skip(f"pyenv's {series}", f"pyenv has no {series}")
        for version, exe in found:
            for kind in "isolated", "legacy":
                check(tap, f"pyenv {version} {kind}", kind, exe=exe)


def test_roots(tap):
    found = root_pythons("3.13", "3.14", "3.15")
    if not found:
        tap.skip("the suites' 3.13 to 3.15", "no root of a Debian suite is there")
        return
    if os.geteuid():
        tap.skip("the suites' 3.13 to 3.15", "chroot needs root")
        return
    for suite, series, folder in found:
        for kind in "isolated", "legacy":
            check(tap, f"{suite} {series} {kind}", kind, exe=f"/usr/bin/python{series}", prefix=("chroot", folder))


main(test_pyenv, test_roots)
