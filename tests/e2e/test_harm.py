"""A census must not cost or change its target anything: shared pages stay shared, no page tables grow, no
cgroup is pushed over its limit, signals, files, threads and children stay; and heapcensus asks for no more."""
import os
import re
import shutil
import tempfile
import time

from lib import PROGRAM, main, proc_status, rollup, run, start_python, survived
from lib_b import WAYS, Census, forking, tasks, thread_status

FORKED = """
import os, signal
keep = [bytes(1000) for _ in range(100000)], bytearray(b'x') * (100 << 20)
child = os.fork()
if child:
    print('READY', child, flush=True)
    signal.pause()
signal.pause()
"""

SPARSE = """
import mmap, signal
m = mmap.mmap(-1, 16 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)  # MAP_NORESERVE
m.madvise(mmap.MADV_NOHUGEPAGE)
for i in range(100):
    m[i * ((16 << 30) // 100)] = 1
print('READY', flush=True)
signal.pause()
"""

SIGNALS = """
import os, signal, threading
signal.signal(signal.SIGUSR1, lambda *_: None)
signal.signal(signal.SIGUSR2, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP, signal.SIGRTMIN + 3])
for _ in range(3):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
pipe = os.pipe()
if os.fork():
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGRTMIN + 3)
    print('READY', flush=True)
signal.pause()
"""

TRACED = ("open,openat,openat2,creat,ptrace,process_vm_readv,process_vm_writev,pwrite64,execve,kill,tgkill,tkill,"
          "rt_sigqueueinfo,rt_tgsigqueueinfo,pidfd_send_signal")
PTRACE_ALLOWED = {"PTRACE_SEIZE", "PTRACE_INTERRUPT", "PTRACE_GETREGSET", "PTRACE_DETACH", "PTRACE_CONT"}


def test_forked_worker(tap):
    with forking(FORKED) as target:
        child = int(target.ready)
        for way, options in WAYS.items():
            before = rollup(child)["Pss"]
            census = Census(child, *options)
            after = rollup(child)["Pss"]
            tap.ok(census.code == 0 and census.adds_up(), "forked worker, %s: a whole census" % way, str(census))
            tap.ok(abs(after - before) <= before / 100, "forked worker, %s: its pages stay shared" % way,
                   "Pss %d before, %d after" % (before, after))


def test_sparse(tap):
    with start_python(SPARSE) as target:
        for way, options in WAYS.items():
            before = proc_status(target.pid)
            census = Census(target.pid, *options)
            after = proc_status(target.pid)
            for field in "VmPTE", "VmRSS":
                tap.ok(before[field] == after[field], "sparse 16 GiB, %s: %s stays" % (way, field),
                       "%s before, %s after" % (before[field], after[field]))
            tap.ok(census.code == 0 and census.took < 2, "sparse 16 GiB, %s: done in time" % way, str(census))


def memory_cgroup():
    """A new memory cgroup of 320 MiB beside ours; (folder, its counters' files) or None."""
    with open("/proc/self/cgroup") as f:
        ours = {line.split(":")[1]: line.strip().split(":", 2)[2] for line in f}
    if "memory" in ours:
        base, limit = "/sys/fs/cgroup/memory" + ours["memory"], "memory.limit_in_bytes"
        counters = "memory.failcnt", "memory.oom_control"
    else:
        base, limit = "/sys/fs/cgroup" + os.path.dirname(ours.get("", "/")), "memory.max"
        counters = ("memory.events",)
    folder = os.path.join(base, "heapcensus-test-%d" % os.getpid())
    try:
        os.mkdir(folder)
    except OSError:
        return None
    try:
        with open(os.path.join(folder, limit), "w") as f:
            f.write(str(320 << 20))
        return folder, [os.path.join(folder, c) for c in counters]
    except OSError:
        os.rmdir(folder)
        return None


def read_all(paths):
    return [open(p).read() for p in paths]


def test_cgroup(tap):
    made = memory_cgroup()
    if not made:
        tap.skip("in a memory cgroup", "no memory cgroup can be made here")
        return
    folder, counters = made

    def enter():
        with open(os.path.join(folder, "cgroup.procs"), "w") as f:
            f.write("0")

    try:
        with forking(FORKED, preexec_fn=enter) as target:
            child = int(target.ready)
            for way, options in WAYS.items():
                before = read_all(counters)
                census = Census(child, *options)
                tap.ok(census.code == 0, "cgroup, %s: a census" % way, str(census))
                tap.ok(survived(target.pid) and survived(child),
                       "cgroup, %s: parent and child live" % way)
                tap.ok(read_all(counters) == before, "cgroup, %s: its counters stay" % way,
                       "%r" % (read_all(counters),))
    finally:
        remove_cgroup(tap, folder)


def remove_cgroup(tap, folder):
    """The kernel takes a moment to empty it after its last process."""
    for _ in range(100):
        try:
            os.rmdir(folder)
            return
        except OSError:
            time.sleep(0.05)
    tap.say("left behind: a memory cgroup that would not go")


def traits(pid):
    """What no reader may change: signals, files, threads, children."""
    fields = "SigBlk", "SigIgn", "SigCgt", "ShdPnd", "SigPnd", "TracerPid", "FDSize", "NoNewPrivs"
    fds = "/proc/%d/fd" % pid
    return {
        "signals": {t: [thread_status(pid, t)[f] for f in fields] for t in tasks(pid)},
        "fds": {f: os.readlink(os.path.join(fds, f)) for f in os.listdir(fds)},
        "threads": tasks(pid),
        "children": [open("/proc/%d/task/%d/children" % (pid, t)).read() for t in tasks(pid)],
    }


def test_traits(tap):
    with forking(SIGNALS) as target:
        first = traits(target.pid)
        tap.say("pending: ShdPnd %s" % proc_status(target.pid)["ShdPnd"])
        for way, options in WAYS.items():
            census = Census(target.pid, *options)
            now = traits(target.pid)
            for what in first:
                tap.ok(now[what] == first[what], "%s: %s stay" % (way, what),
                       "%s\n%s\n%s" % (census, first[what], now[what]))


def trace(pid, options):
    """The system calls of a census, as strace tells them."""
    with tempfile.NamedTemporaryFile() as out:
        done = run(["strace", "-f", "-o", out.name, "-e", "trace=" + TRACED, PROGRAM, "summary", "-q", "--json", pid,
                    *options])
        with open(out.name, errors="replace") as f:
            return done.returncode, f.read().splitlines()


def test_calls(tap):
    if not shutil.which("strace"):
        tap.skip("the system calls of a census", "strace is not installed")
        return
    with forking(SIGNALS) as target:
        for way, options in WAYS.items():
            code, lines = trace(target.pid, options)
            asked = set(re.findall(r"ptrace\((PTRACE_\w+)", "\n".join(lines)))
            wanted = set() if way == "no-pause" else {"PTRACE_SEIZE", "PTRACE_INTERRUPT", "PTRACE_DETACH"}
            tap.ok(code == 0 and wanted <= asked <= PTRACE_ALLOWED, "%s: no ptrace but what stopping needs" % way,
                   "exit %d, %s" % (code, sorted(asked)))
            written = [l for l in lines if re.search(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|creat\(", l)]
            tap.ok(not written, "%s: nothing is opened for writing" % way, "\n".join(written[:5]))
            mem = [l for l in lines if re.search(r'/mem"', l)]
            tap.ok(mem and all("O_RDONLY" in l for l in mem), "%s: mem is opened read-only" % way, "\n".join(mem[:5]))
            other = [l for l in lines if re.search(r"process_vm|pwrite64\(|\bt?g?kill\(|sigqueueinfo|send_signal", l)]
            tap.ok(not other and sum("execve(" in l for l in lines) == 1,
                   "%s: no other access, no signal, no program" % way, "\n".join(other[:5]))


main(test_forked_worker, test_sparse, test_cgroup, test_traits, test_calls)
