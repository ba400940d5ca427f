"""Starts tracemalloc_target.py on an interpreter of the matrix, reads its truth, and takes its census."""
import array
import json
import marshal
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter

from builds import BUILD, TOOL

HERE = os.path.dirname(os.path.abspath(__file__))
SCRIPTS = ("tracemalloc_target.py", "tracemalloc_judge.py")
MINE = os.path.splitext(os.path.basename(sys.argv[0]))[0]


def name_of(name):
    """As a snapshot has it: a byte that is no UTF-8 as the four characters \\xHH."""
    return "".join("\\x%02x" % (ord(c) & 0xff) if "\ud800" <= c <= "\udfff" else c for c in name)


def text_of(line):
    """As text for people has it: control characters in the same way."""
    return "".join("\\x%02x" % ord(c) if ord(c) < 32 or ord(c) == 127 else c for c in name_of(line))


class Truth:
    """What the target told: traces (Counter of (domain, size, frames, total)) and the figures."""

    def __init__(self, folder, number, names=name_of):
        with open("%s/traces.%d" % (folder, number), "rb") as f:
            raw = marshal.load(f)
        seen = {}  # the tuples of one traceback are one object: its names are looked at once
        self.traces = Counter()
        for domain, size, frames, *total in raw:
            known = seen.get(id(frames))
            if known is None:
                known = seen[id(frames)] = tuple((names(file), line) for file, line in frames)
            self.traces[domain, size, known, total[0] if total else 0] += 1
        with open("%s/facts.%d" % (folder, number), "rb") as f:
            self.traced, self.peak, self.overhead, self.limit, self.tracing = array.array("Q", f.read())


class Target:
    """The target, started, with what it told first; next() lets it grow and tell again."""

    def __init__(self, build, frames, traces, setting=""):
        self.build, self.frames = build, frames
        folder = "tracemalloc." + MINE
        self.folder = os.path.join(build.root, "tmp", folder) if build.root else os.path.join(BUILD, folder)
        self.inside = "/tmp/" + folder if build.root else self.folder
        os.makedirs(self.folder, exist_ok=True)
        for script in SCRIPTS:
            shutil.copy(os.path.join(HERE, script), self.folder)
        env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        self.env = dict(env, **build.env, LC_ALL="C.UTF-8")
        traced = dict(self.env, PYTHONTRACEMALLOC=str(frames), **({"PYTHONMALLOC": setting} if setting else {}))
        self.process = subprocess.Popen(self.command("tracemalloc_target.py", str(traces)), stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, env=traced, cwd=self.folder)
        self.pid = self.process.pid

    def command(self, script, *args):
        words = self.build.command + ["-B", self.inside + "/" + script, self.inside, *args]
        return ["chroot", self.build.root] + words if self.build.root else words

    def __enter__(self):
        self.wait()
        return self

    def __exit__(self, *args):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()

    def wait(self):
        if self.process.stdout.read(1) != b"R":
            error = self.process.stderr.read().decode(errors="replace")
            self.process.wait()
            raise RuntimeError("the target did not tell: " + error[-600:])
        for _ in range(500):  # until it sleeps: on a busy machine that takes a moment
            with open("/proc/%d/stat" % self.pid) as f:
                if f.read().rsplit(")", 1)[1].split()[0] == "S":
                    return
            time.sleep(0.01)

    def next(self):
        os.kill(self.pid, signal.SIGUSR1)
        self.wait()

    def truth(self, number):
        return Truth(self.folder, number)

    def judge(self):
        """Python's own statistics and comparisons (name -> lines), and formatted tracebacks."""
        run = subprocess.run(self.command("tracemalloc_judge.py", str(self.frames)), capture_output=True, env=self.env,
                             cwd=self.folder, timeout=400)
        if run.returncode != 0:
            raise RuntimeError("the judge: " + run.stderr.decode(errors="replace")[-600:])
        views, formats = json.loads(run.stdout)
        return {name: list(map(text_of, lines)) for name, lines in views.items()}, formats


def tool(*args, timeout=300):
    return subprocess.run([TOOL, *map(str, args)], capture_output=True, text=True, errors="surrogateescape", timeout=timeout,
                          env={k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS")})


def take(path, target, *options):
    """A snapshot into a file; its records by name."""
    run = tool("snapshot", target, "-f", "-o", path, *options)
    if run.returncode != 0:
        raise RuntimeError("snapshot: exit %d\n%s" % (run.returncode, run.stderr[-600:]))
    return records_of(path)


def records_of(path):
    records = {}
    with open(path, encoding="utf-8") as f:
        for line in f:
            record = json.loads(line)
            records.setdefault(record["record"], []).append(record)
    return records


def table(records):
    """The traces of a snapshot, as in Truth.traces."""
    files = [(f["file"], f["line"]) for f in records.get("frame", [])]
    tracebacks = [(tuple(files[n] for n in t["frames"]), t["total"]) for t in records.get("traceback", [])]
    traces = Counter()
    for site in records.get("site", []):
        frames, total = tracebacks[site["traceback"]]
        for size, count in site["sizes"]:
            traces[site["domain"], size, frames, total or 0] += count
    return traces
