"""make bench: the census of types as ratios to the plain copy of the same bytes (copy_floor), and beside counters that
run inside the process, alternately in one run; medians. Prints, never judges.

usage: types_bench.py [CASE...]     default: million sessions:1024 inside
  million         `types PID` of a million objects
  sessions:MIB    instances with a dict, a list and strings, about 10 million blocks a GiB: time, pause and memory
  inside[:N]      objgraph and guppy in the process itself, on N sessions (200000), beside heapcensus"""
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
PER_MILLION = 200000  # sessions: five objects each, with the key and the number that they do not share
KINDS = ("objects", "buffers", "inferred", "dead", "runtime", "unowned")


class Target:
    """objects.py with sessions: `size` is MIB or a number with an x."""

    def __init__(self, size):
        self.process = subprocess.Popen([PYTHON, "-B", HERE + "/objects.py", "sessions", size, "0", "ask"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        self.pid = self.process.pid

    def __enter__(self):
        if not self.process.stdout.readline().startswith("READY"):
            self.__exit__()
            raise SystemExit("objects.py did not start")
        return self

    def __exit__(self, *args):
        self.process.kill()
        self.process.wait()

    def ask(self, counter):
        """What one of counters.py says: seconds, objects, MiB; or a reason."""
        self.process.stdin.write(counter + "\n")
        self.process.stdin.flush()
        words = self.process.stdout.readline().split(None, 1)
        return words[1].strip() if words[0] == "NONE" else [float(w) for w in " ".join(words).split()]


def floor(pid):
    """MiB, and the milliseconds of copying alone."""
    out = subprocess.run([BUILD + "/bench/copy_floor", str(pid)], capture_output=True, text=True, check=True)
    size, copy, _ = (int(x) for x in out.stdout.split())
    return size / 2**20, copy / 1e6


class Census:
    """One `types PID`: milliseconds of the run and of the pause, blocks and objects, peak and copied bytes."""

    def __init__(self, pid):
        with tempfile.NamedTemporaryFile() as out:
            begun = time.monotonic()
            p = subprocess.Popen([BUILD + "/heapcensus", "types", str(pid), "--json", "--top", "20", "--read", "copy",
                                  "--max-pause", "60000"], stdout=out)
            _, status, usage = os.wait4(p.pid, 0)
            self.wall = (time.monotonic() - begun) * 1e3
            if status:
                raise SystemExit("heapcensus types: exit %d" % os.waitstatus_to_exitcode(status))
            doc = json.load(open(out.name))
        self.pause = doc["source"]["paused_ns"] / 1e6
        self.copied, self.peak = doc["source"]["read_bytes"], usage.ru_maxrss * 1024
        self.objects = doc["objects"]["objects"]
        self.blocks = sum(doc["objects"][k] for k in KINDS)


def rounds(pid):
    """Pairs of a plain copy and a census, alternately."""
    return [(floor(pid), Census(pid)) for _ in range(ROUNDS)]


def median(values):
    return statistics.median(values)


def measure(target):
    pairs = rounds(target.pid)
    (size, _), last = pairs[-1]
    copy, pause, wall = (median(v) for v in zip(*((f[1], c.pause, c.wall) for f, c in pairs)))
    print("  %.0f MiB, %.2f million blocks, %.2f million objects: plain copy %.0f ms"
          % (size, last.blocks / 1e6, last.objects / 1e6, copy))
    print("  pause %.0f ms = %.2f x copy (limit 1.2); run %.0f ms = %.2f x copy (limit 4), %.0f ms a million blocks"
          % (pause, median(c.pause / f[1] for f, c in pairs), wall, median(c.wall / f[1] for f, c in pairs),
             wall / (last.blocks / 1e6)))
    peak = median(c.peak for _, c in pairs)
    print("  peak %.0f MiB, of that copied %.0f MiB: %.1f bytes a block beyond (limit 24)"
          % (peak / 2**20, last.copied / 2**20, (peak - last.copied) / last.blocks), flush=True)


def million(_):
    with Target("%dx" % PER_MILLION) as target:
        print("types of a million objects (limit 1 s)")
        measure(target)


def sessions(mib):
    """The process and a copy of it beside each other, and some room."""
    with open("/proc/meminfo") as file:
        available = next(int(line.split()[1]) for line in file if line.startswith("MemAvailable")) / 1024
    mib = float(mib or 1024)
    print("types of sessions, %.0f MiB" % mib)
    if available < 2.3 * mib + 512:
        print("  not run: it needs %.0f MiB of memory, %.0f are available" % (2.3 * mib + 512, available), flush=True)
        return
    with Target("%.0f" % mib) as target:
        measure(target)


def inside(number):
    with Target("%dx" % int(number or PER_MILLION)) as target:
        print("types beside counting inside the process, %d sessions" % int(number or PER_MILLION))
        for counter in ("objgraph", "guppy"):
            beside(target, counter)


def beside(target, counter):
    rows = []
    for _ in range(ROUNDS):
        told = target.ask(counter)
        if isinstance(told, str):
            print("  %-9s not run: %s" % (counter, told), flush=True)
            return
        rows.append((told, Census(target.pid)))
    ours = [c for _, c in rows]
    print("  %-9s holds the process for %6.0f ms, sees %9d objects, its peak grows by %.0f MiB"
          % (counter, median(t[0] for t, _ in rows) * 1e3, median(t[1] for t, _ in rows), max(t[2] for t, _ in rows)))
    print("  %-9s holds it for          %6.0f ms, sees %9d objects; %.1f x shorter; whole run %.0f ms" % (
        "types", median(c.pause for c in ours), median(c.objects for c in ours),
        median(t[0] * 1e3 / c.pause for t, c in rows), median(c.wall for c in ours)), flush=True)


def main():
    cases = {"million": million, "sessions": sessions, "inside": inside}
    for word in sys.argv[1:] or ["million", "sessions:1024", "inside"]:
        case, _, argument = word.partition(":")
        if case not in cases:
            raise SystemExit(__doc__)
        cases[case](argument)


main()
