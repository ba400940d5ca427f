"""tracemalloc that was stopped, is off, or is at work: threads that allocate all the time, tables that grow and
shrink while they are read, tracebacks of 65,535 frames, a table that is larger than anything else. No crash, sums
that hold, and the target lives on."""
import json
import os
import tempfile

from lib import describe, heapcensus, main, read_snapshot, start_python, survived, two_lines, wait_for
from lib_b import WAYS, pyenv_pythons

THREADS = """
import threading, tracemalloc
tracemalloc.start(5)
kept = [[] for _ in range(4)]
def work(mine, n):
    while True:
        for i in range(2000):
            mine.append(bytes(i % 700))
        del mine[::3]
        if len(mine) > 20000:
            mine.clear()
for n in range(4):
    threading.Thread(target=work, args=(kept[n], n), daemon=True).start()
print('READY', flush=True)
threading.Event().wait()
"""
WAVES = """
import tracemalloc
tracemalloc.start()
print('READY', flush=True)
while True:
    kept = [object() for _ in range(60000)]
    del kept
"""
STARTS = """
import tracemalloc
print('READY', flush=True)
while True:
    tracemalloc.start(3)
    kept = [bytes(50) for _ in range(300)]
    tracemalloc.stop()
"""
STOPPED = """
import time, tracemalloc
tracemalloc.start(25)
kept = [bytes(100) for _ in range(1000)]
tracemalloc.stop()
print('READY', flush=True)
while True: time.sleep(1)
"""
DEEP = """
import sys, time, tracemalloc
sys.setrecursionlimit(200000)
kept = []
def down(steps):
    for _ in steps:
        return down(steps)
    kept.append(bytes(4321))
tracemalloc.start(65535)
down(iter((None,) * 70000))
print('READY', flush=True)
while True: time.sleep(1)
"""


def take(tap, name, pid, folder, *options):
    """A snapshot of a moving target: written whatever it was doing; its records, or None."""
    path = os.path.join(folder, "s.jsonl")
    done = heapcensus("snapshot", "-p", pid, "-q", "-f", "-o", path, *options)
    if not tap.ok(done.returncode in (0, 6), f"{name}: written", describe(done)):
        return None
    return read_snapshot(path, done)


def wrong_sums(shot):
    """What of the sums does not hold."""
    tracing, wrong = shot.one("tracing"), []
    sites = shot["site"]
    if tracing["traces"] != sum(s["count"] for s in sites) or tracing["trace_bytes"] != sum(s["bytes"] for s in sites):
        wrong.append("sites do not add up")
    wrong += [s for s in sites if (s["count"], s["bytes"]) != (sum(n for _, n in s["sizes"]), sum(z * n for z, n in s["sizes"]))]
    wrong += [t for t in shot["traceback"] if not t["frames"] or max(t["frames"]) >= len(shot["frame"])]
    wrong += [f for f in shot["frame"] if not f["file"]]
    if tracing["gone_traces"] + tracing["covered_blocks"] != tracing["traces"]:
        wrong.append("neither covered nor gone")
    return wrong


def moving(tap, what, code, times, paused):
    """Snapshots of a target that never rests; `paused` judges one that was read while it was stopped."""
    with start_python(code) as target, tempfile.TemporaryDirectory(prefix="heapcensus-test.") as folder:
        exact = 0
        for number in range(times):
            way = sorted(WAYS)[number % len(WAYS)]
            name = f"{what}, {way}, {number}"
            shot = take(tap, name, target.pid, folder, *WAYS[way])
            if shot is None or not shot["tracing"]:
                tap.ok(shot is not None and what == "start and stop", f"{name}: no tables", shot and shot["note"])
                continue
            wrong = wrong_sums(shot)
            tap.ok(not wrong, f"{name}: sums hold", wrong[:5])
            if way != "no-pause":
                tracing, complete = shot.one("tracing"), shot.header["complete"]
                same = tracing["trace_bytes"] == tracing["traced_bytes"]
                exact += same
                tap.ok(paused(tracing, complete, shot), f"{name}: as it was at that moment, or it says what is missing",
                       (tracing, shot["note"]))
        tap.say(f"{what}: the traces summed to the traced bytes in {exact} of {sum(sorted(WAYS)[n % 3] != 'no-pause' for n in range(times))}")
        tap.ok(wait_for(lambda: survived(target.pid)), f"{what}: lives on")
        return exact


def nearly(tracing, complete, shot):
    """A stopped target: at most the traces that its threads had in their hands are not counted yet, or not any more."""
    return abs(tracing["trace_bytes"] - tracing["traced_bytes"]) < 1 << 20 or not complete


def test_threads(tap):
    tap.ok(moving(tap, "threads that allocate", THREADS, 12, nearly) > 0, "threads: some moments were between two updates")


def test_waves(tap):
    tap.ok(moving(tap, "a table that grows and shrinks", WAVES, 12, nearly) > 0, "waves: some moments were between two updates")


def test_starts(tap):
    moving(tap, "start and stop", STARTS, 9, lambda tracing, complete, shot: True)


def test_stopped(tap):
    for what, code in (("stopped", STOPPED), ("never started", "import time\nprint('READY', flush=True)\ntime.sleep(1000)\n")):
        with start_python(code) as target, tempfile.TemporaryDirectory(prefix="heapcensus-test.") as folder:
            shot = take(tap, what, target.pid, folder)
            tap.ok(shot.done.returncode == 0 and not shot.header["python"]["tracemalloc"] and not shot["site"] and
                   not any(t["tracing"] for t in shot["tracing"]), f"{what}: a whole snapshot without sites", shot["tracing"])
            path = os.path.join(folder, "s.jsonl")
            for name in (str(target.pid), path):
                done = heapcensus("sites", name)
                said = done.stdout + done.stderr
                tap.ok("tracemalloc" in said and "PYTHONTRACEMALLOC" in said, f"{what}: says so, and how to start it", describe(done))
                tap.ok(done.returncode == 0 or two_lines(done.stderr), f"{what}: exit {done.returncode}", describe(done))
            done = heapcensus("sites", path, "--json")
            tap.ok(done.returncode != 0 or json.loads(done.stdout)["sites"] == [], f"{what}: --json has no sites", describe(done))
            done = heapcensus("diff", path, path, "--by", "line")
            tap.ok(done.returncode != 0 and two_lines(done.stderr), f"{what}: no comparison by line", describe(done))


def test_deep(tap):
    pythons = pyenv_pythons("3.12") or pyenv_pythons("3.11")
    if not pythons:
        return tap.skip("tracebacks of 65,535 frames", "no interpreters of pyenv on this machine")
    with start_python(DEEP, exe=pythons[0][1]) as target, tempfile.TemporaryDirectory(prefix="heapcensus-test.") as folder:
        shot = take(tap, "deep", target.pid, folder)
        deep = [s for s in shot["site"] if s["sizes"] == [[4321 + 33, 1]]]
        tracebacks = [shot["traceback"][s["traceback"]] for s in deep]
        tap.ok(shot.done.returncode == 0 and [(len(t["frames"]), t["total"]) for t in tracebacks] == [(65535, 65535)],
               "deep: a traceback of 65,535 frames", [(len(t["frames"]), t["total"]) for t in tracebacks])
        lines = {(shot["frame"][n]["file"], shot["frame"][n]["line"]) for t in tracebacks for n in t["frames"]}
        tap.ok(lines == {("<string>", 7), ("<string>", 8)}, "deep: its lines", lines)
        path = os.path.join(folder, "s.jsonl")
        done = heapcensus("sites", path, "--format=tracemalloc", "--by", "traceback", "--limit", "5")
        tap.ok(done.returncode == 0 and '  File "<string>", line 8' in done.stdout, "deep: the view", describe(done)[:600])
        done = heapcensus("sites", path, "--cumulative", "--by", "line", "--json", "--top", "0")
        rows = json.loads(done.stdout)["sites"] if done.returncode == 0 else []
        here = [r for r in rows if (r["traceback"][0]["file"], r["traceback"][0]["line"]) == ("<string>", 7)]
        tap.ok(len(here) == 1 and here[0]["count"] >= 65534, "deep: cumulative counts a line as often as it is there, as tracemalloc",
               here or done.stderr)


if __name__ == "__main__":
    main(test_stopped, test_deep, test_threads, test_waves, test_starts)
