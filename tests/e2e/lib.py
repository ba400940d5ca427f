"""What the end-to-end tests share: TAP, running heapcensus, starting Pythons and looking after them.

Everything started here dies with the test (PR_SET_PDEATHSIG), also when the runner kills it by its time limit.
"""
import ctypes
import gzip
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, os.environ.get("BUILD", "build"))
PROGRAM = os.path.join(BUILD, "heapcensus")
PYTHON = "/usr/bin/python3"
WAITING = "import time\nprint('READY', flush=True)\nwhile True: time.sleep(0.02)\n"

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_PR_SET_THP_DISABLE = 41


class Tap:
    """Test Anything Protocol on stdout; the plan comes last, as a test that dies must not look complete."""

    def __init__(self):
        self.count = 0
        self.failed = 0

    def ok(self, cond, name, detail=""):
        self.count += 1
        self.failed += not cond
        print(f"{'ok' if cond else 'not ok'} {self.count} - {name.replace('#', ' ')}", flush=True)
        if not cond and detail != "":
            for line in str(detail)[:4000].splitlines()[:30]:
                print(f"# {line}", flush=True)
        return bool(cond)

    def skip(self, name, reason):
        self.count += 1
        print(f"ok {self.count} - {name.replace('#', ' ')} # SKIP {reason}", flush=True)

    def say(self, text):
        print(f"# {text}", flush=True)

    def run(self, *tests):
        """Call each test with this Tap; an exception is a failure of that test, not the end of the file."""
        for test in tests:
            try:
                test(self)
            except Exception as error:  # the next test is independent of this one
                self.ok(False, f"{test.__name__} ran to its end", f"{type(error).__name__}: {error}")
        return self.done()

    def done(self):
        print(f"1..{self.count}", flush=True)
        return 1 if self.failed else 0


def no_huge_pages():
    """For preexec_fn: the kernel collapses no memory of the program while a test compares what is resident."""
    _LIBC.prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0)


def _die_with_parent():
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    no_huge_pages()


def environment(**extra):
    """A fixed environment: no colour, no terminal width, no Python settings of whoever runs the tests."""
    kept = {k: v for k, v in os.environ.items()
            if not k.startswith("PYTHON") and k not in ("NO_COLOR", "COLUMNS", "LD_PRELOAD", "MALLOC_ARENA_MAX")}
    kept.update(LC_ALL="C.UTF-8", **extra)
    return kept


def run(command, timeout=60, **options):
    """subprocess.run with captured text; a time-out comes back as returncode -9, for the test to report."""
    settings = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True,
                "errors": "surrogateescape", "env": environment(), "preexec_fn": _die_with_parent}
    settings.update(options)
    command = [str(word) for word in command]
    try:
        return subprocess.run(command, timeout=timeout, check=False, **settings)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, -9, "", f"no end after {timeout} s\n")


def heapcensus(*args, timeout=60, prefix=(), **options):
    """Run the program; `prefix` is a command to run it under (runuser ...)."""
    return run([*prefix, PROGRAM, *args], timeout, **options)


def describe(done):
    """A CompletedProcess for the detail of a failed test."""
    return f"$ {' '.join(done.args)}\nstatus {done.returncode}\n{(done.stderr or '')[-1500:]}\n{(done.stdout or '')[:1500]}"


class Process:
    """A started target: a context manager that kills what it started. `pid` is what heapcensus is to read."""

    def __init__(self, popen):
        self.popen = popen
        self.pid = popen.pid
        self.ready = ""

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.kill()

    def wait_ready(self, word="READY"):
        """Wait until the target prints a line that begins with `word`; the rest of the line is in `ready`."""
        for line in self.popen.stdout:
            if line.startswith(word):
                self.ready = line[len(word):].strip()
                return self
        raise RuntimeError(f"target {self.pid} ended before {word}, status {self.popen.wait()}")

    def line(self):
        """The target's next line of output."""
        return self.popen.stdout.readline().rstrip("\n")

    def send(self, text):
        """A line to the target's standard input."""
        self.popen.stdin.write(text + "\n")
        self.popen.stdin.flush()

    def kill(self):
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()
        for pipe in (self.popen.stdin, self.popen.stdout):
            if pipe:
                try:
                    pipe.close()
                except BrokenPipeError:
                    pass


def start(command, env=None, **options):
    """Start any program with pipes on stdin and stdout; a Process."""
    settings = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment(**(env or {})),
                "preexec_fn": _die_with_parent}
    settings.update(options)
    return Process(subprocess.Popen([str(word) for word in command], **settings))


def start_python(code=WAITING, exe=PYTHON, args=(), prefix=(), env=None, word="READY", **options):
    """Start `exe` (with `prefix` in front of it) running the script `code`; returns when it printed `word`.

    `code` is passed with -c: nothing is left on disk. More interpreter options in `args`."""
    target = start([*prefix, exe, *args, "-c", code], env, **options)
    try:
        return target.wait_ready(word)
    except RuntimeError:
        target.kill()
        raise


def children(pid):
    """The PIDs of the direct children of a process (of all its threads)."""
    found = []
    for tid in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{tid}/children") as f:
            found += [int(word) for word in f.read().split()]
    return found


def proc_status(pid):
    """/proc/PID/status as a dict of stripped strings; empty if there is no such process."""
    try:
        with open(f"/proc/{pid}/status", errors="surrogateescape") as f:
            return {key: value.strip() for key, _, value in (line.partition(":") for line in f)}
    except OSError:
        return {}


def survived(pid):
    """Alive, running or sleeping, and nobody's tracee."""
    status = proc_status(pid)
    return status.get("State", "?")[:1] in ("S", "R") and status.get("TracerPid") == "0"


def wait_for(condition, seconds=10):
    """Poll until `condition()` is true; its last value."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value or time.monotonic() > end:
            return value
        time.sleep(0.01)


def rollup(pid):
    """/proc/PID/smaps_rollup in bytes: {"Rss": ..., ...}."""
    with open(f"/proc/{pid}/smaps_rollup") as f:
        f.readline()
        return {words[0].rstrip(":"): int(words[1]) * 1024 for words in map(str.split, f)}


class Snapshot:
    """A snapshot file's records: header (dict), records {name: [dict, ...]}, lines (all records in order)."""

    def __init__(self, text, done=None):
        self.done = done
        self.lines = [json.loads(line) for line in text.splitlines()]
        self.records = {}
        for record in self.lines:
            self.records.setdefault(record["record"], []).append(record)
        self.header = self.records.get("header", [{}])[0]

    def __getitem__(self, name):
        return self.records.get(name, [])

    def one(self, name):
        return self.records[name][0]


def read_snapshot(path, done=None):
    """Parse a snapshot file, gzip or plain."""
    with open(path, "rb") as f:
        data = f.read()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    return Snapshot(data.decode(), done)


def snapshot(pid, *options, **settings):
    """Take a snapshot and parse it; `.done` is the CompletedProcess. Raises if nothing was written."""
    with tempfile.TemporaryDirectory(prefix="heapcensus-test.") as folder:
        path = os.path.join(folder, "s.jsonl")
        done = heapcensus("snapshot", "-p", pid, "-o", path, *options, **settings)
        if not os.path.exists(path):
            raise RuntimeError(describe(done))
        return read_snapshot(path, done)


def two_lines(stderr):
    """Whether stderr is one line of cause and one of remedy, both ours."""
    lines = stderr.splitlines()
    return len(lines) == 2 and all(line.startswith("heapcensus: ") and len(line) > 14 for line in lines)


def main(*tests):
    sys.exit(Tap().run(*tests))
