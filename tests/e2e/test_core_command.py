"""heapcensus core: gdb reads what it writes, the kernel would have written the same, and the process does not notice."""
import contextlib
import ctypes
import glob
import os
import random
import re
import resource
import shutil
import signal
import struct
import subprocess
import tempfile
import time

from lib import (PROGRAM, PYTHON, _die_with_parent, environment, heapcensus, describe, main, proc_status, rollup, run,
                 start_python, survived, two_lines, wait_for)
from lib_b import forking, held, pyenv_pythons, tasks, thread_status

SEED = int(os.environ.get("HEAPCENSUS_SEED", random.randrange(1 << 32)))
CHANCE = random.Random(SEED)
PAGE = 4096
WAYS = {"copy": ("--read", "copy"), "window": ("--read", "window")}
# The kernel notes there which processor a thread runs on, whenever it goes on: not our doing.
STILL = {"GLIBC_TUNABLES": "glibc.pthread.rseq=0"}
FILTERS = 0x33, 0x3F, 0x07, 0x01, 0x00
THREADS = 4

# Every kind of mapping that the rules tell apart. Deadlines of sleeping threads lie far off: it is idle.
TARGET = r"""
import ctypes, mmap, sys, tempfile, threading, time
libc = ctypes.CDLL(None)
known = ctypes.create_string_buffer(b'heapcensus-' + b'known-bytes-' + str(3 ** 30).encode())
def address(m): return ctypes.addressof(ctypes.c_char.from_buffer(m))
memory, secret = mmap.mmap(-1, 1 << 20, flags=0x22), mmap.mmap(-1, 1 << 20, flags=0x22)
untouched, closed = mmap.mmap(-1, 1 << 20, flags=0x22), mmap.mmap(-1, 64 << 10, flags=0x22)
emptied = mmap.mmap(-1, 96 << 10, flags=0x22)
for m in memory, secret, closed, emptied:
    m[8192:8200] = b'contents'
assert libc.madvise(ctypes.c_void_p(address(secret)), ctypes.c_size_t(1 << 20), 16) == 0
assert libc.madvise(ctypes.c_void_p(address(emptied)), ctypes.c_size_t(96 << 10), 4) == 0
assert libc.mprotect(ctypes.c_void_p(address(closed)), ctypes.c_size_t(64 << 10), 0) == 0
shared = mmap.mmap(-1, 1 << 20)
shared[4096:4104] = b'together'
named, nameless = tempfile.NamedTemporaryFile(), tempfile.TemporaryFile()
files = []
for f in named, nameless:
    f.write(bytes(range(256)) * 256); f.flush()
    files.append(mmap.mmap(f.fileno(), 65536))
    files.append(mmap.mmap(f.fileno(), 65536, flags=mmap.MAP_PRIVATE, prot=3))
    files[-1][20000] = 7
    files.append(mmap.mmap(f.fileno(), 65536, flags=mmap.MAP_PRIVATE, prot=1))
with open(named.name, 'rb') as f:
    files.append(mmap.mmap(f.fileno(), 65536, prot=1))
for _ in range(%d - 1):
    threading.Thread(target=time.sleep, args=(100000,), daemon=True).start()
time.sleep(0.05)
print('READY', ctypes.addressof(known), address(emptied), flush=True)
sys.stdin.read()
""" % THREADS

BIG = "import sys\nkeep = bytearray(b'x') * (300 << 20)\nprint('READY', flush=True)\nsys.stdin.read()\n"

SPARSE = """
import mmap, signal, threading
m = mmap.mmap(-1, 16 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
m.madvise(mmap.MADV_NOHUGEPAGE)
for i in range(100):
    m[i * ((16 << 30) // 100)] = 1
s = mmap.mmap(-1, 64 << 20)
s[5] = 1
signal.signal(signal.SIGUSR1, lambda *_: None)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP, signal.SIGRTMIN + 3])
signal.raise_signal(signal.SIGHUP)
threading.Thread(target=threading.Event().wait, daemon=True).start()
print('READY', flush=True)
signal.pause()
"""

FORKED = """
import os, signal
keep = bytearray(b'x') * (100 << 20)
child = os.fork()
if child == 0:
    print('READY', os.getpid(), flush=True)
signal.pause()
"""


@contextlib.contextmanager
def folder():
    with tempfile.TemporaryDirectory(prefix="heapcensus-test.", dir="/var/tmp") as path:
        yield path


class Core:
    """A core's segments [(start, memsz, filesz, flags, offset)], its notes [(owner, type, contents)]."""

    def __init__(self, path):
        self.file = open(path, "rb")
        head = self.file.read(64)
        phoff, = struct.unpack_from("<Q", head, 32)
        count, = struct.unpack_from("<H", head, 56)
        self.segments, self.notes = [], []
        for i in range(count):
            kind, flags, offset, start, _, filesz, memsz, _ = struct.unpack("<IIQQQQQQ", self.at(phoff + 56 * i, 56))
            if kind == 1:
                self.segments.append((start, memsz, filesz, flags, offset))
            else:
                self.read_notes(self.at(offset, filesz))

    def read_notes(self, data):
        at = 0
        while at < len(data):
            name, size, kind = struct.unpack_from("<III", data, at)
            owner = data[at + 12:at + 11 + name].decode()
            at += 12 + (name + 3 & ~3)
            self.notes.append((owner, kind, data[at:at + size]))
            at += size + 3 & ~3

    def at(self, offset, size):
        return os.pread(self.file.fileno(), size, offset)

    def note(self, owner, kind):
        return next(n[2] for n in self.notes if n[:2] == (owner, kind))

    def facts(self):
        return dict(line.split("=", 1) for line in self.note("HEAPCENSUS", 4).decode().splitlines())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


def write(pid, path, *options, **settings):
    return heapcensus("core", "-p", pid, "-o", path, *options, **settings)


def wrong_pages(core, pid):
    """(pages compared, addresses of those that differ): the present pages of all segments that have bytes."""
    compared, wrong = 0, []
    with open(f"/proc/{pid}/pagemap", "rb", 0) as pagemap, open(f"/proc/{pid}/mem", "rb", 0) as mem:
        for start, _, filesz, _, offset in core.segments:
            if not filesz or start >> 63:
                continue
            entries = os.pread(pagemap.fileno(), filesz // PAGE * 8, start // PAGE * 8)
            for i, (entry,) in enumerate(struct.iter_unpack("<Q", entries)):
                if not entry >> 63:
                    continue
                try:
                    page = os.pread(mem.fileno(), PAGE, start + i * PAGE)
                except OSError:
                    continue  # vvar: the kernel gives it to nobody
                compared += 1
                if core.at(offset + i * PAGE, PAGE) != page:
                    wrong.append(hex(start + i * PAGE))
    return compared, wrong


def interpreters():
    return [("system", PYTHON)] + pyenv_pythons("3.8", "3.13")


def ask_gdb(exe, path, known):
    words = ["gdb", "-batch", "-nx", "-ex", "set debuginfod enabled off", "-ex", "info threads", "-ex",
             "thread apply all -q bt 4", "-ex", f"x/s {known}"]
    return run([*words, os.path.realpath(exe), path])


def test_gdb(tap):
    if not shutil.which("gdb"):
        tap.skip("gdb reads the core", "gdb is not installed")
        return
    for name, exe in interpreters():
        with folder() as at, start_python(TARGET, exe) as target:
            path = os.path.join(at, "core")
            done = write(target.pid, path)
            tap.ok(done.returncode == 0, f"{name}: a core is written", describe(done))
            gdb = ask_gdb(exe, path, target.ready.split()[0])
            threads = re.findall(r"^[* ] +\d+ +.*LWP (\d+)", gdb.stdout, re.M)
            tap.ok(sorted(map(int, threads)) == tasks(target.pid), f"{name}: gdb sees its {THREADS} threads", gdb.stdout)
            frames = re.findall(r"^#[01] ", gdb.stdout, re.M)
            tap.ok(len(frames) >= 2 * THREADS, f"{name}: and unwinds each of them", gdb.stdout)
            tap.ok(f'"heapcensus-known-bytes-{3 ** 30}"' in gdb.stdout, f"{name}: and reads its memory", gdb.stdout[-300:])


def test_bytes(tap):
    with folder() as at, start_python(TARGET, env=STILL) as target:
        for way, options in WAYS.items():
            path = os.path.join(at, way)
            done = write(target.pid, path, *options)
            tap.ok(done.returncode == 0 and os.stat(path).st_mode & 0o777 == 0o600, f"{way}: written, mode 0600",
                   describe(done))
            with Core(path) as core:
                compared, wrong = wrong_pages(core, target.pid)
                tap.ok(compared > 1000 and not wrong, f"{way}: {compared} present pages are equal", wrong[:20])
                facts = core.facts()
                tap.ok(facts["consistent"] == "1" and 0 < int(facts["paused_ns"]) < 5e9, f"{way}: its facts", facts)
                with open(f"/proc/{target.pid}/maps", "rb") as f:
                    tap.ok(core.note("HEAPCENSUS", 1) == f.read(), f"{way}: the note of the mappings")
                runs = list(struct.iter_unpack("<QQ", core.note("HEAPCENSUS", 3)))
                tap.ok(runs and all(a < b for a, b in runs) and all(x[1] < y[0] for x, y in zip(runs, runs[1:])),
                       f"{way}: the note of the present pages is sorted and merged")
                names = core.note("HEAPCENSUS", 5).decode().splitlines()
                tap.ok(sorted(int(n.split()[0]) for n in names) == tasks(target.pid), f"{way}: the note of the threads")
            st = os.stat(path)
            tap.ok(st.st_blocks * 512 < st.st_size, f"{way}: the file has holes")
        for tool in "readelf", "eu-readelf":
            if not shutil.which(tool):
                tap.skip(f"{tool} parses it", f"{tool} is not installed")
                continue
            done = run([tool, "-lW" if tool == "readelf" else "-l", path])
            tap.ok(done.returncode == 0 and not done.stderr and done.stdout.count("LOAD") > 50, f"{tool} parses it",
                   done.stderr)


def allow_cores():
    _die_with_parent()
    resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def plain_cores():
    """The kernel writes core files into the process's folder."""
    with open("/proc/sys/kernel/core_pattern") as f:
        pattern = f.read().strip()
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    return pattern[:1] not in "|/" and hard == resource.RLIM_INFINITY


def never_touched(core):
    """Starts of private anonymous mappings without a page in memory or swap, as smaps said within the stop."""
    found, start, pages = set(), 0, 0
    for line in core.note("HEAPCENSUS", 2).decode(errors="replace").splitlines():
        words = line.split()
        if re.match("[0-9a-f]+-", line):
            start = int(words[0].split("-")[0], 16) if words[1][3] == "p" and words[4] == "0" else None
            pages = 0
        elif words[0] in ("Rss:", "Swap:"):
            pages += int(words[1])
        elif words[0] == "VmFlags:" and start is not None and not pages:
            found.add(start)
    return found


def compare(tap, ours, kernels, emptied, what):
    """All segments and their bytes. One thing may differ: of memory without pages the kernel remembers whether it, or
    a neighbour that it was one mapping with, was ever written to (anon_vma), and then dumps it as zeros; from outside
    that is not to be seen, and heapcensus says that nothing is dumped."""
    known = {s[0]: s for s in kernels.segments}
    empty = never_touched(ours)
    wrong, differing, excepted = [], [], set()
    for start, memsz, filesz, flags, offset in ours.segments:
        theirs = known.pop(start, (0, 0, 0, 0, 0))
        if (memsz, flags) != (theirs[1], theirs[3]):
            wrong.append(f"{start:#x}: {memsz:#x} {flags}, the kernel's {theirs}")
        elif filesz != theirs[2]:
            if filesz == 0 and start in empty and not any(kernels.at(theirs[4], theirs[2])):
                excepted.add(start)
            else:
                wrong.append(f"{start:#x}: {filesz:#x} bytes, the kernel {theirs[2]:#x}")
        else:
            for i in range(0, filesz, PAGE):
                if ours.at(offset + i, PAGE) != kernels.at(theirs[4] + i, PAGE):
                    differing.append(f"{start + i:#x}")
    tap.ok(not wrong and not known, f"{what}: the kernel's segments", "\n".join(wrong + [hex(s) for s in known]))
    tap.ok(not differing, f"{what}: the kernel's bytes", "\n".join(differing))
    tap.ok(emptied in empty and len(excepted) <= 4, f"{what}: the exception is rare", [hex(s) for s in excepted])


def test_kernel(tap):
    """Beside a core that the kernel writes of the same process: what differs is named in compare()."""
    if not plain_cores():
        tap.skip("as the kernel's core", "the kernel writes no plain core files here")
        return
    for mask in FILTERS:
        with folder() as at, start_python(TARGET, env=STILL, cwd=at, preexec_fn=allow_cores) as target:
            path = os.path.join(at, "ours")
            with open(f"/proc/{target.pid}/coredump_filter", "w") as f:
                f.write(hex(mask))
            done = write(target.pid, path)
            os.kill(target.pid, signal.SIGABRT)
            target.popen.wait()
            found = [p for p in glob.glob(os.path.join(at, "*core*"))]
            if not tap.ok(done.returncode == 0 and len(found) == 1, f"filter {mask:#x}: both wrote a core",
                          f"{describe(done)}\n{found}"):
                continue
            with Core(path) as ours, Core(found[0]) as kernels:
                compare(tap, ours, kernels, int(target.ready.split()[1]), f"filter {mask:#x}")
                order = [n[:2] for n in kernels.notes if n[0] in ("CORE", "LINUX") and n[1] != 0x53494749]
                mine = [n[:2] for n in ours.notes if n[0] != "HEAPCENSUS"]
                extra = {n for n in order if n not in mine}
                tap.ok(mine == [n for n in order if n not in extra], f"filter {mask:#x}: the kernel's notes in its order",
                       f"{mine}\n{order}")
                for kind, name in (6, "NT_AUXV"), (0x46494C45, "NT_FILE"):
                    tap.ok(ours.note("CORE", kind) == kernels.note("CORE", kind), f"filter {mask:#x}: {name} is equal")


def test_usage(tap):
    with folder() as at, start_python() as target:
        path = os.path.join(at, "core")
        with open(path, "w") as f:
            f.write("mine")
        done = write(target.pid, path)
        tap.ok(done.returncode == 2 and two_lines(done.stderr) and open(path).read() == "mine", "never overwrites a file",
               describe(done))
        done = write(target.pid, path, "-f")
        tap.ok(done.returncode == 0 and os.path.getsize(path) > PAGE and os.stat(path).st_mode & 0o777 == 0o600,
               "unless told so with -f", describe(done))
        tap.ok(re.match(rf"{re.escape(path)}: [\d.]+ MiB of [\d.]+ MiB mapped, paused [\d.]+ ms\nnext: heapcensus "
                        rf"summary {re.escape(path)}\n$", done.stdout), "says what it wrote and what next", done.stdout)
        done = write(target.pid, path, "-f", "-q")
        tap.ok(done.returncode == 0 and not done.stdout and not done.stderr, "-q says nothing", describe(done))
        done = run([PROGRAM, "core", target.pid], cwd=at)
        comm = open(f"/proc/{target.pid}/comm").read().strip()
        tap.ok(done.returncode == 0 and os.path.exists(os.path.join(at, f"core.{comm}.{target.pid}")), "the default name",
               describe(done))
        for output, options in (("-", ()), ("/dev/null", ()), (at, ()), (path + ".gz", ()), (path, ("-f", "--no-pause")),
                                (at + "/none/core", ())):
            done = write(target.pid, output, *options)
            tap.ok(done.returncode == 2 and two_lines(done.stderr), f"refuses -o {output.replace(at, '')} {options}",
                   describe(done))
        tap.ok(not hidden(at) and survived(target.pid), "no temporary file is left")
    done = write(target.pid, "/nowhere/core")
    tap.ok(done.returncode == 3 and two_lines(done.stderr), "a process that is gone: exit 3", describe(done))


def hidden(at):
    return [name for name in os.listdir(at) if name.startswith(".")]


def test_traced(tap):
    libc = ctypes.CDLL(None)
    with folder() as at, start_python() as target:
        libc.ptrace(0x4206, target.pid, None, None)  # PTRACE_SEIZE
        libc.ptrace(0x4207, target.pid, None, None)  # PTRACE_INTERRUPT
        wait_for(lambda: proc_status(target.pid)["State"][0] == "t")
        done = write(target.pid, os.path.join(at, "core"))
        tap.ok(done.returncode == 4 and two_lines(done.stderr) and not os.listdir(at), "beside another tracer: exit 4",
               describe(done))


def unharmed(tap, done, at, target, what):
    tap.ok(done.returncode not in (0, -9) and two_lines(done.stderr), f"{what}: cause and remedy", describe(done))
    tap.ok(not os.listdir(at), f"{what}: nothing is left behind", os.listdir(at))
    tap.ok(survived(target.pid) and not held(target.pid), f"{what}: the target runs on")


def test_full_disk(tap):
    def limited():
        _die_with_parent()
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    with folder() as at, start_python() as target:
        for way, options in WAYS.items():
            done = write(target.pid, os.path.join(at, "core"), *options, preexec_fn=limited)
            unharmed(tap, done, at, target, f"file size limit, {way}")
        if run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", at]).returncode:
            tap.skip("full disk", "needs root")
            return
        try:
            for way, options in WAYS.items():
                done = write(target.pid, os.path.join(at, "core"), *options)
                unharmed(tap, done, at, target, f"full disk, {way}")
            tap.ok("not stopped" in done.stderr, "full disk: known before the stop", done.stderr)
        finally:
            run(["umount", at])


def start_write(pid, path, *options):
    return subprocess.Popen([PROGRAM, "core", "-q", "-p", str(pid), "-o", path, *options], stdout=subprocess.DEVNULL,
                            stderr=subprocess.PIPE, text=True, env=environment(), preexec_fn=_die_with_parent)


def handles(p):
    try:
        return p.poll() is not None or int(proc_status(p.pid)["SigCgt"], 16) >> (signal.SIGTERM - 1) & 1
    except KeyError:
        return True


def test_interrupts(tap):
    """At random moments. A SIGKILL may leave the temporary file: nobody is there to remove it."""
    tap.say(f"HEAPCENSUS_SEED={SEED}")
    with folder() as at, start_python(BIG) as target:
        for number in signal.SIGINT, signal.SIGKILL:
            wrong, codes = [], []
            for i in range(8):
                path = os.path.join(at, "core")
                p = start_write(target.pid, path, *list(WAYS.values())[i % 2])
                wait_for(lambda: handles(p))
                time.sleep(CHANCE.uniform(0, 0.25))
                p.send_signal(number)
                said = p.communicate(timeout=20)[1]
                codes.append(p.returncode)
                if not wait_for(lambda: not held(target.pid), 1):
                    wrong.append(f"{i}: held {held(target.pid)}")
                if p.returncode not in (0, 130, -9) or (p.returncode != 0 and os.path.exists(path)):
                    wrong.append(f"{i}: exit {p.returncode} {said}")
                if number == signal.SIGINT and hidden(at):
                    wrong.append(f"{i}: left {hidden(at)}")
                for name in os.listdir(at):
                    os.unlink(os.path.join(at, name))
            tap.say(f"{number.name}: exit codes {codes}")
            tap.ok(not wrong and survived(target.pid), f"{number.name} at 8 moments: the target runs on", "\n".join(wrong))
            tap.ok(any(codes), f"{number.name} came in time at least once")


def test_max_pause(tap):
    with folder() as at, start_python(BIG) as target:
        for way, options in WAYS.items():
            path = os.path.join(at, way)
            done = write(target.pid, path, "--max-pause", "20", *options)
            tap.ok(done.returncode == 6 and two_lines(done.stderr), f"--max-pause 20, {way}: exit 6, cause and remedy",
                   describe(done))
            with Core(path) as core:
                facts = core.facts()
            tap.ok(facts["consistent"] == "0" and int(facts["paused_ns"]) < 120e6, f"--max-pause 20, {way}: let go in time",
                   facts)
            tap.ok(survived(target.pid), f"--max-pause 20, {way}: the target is free")


def state(pid):
    wait_for(lambda: all(thread_status(pid, tid).get("State", "S")[0] == "S" for tid in tasks(pid)))
    status = proc_status(pid)
    fields = "VmRSS", "VmPTE", "VmSize", "SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt", "TracerPid", "Threads"
    threads = [(tid, thread_status(pid, tid).get("SigBlk"), thread_status(pid, tid).get("State")) for tid in tasks(pid)]
    return {f: status[f] for f in fields}, threads, sorted(os.listdir(f"/proc/{pid}/fd"))


def test_harm(tap):
    with folder() as at, start_python(SPARSE) as target:
        for way, options in WAYS.items():
            before = state(target.pid)
            path = os.path.join(at, way)
            done = write(target.pid, path, *options)
            after = state(target.pid)
            tap.ok(done.returncode == 0 and before == after, f"{way}: nothing of the target changes",
                   f"{before}\n{after}\n{describe(done)}")
            tap.ok(os.stat(path).st_size > 16 << 30 and os.stat(path).st_blocks * 512 < 64 << 20,
                   f"{way}: 16 GiB with 100 pages touched make a sparse file")
    with folder() as at, forking(FORKED) as target:
        child = int(target.ready)
        time.sleep(0.1)  # both get to their pause
        for way, options in WAYS.items():
            before = rollup(child)["Pss"]
            done = write(child, os.path.join(at, way), *options)
            after = rollup(child)["Pss"]
            tap.ok(done.returncode == 0 and abs(after - before) <= before / 100, f"{way}: a worker's pages stay shared",
                   f"Pss {before}, then {after}\n{describe(done)}")


main(test_gdb, test_bytes, test_kernel, test_usage, test_traced, test_full_disk, test_interrupts, test_max_pause, test_harm)
