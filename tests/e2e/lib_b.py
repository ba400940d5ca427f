"""What the tests of harm, kills, signals, allocators and subinterpreters share beyond lib.py."""
import contextlib
import glob
import json
import os
import signal
import time

from lib import ROOT, heapcensus, start_python

WAYS = {"copy": ("--read", "copy"), "window": ("--read", "window"), "no-pause": ("--no-pause",)}


@contextlib.contextmanager
def forking(code, **options):
    """A Python in a session of its own, which ends whole: it and what it forked."""
    with start_python(code, start_new_session=True, **options) as target:
        try:
            yield target
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(target.pid, signal.SIGKILL)


class Census:
    """One `heapcensus summary --json`: code, doc (None if none was written), message, took (seconds)."""

    def __init__(self, pid, *options):
        begun = time.monotonic()
        done = heapcensus("summary", "-q", "-p", pid, "--json", *options)
        self.took = time.monotonic() - begun
        self.code, self.message = done.returncode, done.stderr.strip()
        self.doc = json.loads(done.stdout) if done.stdout.strip() else None

    def category(self, name):
        return next(c for c in self.doc["memory"]["categories"] if c["name"] == name)

    def notes(self):
        return [n["what"] for n in self.doc["notes"]] if self.doc else []

    def adds_up(self):
        """The categories sum to the mapped and to the resident bytes."""
        memory = self.doc["memory"]
        return (sum(c["bytes"] for c in memory["categories"]) == memory["mapped_bytes"] and
                sum(c["resident_bytes"] for c in memory["categories"]) == memory["rss_bytes"])

    def __str__(self):
        return f"exit {self.code} in {self.took * 1e3:.0f} ms; {self.message}; {self.notes()}"


def tasks(pid):
    return sorted(int(t) for t in os.listdir(f"/proc/{pid}/task"))


def thread_status(pid, tid):
    """Its status file as a dict; empty if the thread has gone."""
    try:
        with open(f"/proc/{pid}/task/{tid}/status", errors="surrogateescape") as f:
            return {key: value.strip() for key, _, value in (line.partition(":") for line in f)}
    except OSError:
        return {}


def held(pid):
    """The threads that are traced or stopped: (tid, state, tracer)."""
    found = ((tid, thread_status(pid, tid)) for tid in tasks(pid))
    return [(tid, s["State"], s["TracerPid"]) for tid, s in found
            if s and (s["TracerPid"] != "0" or s["State"][0] in "Tt")]


def pyenv_pythons(*series):
    """pyenv's interpreters of the series ("3.12", ...): [(version, path)]."""
    root = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    found = []
    for minor in series:
        for folder in sorted(glob.glob(os.path.join(root, "versions", minor + ".*"))):
            exe = os.path.join(folder, "bin", "python" + minor)
            if os.path.exists(exe):
                found.append((os.path.basename(folder), exe))
    return found


def root_pythons(*series):
    """Those in the folders that tests/lib/roots.sh made: [(suite, minor, folder)]."""
    base = os.environ.get("HEAPCENSUS_ROOTS") or os.path.join(ROOT, os.environ.get("BUILD", "build"), "roots")
    return [(os.path.basename(folder), minor, folder) for folder in sorted(glob.glob(os.path.join(base, "*")))
            for minor in series if os.path.exists(os.path.join(folder, "usr/bin/python" + minor))]
