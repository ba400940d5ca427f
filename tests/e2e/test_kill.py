"""Whatever ends heapcensus, or its target, and whenever: the target runs on, and heapcensus says what happened."""
import json
import mmap
import os
import random
import signal
import struct
import subprocess
import tempfile
import time

from lib import PROGRAM, environment, main, proc_status, start_python, wait_for
from lib_b import WAYS, Census, held

KILLS, INTERRUPTS, SUSPENDS, EXITS = 200, 20, 30, 20
SEED = int(os.environ.get("HEAPCENSUS_SEED", random.randrange(1 << 32)))
CHANCE = random.Random(SEED)

BUSY = """
import mmap, struct, sys, threading
keep = [bytes(1000) for _ in range(100000)]
file = open(%r, 'r+b')
shared = mmap.mmap(file.fileno(), 4096)
def count(slot):
    n = 0
    while True:
        n += 1
        struct.pack_into('Q', shared, slot * 8, n)
for slot in range(4):
    threading.Thread(target=count, args=(slot,), daemon=True).start()
print('READY', flush=True)
sys.stdin.read()
"""

BUFFERS = """
import sys
keep = [bytes(1000) for _ in range(400000)]
print('READY', flush=True)
sys.stdin.read()
"""

SHORT = """
import sys
keep = [bytes(600) for _ in range(50000)]
print('READY', flush=True)
sys.stdin.read()
"""

class Busy:
    """A Python of four threads that count in memory that we see."""

    def __enter__(self):
        self.file = tempfile.NamedTemporaryFile()
        self.file.truncate(4096)
        self.shared = mmap.mmap(self.file.fileno(), 4096)
        self.target = start_python(BUSY % self.file.name)
        self.pid = self.target.pid
        return self

    def __exit__(self, *_):
        self.target.kill()
        self.shared.close()
        self.file.close()

    def counts(self):
        return struct.unpack_from("4Q", self.shared)

    def trouble(self):
        """Why it does not run on as before, or None; it may take a moment to be scheduled."""
        if not wait_for(lambda: not held(self.pid), 1):
            return "held: %s" % held(self.pid)
        before = self.counts()
        if not wait_for(lambda: sum(self.counts()) > sum(before)):
            return "it stands still at %s" % (before,)
        return None

    def all_count(self):
        before = self.counts()
        return wait_for(lambda: all(a > b for a, b in zip(self.counts(), before)))

def start(pid, way):
    return subprocess.Popen([PROGRAM, "summary", "-q", "--json", str(pid), *WAYS[way]], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, env=environment())

def test_kills(tap):
    tap.say("HEAPCENSUS_SEED=%d" % SEED)
    with Busy() as busy:
        wrong, done = [], 0
        for i in range(KILLS):
            p = start(busy.pid, ("copy", "window")[i % 2])
            time.sleep(CHANCE.uniform(0, 0.040))
            p.kill()
            p.communicate()
            done += p.returncode == 0
            trouble = busy.trouble()
            if trouble:
                wrong.append("kill %d: %s" % (i, trouble))
                break
        tap.say("%d kills, %d of them after the end" % (KILLS, done))
        tap.ok(not wrong, "killed at %d random moments, the target runs on" % KILLS, "\n".join(wrong))
        tap.ok(busy.all_count(), "all of its threads count")
        tap.ok(done < KILLS * 3 // 4, "most of the kills came in time", "%d after the end" % done)
        census = Census(busy.pid)
        tap.ok(census.code == 0 and census.adds_up(), "and a census works afterwards", str(census))

def handles(p):
    """It has its handlers, or is done: a signal before that ends it as any program's start."""
    try:
        return p.poll() is not None or int(proc_status(p.pid)["SigCgt"], 16) >> (signal.SIGTERM - 1) & 1
    except KeyError:
        return True

def interrupt(busy, number, way):
    """What went wrong with one interrupted run, and its exit code."""
    p = start(busy.pid, way)
    wait_for(lambda: handles(p))
    time.sleep(CHANCE.uniform(0, 0.030))
    p.send_signal(number)
    try:
        _, said = p.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        p.kill()
        p.communicate()
        return "it went on after the signal", None
    if p.returncode not in (0, 130):
        return "exit %d: %s" % (p.returncode, said), p.returncode
    return busy.trouble(), p.returncode

def test_interrupts(tap):
    with Busy() as busy:
        for number in signal.SIGINT, signal.SIGTERM:
            wrong, codes = [], []
            for i in range(INTERRUPTS):
                trouble, code = interrupt(busy, number, ("copy", "window")[i % 2])
                codes.append(code)
                if trouble:
                    wrong.append("%d: %s" % (i, trouble))
            tap.say("%s: %d x 130, %d x 0" % (number.name, codes.count(130), codes.count(0)))
            tap.ok(not wrong, "%s at %d random moments: exit 130 or 0, the target runs on" % (number.name, INTERRUPTS),
                   "\n".join(wrong))
            tap.ok(130 in codes, "%s came in time at least once" % number.name)
        tap.ok(busy.all_count(), "all of its threads count after the interrupts")

def test_suspend(tap):
    """Ctrl-Z at any moment suspends heapcensus only while the target runs."""
    suspended, wrong = 0, []
    with start_python(BUFFERS) as target:
        for i in range(SUSPENDS):
            # A process group of its own with a parent outside: SIGTSTP is ignored by orphaned groups.
            census = subprocess.Popen([PROGRAM, "-q", "--json", "--read", ("window", "copy")[i % 2], str(target.pid)],
                                      stdout=subprocess.DEVNULL, preexec_fn=lambda: os.setpgid(0, 0))
            time.sleep(CHANCE.uniform(0, 0.2))
            census.send_signal(signal.SIGTSTP)
            state = lambda: proc_status(census.pid).get("State", "Z")[:1]
            wait_for(lambda: state() in "TZ", 20)
            suspended += state() == "T"
            if proc_status(target.pid)["State"][:1] == "t" or proc_status(target.pid)["TracerPid"] != "0":
                wrong.append(proc_status(target.pid)["State"])
            census.send_signal(signal.SIGCONT)
            status = census.wait(60)
            if status != 0:
                wrong.append(status)
    tap.say(f"{suspended} of {SUSPENDS} were suspended before their end")
    tap.ok(suspended > 0 and not wrong, "Ctrl-Z never leaves the target stopped", wrong)


def test_max_pause(tap):
    with start_python(BUFFERS) as target:
        for way in "copy", "window":
            census = Census(target.pid, "--max-pause", "5", *WAYS[way])
            paused = census.doc["source"]["paused_ns"] / 1e6
            tap.say("--max-pause 5, %s: paused %.1f ms of %.0f ms" % (way, paused, census.took * 1e3))
            tap.ok(paused <= 65, "--max-pause 5, %s: let go in time" % way, "%.1f ms" % paused)
            tap.ok(census.code == 6 and "pause.limit" in census.notes(), "--max-pause 5, %s: exit 6 and a note" % way,
                   str(census))
            tap.ok(census.adds_up(), "--max-pause 5, %s: the sums are equal" % way)
            tap.ok(not held(target.pid), "--max-pause 5, %s: the target is free" % way)

def end_target(way, reap):
    """A target that dies during a census: (exit code, stderr, notes), or None where heapcensus hangs."""
    with start_python(SHORT) as target:
        p = start(target.pid, way)
        time.sleep(CHANCE.uniform(0.001, 0.020))
        os.kill(target.pid, signal.SIGKILL)
        if reap:
            target.popen.wait()
        try:
            wrote, said = p.communicate(timeout=10)
            return p.returncode, said.strip(), wrote and [n["what"] for n in json.loads(wrote)["notes"]]
        except subprocess.TimeoutExpired:
            p.kill()
            p.communicate()
            return None

def test_exits(tap):
    for way in WAYS:
        ends = [end_target(way, i % 2) for i in range(EXITS)]
        codes = [e and e[0] for e in ends]
        tap.say("the target ends, %s: %s" % (way, ", ".join("%d x %s" % (codes.count(c), c) for c in set(codes))))
        tap.ok(None not in codes and all(c >= 0 for c in codes), "the target ends, %s: no hang and no crash" % way,
               repr(ends))
        wrong = [e for e in ends if e and e[0] not in (0, 3) and not (e[0] == 6 and e[2])]
        tap.ok(not wrong, "the target ends, %s: exit 3, 6 with notes if it was half read, 0 if all was" % way,
               repr(wrong))
        tap.ok(3 in codes and all(e[1] for e in ends if e and e[0] == 3), "the target ends, %s: exit 3 says why" % way,
               repr(ends))
    with start_python(SHORT) as target:
        pid = target.pid
    tap.ok(Census(pid).code == 3, "a process that is gone: exit 3")

main(test_kills, test_interrupts, test_suspend, test_max_pause, test_exits)
