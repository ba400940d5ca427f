"""Targets of every kind: renamed, deleted, in other namespaces, dead, foreign, stopped, traced.

Each one that can be read must be read to the byte and live on; each one that cannot must be refused with the
promised exit code and two lines, a cause and a remedy."""
import os
import shutil
import signal
import subprocess
import tempfile

from lib import (PYTHON, PROGRAM, children, describe, environment, heapcensus, main, proc_status, rollup, snapshot,
                 start, start_python, survived, two_lines, wait_for)

ECHO = """
import sys
kept = [str(i) * 3 for i in range(5000)]
print('READY', flush=True)
for line in sys.stdin:
    print('echo', line.strip(), len(kept), flush=True)
"""
ROOT_ONLY = "needs root"
IS_ROOT = os.geteuid() == 0


def answers(target):
    """The target still does what it did before."""
    target.send("hello")
    return target.line() == "echo hello 5000"


def adds_up(shot, pid):
    """Categories, mappings and the kernel's Rss agree."""
    memory = shot.one("memory")
    sums = [sum(c[key] for c in memory["categories"]) for key in ("bytes", "resident_bytes")]
    return sums == [memory["mapped_bytes"], memory["rss_bytes"]] and memory["rss_bytes"] == rollup(pid)["Rss"]


def check_readable(tap, target, name, pid=None, exe=None):
    """The whole of what a readable target must give; `target` runs ECHO."""
    pid = pid or target.pid
    shot = snapshot(pid)
    tap.ok(shot.done.returncode == 0, f"{name}: exit 0", describe(shot.done))
    tap.ok(shot["pymalloc"] and shot.one("pymalloc")["blocks_used"] > 5000, f"{name}: Python's blocks are counted")
    tap.ok(adds_up(shot, pid), f"{name}: adds up to the resident set", shot["memory"])
    python = shot.header["python"] or {}
    tap.ok(str(python.get("version", "")).startswith("3."), f"{name}: version known", python)
    if exe:
        tap.ok(exe in shot.header["source"]["exe"], f"{name}: the executable is named", shot.header["source"])
    tap.ok(survived(pid) and answers(target), f"{name}: lives on", proc_status(pid))


def check_refused(tap, done, status, name, *words):
    tap.ok(done.returncode == status, f"{name}: exit {status}", describe(done))
    tap.ok(two_lines(done.stderr), f"{name}: a line of cause and one of remedy", describe(done))
    tap.ok(done.stdout == "", f"{name}: nothing on stdout", describe(done))
    for word in words:
        tap.ok(word in done.stderr, f"{name}: says {word}", describe(done))


def copy_python(folder, name):
    path = os.path.join(folder, name)
    shutil.copy(os.path.realpath(PYTHON), path)
    return path


def test_renamed(tap):
    with tempfile.TemporaryDirectory() as folder:
        exe = copy_python(folder, "billing-worker")
        with start_python(ECHO, exe=exe) as target:
            check_readable(tap, target, "renamed executable", exe="billing-worker")


def test_deleted(tap):
    with tempfile.TemporaryDirectory() as folder:
        exe = copy_python(folder, "pyold")
        with start_python(ECHO, exe=exe) as target:
            os.unlink(exe)
            check_readable(tap, target, "deleted executable", exe="pyold")


def test_replaced(tap):
    """A package upgrade: another file lies now where the target's executable was."""
    with tempfile.TemporaryDirectory() as folder:
        exe = copy_python(folder, "pyold")
        with start_python(ECHO, exe=exe) as target:
            os.unlink(exe)
            shutil.copy("/bin/true", exe)
            check_readable(tap, target, "replaced executable")


def host_pid(outer):
    """unshare -f has one child, the target: its PID as we see it."""
    found = wait_for(lambda: children(outer.pid))
    return found[0]


def end_inner(pid):
    """PID 1 of a namespace does not die with its unshare."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def test_namespaces(tap):
    if not IS_ROOT:
        return tap.skip("own mount and pid namespace", ROOT_ONLY)
    with start_python(ECHO, prefix=["unshare", "-m", "-p", "-f", "--mount-proc"]) as outer:
        pid = host_pid(outer)
        try:
            check_readable(tap, outer, "own mount and pid namespace", pid)
        finally:
            end_inner(pid)


CONTAINER = """
set -e
mount -t tmpfs none "$0"
mkdir -p "$0"/usr "$0"/proc "$0"/dev "$0"/opt "$0"/etc
for d in lib lib64 bin; do [ -h /$d ] && ln -s usr/$d "$0"/$d; done
mount --rbind /usr "$0"/usr
mount --rbind /dev "$0"/dev
mount -t proc proc "$0"/proc
cp "$1" "$0"/opt/snake
exec chroot "$0" /opt/snake -c "$2"
"""


def test_container(tap):
    """Its executable is at a path that exists only inside, on a tmpfs that only it can see."""
    if not IS_ROOT or not os.path.islink("/lib"):
        return tap.skip("a root directory of its own", ROOT_ONLY)
    with tempfile.TemporaryDirectory() as root:
        command = ["unshare", "-m", "-p", "-f", "sh", "-c", CONTAINER, root, os.path.realpath(PYTHON), ECHO]
        with start(command) as outer:
            outer.wait_ready()
            pid = host_pid(outer)
            try:
                check_readable(tap, outer, "a root directory of its own", pid, exe="/opt/snake")
            finally:
                end_inner(pid)


def test_zombie(tap):
    code = "import os\npid = os.fork()\nif pid == 0: os._exit(0)\nprint('READY', pid, flush=True)\ninput()"
    with start_python(code) as parent:
        pid = int(parent.ready)
        wait_for(lambda: proc_status(pid).get("State", "")[:1] == "Z")
        check_refused(tap, heapcensus(pid), 3, "zombie", "exited")


def test_kernel_thread(tap):
    if proc_status(2).get("Kthread", "1" if proc_status(2).get("Name") == "kthreadd" else "0") != "1":
        return tap.skip("kernel thread", "kernel threads are not visible here")
    check_refused(tap, heapcensus(2), 5, "kernel thread", "kernel thread")


def test_no_such_pid(tap):
    with start(["sleep", "60"]) as process:
        pid = process.pid
    check_refused(tap, heapcensus(pid), 3, "no such pid", str(pid))
    done = heapcensus("doctor", pid)
    tap.ok(done.returncode == 3 and str(pid) in done.stdout, "doctor, no such pid: exit 3, and says so", describe(done))


AS_NOBODY = ["runuser", "-u", "nobody", "--"]


def as_nobody(folder):
    """A command prefix, and a copy of the program where nobody can reach it."""
    os.chmod(folder, 0o755)
    copy = os.path.join(folder, "heapcensus")
    shutil.copy(PROGRAM, copy)
    os.chmod(copy, 0o755)
    return AS_NOBODY, copy


def run_as_nobody(folder, *args):
    prefix, program = as_nobody(folder)
    return subprocess.run([*prefix, program, *map(str, args)], capture_output=True, text=True, env=environment(),
                          cwd="/", stdin=subprocess.DEVNULL, timeout=60, check=False)


def test_other_user(tap):
    if not IS_ROOT or not shutil.which("runuser"):
        return tap.skip("another user's process", ROOT_ONLY)
    with tempfile.TemporaryDirectory() as folder, start_python(ECHO) as target:
        check_refused(tap, run_as_nobody(folder, target.pid), 4, "another user's process", "root")
        done = run_as_nobody(folder, "snapshot", target.pid, "-o", "-")
        check_refused(tap, done, 4, "snapshot of another user's process", "root")
        done = run_as_nobody(folder, "doctor", target.pid)
        tap.ok(done.returncode == 4 and "access" in done.stdout, "doctor names the missing right", describe(done))
        tap.ok(survived(target.pid) and answers(target), "another user's process lives on")


def test_own_user(tap):
    """Without privileges, and reading a process of the same user."""
    if not IS_ROOT or not shutil.which("runuser"):
        return tap.skip("an unprivileged user's own process", ROOT_ONLY)
    try:
        with open("/proc/sys/kernel/yama/ptrace_scope") as f:
            scope = f.read().strip()
    except OSError:
        scope = "0"
    with tempfile.TemporaryDirectory() as folder:
        with start_python(ECHO, prefix=["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"], cwd="/") as target:
            done = run_as_nobody(folder, target.pid)
            if scope == "0":
                tap.ok(done.returncode in (0, 6) and "python.blocks.used" in done.stdout,
                       "an unprivileged user reads a process of their own", describe(done))
            else:
                check_refused(tap, done, 4, "an unprivileged user under Yama", "ptrace_scope")
            tap.ok(survived(target.pid) and answers(target), "an unprivileged user's process lives on")


def test_not_python(tap):
    with start(["sleep", "60"]) as process:
        check_refused(tap, heapcensus(process.pid), 5, "not Python", "CPython")
        tap.ok(survived(process.pid), "not Python: lives on", proc_status(process.pid))


def state(pid):
    return proc_status(pid).get("State", "?")[:1]


def test_stopped(tap):
    with start_python(ECHO) as target:
        os.kill(target.pid, signal.SIGSTOP)
        wait_for(lambda: state(target.pid) == "T")
        shot = snapshot(target.pid)
        tap.ok(shot.done.returncode == 0, "stopped target: exit 0", describe(shot.done))
        tap.ok(adds_up(shot, target.pid), "stopped target: adds up", shot["memory"])
        status = proc_status(target.pid)
        tap.ok(state(target.pid) == "T" and status["TracerPid"] == "0", "stopped target: still stopped", status)
        os.kill(target.pid, signal.SIGCONT)
        tap.ok(wait_for(lambda: state(target.pid) in "SR"), "stopped target: SIGCONT wakes it", proc_status(target.pid))
        tap.ok(answers(target), "stopped target: lives on")


def start_gdb(pid, *commands):
    words = [word for command in commands for word in ("-ex", command)]
    return start(["gdb", "-q", "-nx", "-iex", "set debuginfod enabled off", "-p", pid, *words], stderr=subprocess.DEVNULL)


def traced(pid):
    return wait_for(lambda: proc_status(pid).get("TracerPid", "0") != "0", 20)


def test_held_by_gdb(tap):
    if not shutil.which("gdb"):
        return tap.skip("held by gdb", "gdb is not installed")
    with start_python(ECHO) as target:
        with start_gdb(target.pid, "print 6*7") as gdb:
            gdb.wait_ready("$1 = 42")
            tap.ok(state(target.pid) == "t", "held by gdb: the test itself", proc_status(target.pid))
            shot = snapshot(target.pid)
            tap.ok(shot.done.returncode == 0, "held by gdb: read beside it", describe(shot.done))
            tap.ok(adds_up(shot, target.pid), "held by gdb: adds up", shot["memory"])
            notes = [note for note in shot["note"] if "gdb" in note["why"]]
            tap.ok(notes, "held by gdb: a note says so", shot["note"])
            status = proc_status(target.pid)
            tap.ok(status["TracerPid"] == str(gdb.pid) and status["State"][:1] == "t",
                   "held by gdb: still held by gdb", status)
            done = heapcensus("doctor", target.pid)
            tap.ok("gdb" in done.stdout, "held by gdb: doctor names it", describe(done))
            gdb.send("detach")
            gdb.send("quit")
            gdb.popen.wait(timeout=20)
        tap.ok(wait_for(lambda: survived(target.pid)) and answers(target), "held by gdb: lives on afterwards",
               proc_status(target.pid))


def check_running_tracer(tap, target, tracer, name):
    done = heapcensus(target.pid)
    check_refused(tap, done, 4, f"traced by {name}", name, str(tracer.pid))
    status = proc_status(target.pid)
    tap.ok(status["TracerPid"] == str(tracer.pid), f"traced by {name}: still its tracee", status)
    tap.ok(answers(target), f"traced by {name}: runs on")
    shot = snapshot(target.pid, "--no-pause")
    tap.ok(shot.done.returncode in (0, 6), f"traced by {name}: --no-pause reads it", describe(shot.done))


def test_strace(tap):
    if not shutil.which("strace"):
        return tap.skip("traced by strace", "strace is not installed")
    with start_python(ECHO) as target:
        with start(["strace", "-qq", "-o", "/dev/null", "-p", target.pid]) as tracer:
            traced(target.pid)
            check_running_tracer(tap, target, tracer, "strace")
            tracer.popen.terminate()
            tracer.popen.wait(timeout=10)
        tap.ok(wait_for(lambda: survived(target.pid)) and answers(target), "traced by strace: lives on afterwards")


def test_gdb_running(tap):
    if not shutil.which("gdb"):
        return tap.skip("traced by gdb", "gdb is not installed")
    with start_python(ECHO) as target:
        with start_gdb(target.pid, "print 6*7", "continue") as gdb:
            gdb.wait_ready("$1 = 42")
            wait_for(lambda: state(target.pid) in "SR")
            check_running_tracer(tap, target, gdb, "gdb")
            gdb.popen.send_signal(signal.SIGINT)
            gdb.send("detach")
            gdb.send("quit")
            gdb.popen.wait(timeout=20)
        tap.ok(wait_for(lambda: survived(target.pid)) and answers(target), "traced by gdb: lives on afterwards")


if __name__ == "__main__":
    main(test_renamed, test_deleted, test_replaced, test_namespaces, test_container, test_zombie, test_kernel_thread,
         test_no_such_pid, test_other_user, test_own_user, test_not_python, test_stopped, test_held_by_gdb, test_strace,
         test_gdb_running)
