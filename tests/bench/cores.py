"""make bench: the census of cores as ratios to reading the same bytes, and the pause of heapcensus core beside
gcore's, alternately in one run; medians. Prints, never judges.

usage: cores.py [MIB [THREADS]]     default: 1024 and 8; cores of that size lie in $TMPDIR or /var/tmp meanwhile"""
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.environ.get("BUILD", os.path.join(HERE, "..", "..", "build"))
TOOL = os.path.join(os.path.abspath(BUILD), "heapcensus")
PYTHON = os.environ.get("BENCH_PYTHON", "/usr/bin/python3")
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))


def read_data(path):
    """Seconds to read all data of a file (not its holes) from the page cache, and the bytes."""
    buffer, fd, total, at = bytearray(1 << 20), os.open(path, os.O_RDONLY), 0, 0
    size = os.fstat(fd).st_size
    begun = time.monotonic()
    while at < size:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            break
        end = os.lseek(fd, at, os.SEEK_HOLE)
        while at < end:
            n = os.preadv(fd, [memoryview(buffer)[:min(len(buffer), end - at)]], at)
            total, at = total + n, at + n
    os.close(fd)
    return time.monotonic() - begun, total


def run(*command):
    """Wall seconds and peak MiB of a program."""
    begun = time.monotonic()
    p = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(p.pid, 0)
    return time.monotonic() - begun, usage.ru_maxrss / 1024, os.waitstatus_to_exitcode(status)


def measure(name, core):
    read_data(core)
    rows = []
    for _ in range(ROUNDS):
        floor, size = read_data(core)
        wall, peak, status = run(TOOL, core, "--json")
        rows.append((floor, wall, wall / floor, peak))
    m = [statistics.median(c) for c in zip(*rows)]
    print("%-18s %6.0f MiB of data: reading %5.0f ms; census %5.0f ms = %.2f x; peak %.0f MiB; exit %d"
          % (name, size / 2**20, m[0] * 1e3, m[1] * 1e3, m[2], m[3], status), flush=True)


def held(pid, command):
    """Milliseconds for which somebody traced the process while the command ran, and its wall time."""
    spans, done = [], threading.Event()

    def watch():
        begun = None
        while not done.is_set() or begun:
            with open("/proc/%d/status" % pid) as f:
                traced = "TracerPid:\t0\n" not in f.read()
            now = time.monotonic()
            if traced and begun is None:
                begun = now
            elif not traced and begun is not None:
                spans.append(now - begun)
                begun = None
            time.sleep(0.0005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    wall, peak, status = run(*command)
    done.set()
    watcher.join()
    if status:
        raise RuntimeError("%s: exit %d" % (command[0], status))
    return sum(spans) * 1e3, wall * 1e3


def pauses(pid, folder):
    rows = []
    for _ in range(ROUNDS):
        ours = held(pid, (TOOL, "core", str(pid), "-q", "-f", "--max-pause", "60000", "-o", folder + "/own.core"))
        gdb = held(pid, ("gcore", "-o", folder + "/gdb", str(pid)))
        rows.append((*ours, *gdb, gdb[0] / ours[0]))
    m = [statistics.median(c) for c in zip(*rows)]
    print("heapcensus core: held for %.0f ms, whole run %.0f ms; gcore: held for %.0f ms, whole run %.0f ms; gcore's pause "
          "is %.1f x ours" % tuple(m), flush=True)


def kernel_core(target, folder):
    target.send_signal(signal.SIGABRT)
    target.wait()
    return folder + "/core" if os.path.exists(folder + "/core") else None


def main():
    mib = sys.argv[1] if len(sys.argv) > 1 else "1024"
    threads = sys.argv[2] if len(sys.argv) > 2 else "8"
    folder = tempfile.mkdtemp(prefix="heapcensus-bench.", dir=os.environ.get("TMPDIR", "/var/tmp"))
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    target = subprocess.Popen([PYTHON, HERE + "/objects.py", "objects", mib, threads], stdout=subprocess.PIPE, text=True, cwd=folder,
                              preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, unlimited))
    try:
        target.stdout.readline()
        print("a process with %s MiB of Python objects and %s threads more" % (mib, threads))
        pauses(target.pid, folder)
        measure("heapcensus core", folder + "/own.core")
        measure("gcore", folder + "/gdb.%d" % target.pid)
        os.unlink(folder + "/own.core")
        os.unlink(folder + "/gdb.%d" % target.pid)
        core = kernel_core(target, folder)
        if core:
            measure("the kernel's core", core)
        else:
            print("the kernel wrote no plain core here (core_pattern)")
    finally:
        target.kill()
        target.wait()
        shutil.rmtree(folder)


main()
