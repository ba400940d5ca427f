"""make bench: pause and wall time of a census as ratios to the plain copy of the same bytes
(copy_floor), alternately in one run; medians. Prints, never judges.

usage: run.py [MIB ...]     default: 256 1024"""
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.environ.get("BUILD", os.path.join(HERE, "..", "..", "build"))
PYTHON = os.environ.get("BENCH_PYTHON", "/usr/bin/python3")
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "7"))


def floor(pid):
    out = subprocess.run([BUILD + "/bench/copy_floor", str(pid)], capture_output=True, text=True, check=True)
    size, copy, wall = (int(x) for x in out.stdout.split())
    return size, copy / 1e6, wall / 1e6


def census(pid, *options):
    with tempfile.NamedTemporaryFile() as out:
        begun = time.monotonic()
        p = subprocess.Popen([BUILD + "/heapcensus", str(pid), "--json", "--max-pause", "60000", *options], stdout=out)
        _, status, usage = os.wait4(p.pid, 0)
        wall = (time.monotonic() - begun) * 1e3
        doc = json.load(open(out.name))
    return doc["source"]["paused_ns"] / 1e6, wall, usage.ru_maxrss / 1024


def measure(kind, mib):
    target = subprocess.Popen([PYTHON, HERE + "/objects.py", kind, str(mib)], stdout=subprocess.PIPE, text=True)
    try:
        target.stdout.readline()
        ways = {"copy": ("--read", "copy"), "no types": ("--read", "copy", "--no-types"),
                "window, no types": ("--read", "window", "--no-types")}
        rows = {w: [] for w in ways}
        floors = []
        for _ in range(ROUNDS):
            for way, options in ways.items():
                f = floor(target.pid)
                floors.append(f)
                pause, wall, peak = census(target.pid, *options)
                rows[way].append((pause, wall, peak, pause / f[1], wall / f[1], wall / f[2]))
        size = floors[0][0] / 2**20
        print("%s %.0f MiB: plain copy %.0f ms (with finding and faulting in %.0f ms)" % (
            kind, size, statistics.median(f[1] for f in floors), statistics.median(f[2] for f in floors)))
        for way, r in rows.items():
            m = [statistics.median(c) for c in zip(*r)]
            print("  %-16s pause %6.1f ms = %.2f x copy; wall %6.1f ms = %.2f x copy, %.2f x the copy's whole run; peak %.0f MiB"
                  % (way, m[0], m[3], m[1], m[4], m[5], m[2]), flush=True)
    finally:
        target.kill()
        target.wait()


def main():
    sizes = [float(x) for x in sys.argv[1:]] or [256, 1024]
    kinds = os.environ.get("BENCH_KINDS", "objects malloc arrays").split()
    for kind in kinds:
        for mib in sizes:
            measure(kind, mib)


main()
