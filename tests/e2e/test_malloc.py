"""The glibc heap against a program that knows its own chunks, on the glibc of this machine and of
Debian's suites, with the variants that change a heap's shape: no live chunk missing or of a wrong
size, no freed one counted as in use, every field of mallinfo2 equal, sums equal."""
import os
import shutil
import subprocess
import sys
import time

TOP = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
BUILD = os.path.join(TOP, os.environ.get("BUILD", "build"))
ROOTS = os.environ.get("HEAPCENSUS_ROOTS", os.path.join(TOP, "build", "roots"))
# malloc_target.c: 1 foreign sbrk, 2 brk blocked, 4 fixed mmap threshold, 8 heaps over 64 MiB,
# 16 half of the threads exit, 32 M_PERTURB, 64 the truth of a forked child
VARIANTS = [(1, 0), (8, 0), (4, 1), (4, 2), (4, 3), (4, 4), (4, 8), (4, 16), (4, 32), (4, 64), (4, 24)]
TUNABLES = [
    "glibc.malloc.tcache_count=0",
    "glibc.malloc.tcache_count=40",
    "glibc.malloc.tcache_max=500",
    "glibc.malloc.tcache_max=4000000",
    "glibc.malloc.mxfast=0",
    "glibc.malloc.hugetlb=1",
    "glibc.malloc.hugetlb=2",
    "glibc.mem.decorate_maps=1",
    "glibc.malloc.arena_max=1",
]
count = 0


def ok(good, name, detail=""):
    global count
    count += 1
    print("%s %d - %s" % ("ok" if good else "not ok", count, name))
    if not good:
        print("\n".join("# " + line for line in str(detail).splitlines()), flush=True)


def skip(name, reason):
    global count
    count += 1
    print("ok %d - %s # SKIP %s" % (count, name, reason), flush=True)


def run(root, libc, threads, options, tunable=None, check=()):
    name = "%s: %d threads, options %d%s%s" % (libc, threads, options, ", " + tunable if tunable else "", "".join(" " + c for c in check))
    folder = (root or "") + "/tmp/heapcensus-malloc" if root else os.path.join(BUILD, "malloc")
    inside = "/tmp/heapcensus-malloc" if root else folder
    os.makedirs(folder, exist_ok=True)
    binary = folder + "/malloc_target"
    if os.path.exists(binary):
        os.unlink(binary)  # the last target may still be dying: a file that runs cannot be written
    shutil.copy(BUILD + "/e2e/malloc_target", binary)
    command = [inside + "/malloc_target", str(threads), str(options), inside + "/truth"]
    # Outside the chroot command itself, LD_PRELOAD would be looked up in the wrong place.
    env = ["env"] + (["GLIBC_TUNABLES=" + tunable] if tunable else [])
    if libc.endswith("2.31"):
        env.append("LD_PRELOAD=libpthread.so.0 libdl.so.2")
    command = (["chroot", root] if root else []) + env + command
    target = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    pid = target.pid
    try:
        words = target.stdout.readline().split()
        if not words or words[0] != "READY":
            ok(False, name, "the target did not start")
            return
        pid = int(words[1])
        result = subprocess.run([BUILD + "/e2e/malloc_check", str(pid), folder + "/truth", *check], capture_output=True, text=True, timeout=60)
        alive = counts(folder + "/truth.count")
        ok(result.returncode == 0 and alive, name, result.stdout[-3000:] + result.stderr[-1000:] + ("" if alive else "\nthe target stood still"))
    finally:
        for p in {pid, target.pid}:
            try:
                os.kill(p, 9)
            except ProcessLookupError:
                pass
        target.wait()
        target.stdout.close()


def counts(path):
    """The target goes on counting."""
    def read():
        return open(path, "rb").read(8)

    first = read()
    for _ in range(100):
        time.sleep(0.01)
        if read() != first:
            return True
    return False


def libc_name(root):
    found = subprocess.run((["chroot", root] if root else []) + ["ldd", "--version"], capture_output=True, text=True)
    return "glibc " + found.stdout.split("\n")[0].split()[-1]


def check_root(root):
    libc = libc_name(root)
    for threads, options in VARIANTS:
        run(root, libc, threads, options)
    for tunable in TUNABLES:
        run(root, libc, 4, 0, tunable)
    run(root, libc, 4, 0, check=("--image",))
    run(root, libc, 4, 0, check=("--no-threads",))


def main():
    check_root(None)
    for suite in ("bullseye", "trixie", "sid"):
        subprocess.run([TOP + "/tests/lib/roots.sh", suite], capture_output=True)
        root, why = os.path.join(ROOTS, suite), os.path.join(ROOTS, suite + ".why")
        if os.path.exists(root + "/bin/sh") and os.geteuid() == 0:
            check_root(root)
        else:
            reason = open(why).read().strip() if os.path.exists(why) else "roots.sh gave no reason"
            skip("Debian " + suite, "the suite could not be installed: " + reason)
    print("1..%d" % count)
    return 0


sys.exit(main())
