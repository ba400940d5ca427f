"""A program that takes the census of itself: heapcensus, run on its own PID.

Start the program with PYTHONTRACEMALLOC=25 (or call tracemalloc.start(25)); nothing else is needed in it."""
import contextlib
import ctypes
import functools
import json
import os
import subprocess
import tempfile
import threading

HEAPCENSUS = os.environ.get("HEAPCENSUS", "heapcensus")
PR_SET_PTRACER, PR_SET_PTRACER_ANY = 0x59616D61, ctypes.c_ulong(-1)
one_at_a_time = threading.Lock()


@contextlib.contextmanager
def readable():
    """Where Yama is on (kernel.yama.ptrace_scope = 1) a child may read its parent only if the parent says so."""
    prctl = ctypes.CDLL(None).prctl
    with one_at_a_time:
        prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0)
        try:
            yield
        finally:
            prctl(PR_SET_PTRACER, ctypes.c_ulong(0), 0, 0, 0)


def run(*words, accept=(0,)):
    """The finished heapcensus; an exit code that is not accepted is an error (1 is a gate that tripped)."""
    done = subprocess.run([HEAPCENSUS, *map(str, words)], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          errors="surrogateescape")
    if done.returncode not in accept:
        raise RuntimeError(done.stderr.strip())
    return done


def heapcensus(*words):
    return run(*words).stdout


def take_snapshot(path):
    """tracemalloc.take_snapshot() and Snapshot.dump(), with types, in no memory of this process."""
    with readable():
        heapcensus("snapshot", os.getpid(), "-q", "-f", "-o", path)
    return path


def statistics(path, key="line", top=10, *options):
    """Snapshot.statistics(): lines of text as tracemalloc prints them."""
    return heapcensus("sites", path, "-q", "--format=tracemalloc", "--by", key, "--top", top, *options)


def compare(old, new, key="line", top=10, *options):
    """Snapshot.compare_to(): the same with differences."""
    return heapcensus("diff", old, new, "-q", "--format=tracemalloc", "--by", key, "--top", top, *options)


def rows(old, new, key="line"):
    """The same as data: dicts of key, count, count_diff, bytes, bytes_diff."""
    return json.loads(heapcensus("diff", old, new, "--json", "--by", key, "--top", 0))["rows"]


def traced_memory(path):
    """tracemalloc.get_traced_memory() of that moment."""
    tracing = json.loads(heapcensus("sites", path, "--json", "--top", 1))["tracing"]
    return tracing["traced_bytes"], tracing["peak_bytes"]


@contextlib.contextmanager
def trace_memory(label, top=5):
    """Say what a block of code has left behind."""
    with tempfile.TemporaryDirectory() as folder:
        old = take_snapshot(os.path.join(folder, "old.jsonl"))
        yield
        new = take_snapshot(os.path.join(folder, "new.jsonl"))
        total = sum(row["bytes_diff"] for row in rows(old, new))
        print(f"=== {label} ===\nTotal change: {total / 1024:.2f} KB")
        print(compare(old, new, "line", top), end="")


def memory_profile(function):
    """A decorator: current and peak traced memory after each call."""
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        result = function(*args, **kwargs)
        with tempfile.TemporaryDirectory() as folder:
            current, peak = traced_memory(take_snapshot(os.path.join(folder, "now.jsonl")))
        print(f"[{function.__name__}] Current: {current / 1024:.1f} KB, Peak: {peak / 1024:.1f} KB")
        return result
    return wrapper


class MemoryProfiler:
    """Named checkpoints, to be compared later or elsewhere."""

    def __init__(self, folder):
        self.folder = folder

    def path(self, name):
        return os.path.join(self.folder, name + ".jsonl.gz")

    def checkpoint(self, name):
        take_snapshot(self.path(name))

    def compare(self, name1, name2, top=10):
        print(f"=== {name1} -> {name2} ===")
        print(compare(self.path(name1), self.path(name2), "line", top), end="")


class MemoryLimit:
    """A mixin for unittest.TestCase: a test that leaves more than memory_limit behind fails, with the lines."""
    memory_limit = "10MiB"

    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.census = [os.path.join(folder.name, name) for name in ("before.jsonl", "after.jsonl")]
        take_snapshot(self.census[0])

    def tearDown(self):
        old, new = self.census[0], take_snapshot(self.census[1])
        done = run("diff", old, new, "-q", "--by", "line", "--top", 5, "--fail-if", f"traced>+{self.memory_limit}",
                   accept=(0, 1))
        if done.returncode == 1:
            self.fail(done.stderr + done.stdout)
        super().tearDown()
