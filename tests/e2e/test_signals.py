"""Stopping loses no signal: full censuses of a Python that floods itself with queued real-time signals and with
SIGUSR1 to single threads, each of them counted.

tests/e2e/sig_target.c is the flood. As a program it is no Python, so nothing would stop it; built as a library it
runs inside of one."""
import os
import subprocess
import tempfile
import time

from lib import BUILD, ROOT, PROGRAM, environment, heapcensus, main, start, wait_for
from lib_b import WAYS, held

FULL, CYCLES, SECONDS = 100, 1000, 60

FLOOD = """
import ctypes, os, sys
flood = ctypes.CDLL(sys.argv[1])
print('READY', flush=True)
argv = (ctypes.c_char_p * 3)(b'sig_target', sys.argv[2].encode(), None)
code = flood.main(2, argv)
ctypes.CDLL(None).fflush(None)
os._exit(code)
"""


def build_flood(folder):
    """sig_target as a library; the compiler is there, or there would be no heapcensus."""
    library = os.path.join(folder, "libflood.so")
    subprocess.run([os.environ.get("CC", "cc"), "-std=gnu11", "-O1", "-shared", "-fPIC", "-pthread", "-o", library,
                    os.path.join(ROOT, "tests/e2e/sig_target.c")], check=True)
    return library


def census(pid, way):
    """The exit code of one census whose document nobody reads."""
    return subprocess.run([PROGRAM, "summary", "-q", str(pid), "--json", *WAYS[way]], env=environment(), check=False,
                          stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=30).returncode


def cycles(pid, number, seconds):
    """Censuses in a row, by both ways in turn: their exit codes."""
    end, codes = time.monotonic() + seconds, []
    while len(codes) < number and time.monotonic() < end:
        codes.append(census(pid, ("copy", "window")[len(codes) % 2]))
    return codes


def test_flood(tap):
    with tempfile.TemporaryDirectory(prefix="heapcensus-test.") as folder:
        command = ["/usr/bin/python3", "-c", FLOOD, build_flood(folder), str(SECONDS)]
        with start(command).wait_ready() as target:
            tap.ok(wait_for(lambda: len(os.listdir(f"/proc/{target.pid}/task")) >= 10), "the flood runs")
            begun = time.monotonic()
            codes = cycles(target.pid, CYCLES, SECONDS - 5)
            took = time.monotonic() - begun
            tap.say("%d censuses in %.1f s, %.1f ms each" % (len(codes), took, took * 1e3 / len(codes)))
            tap.ok(len(codes) >= FULL and set(codes) == {0}, "at least %d full censuses of it" % FULL,
                   {c: codes.count(c) for c in codes})
            tap.ok(wait_for(lambda: not held(target.pid)), "it is left running", held(target.pid))
            tell_end(tap, target)


def tell_end(tap, target):
    said = target.line()
    tap.say(said)
    code = target.popen.wait(timeout=30)
    tap.ok(code == 0 and "misordered 0, all came" in said, "no signal is lost or out of order", f"exit {code}: {said}")
    taken = int(said.split()[1].rstrip(",")) if said.startswith("taken ") else 0
    tap.ok(taken > 10000, "there were many", said)


def test_no_python(tap):
    with start([os.path.join(BUILD, "e2e/sig_target"), "3"]) as target:
        tap.ok(wait_for(lambda: len(os.listdir(f"/proc/{target.pid}/task")) >= 10), "the flood runs as a program")
        codes = {heapcensus("summary", "-q", target.pid).returncode for _ in range(10)}
        tap.ok(codes == {5}, "a program that is no Python: exit 5", codes)
        said = target.line()
        tap.ok("misordered 0, all came" in said, "a program that is no Python loses no signal", said)


main(test_flood, test_no_python)
