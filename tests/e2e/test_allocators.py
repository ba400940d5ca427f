"""Other allocators under a Python: named for what they are, their memory called foreign, the rest walked as ever.

HEAPCENSUS_PRELOADS may name one more folder to look for the libraries in."""
import glob
import os

from lib import main, rollup, start_python
from lib_b import WAYS, Census, held

FOREIGN = [("jemalloc", "libjemalloc.so.2", "libjemalloc2"),
           ("tcmalloc", "libtcmalloc_minimal.so.4", "libtcmalloc-minimal4"),
           ("mimalloc", "libmimalloc.so.2*", "libmimalloc2.0")]

SETTINGS = [("MALLOC_ARENA_MAX=1", {"MALLOC_ARENA_MAX": "1"}),
            ("no tcache", {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"})]

# Blocks for malloc from two threads, some of them freed, and objects for pymalloc.
CODE = """
import sys, threading
keep = [[i, str(i)] for i in range(20000)]
def fill():
    mine = [bytes(1000 + i % 5000) for i in range(10000)]
    del mine[::3]
    keep.append(mine)
    threading.Event().wait()
for _ in range(2):
    threading.Thread(target=fill, daemon=True).start()
while len(keep) < 20002:
    pass
print('READY', flush=True)
sys.stdin.read()
"""


def find(pattern):
    folders = [os.environ.get("HEAPCENSUS_PRELOADS", ""), "/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu"]
    found = [path for folder in folders if folder for path in sorted(glob.glob(os.path.join(folder, pattern)))]
    return found[0] if found else None


def check_whole(tap, name, pid, census):
    """What holds whatever the allocator is."""
    tap.ok(census.code == 0, f"{name}: a whole census", census)
    tap.ok(census.doc and census.adds_up(), f"{name}: the categories add up", census)
    if not census.doc:
        return
    tap.ok(census.doc["memory"]["rss_bytes"] == rollup(pid)["Rss"], f"{name}: Rss is the kernel's",
           f"{census.doc['memory']['rss_bytes']} and {rollup(pid)['Rss']}")
    heap = census.doc["pymalloc"]
    tap.ok(census.doc["python"]["allocator"] == "pymalloc" and heap["blocks_used"] > 40000,
           f"{name}: pymalloc is walked", heap)
    tap.ok(not held(pid), f"{name}: the target is free")


def check_foreign(tap, allocator, path):
    with start_python(CODE, env={"LD_PRELOAD": path}) as target:
        for way, options in WAYS.items():
            name, census = f"{allocator}, {way}", Census(target.pid, *options)
            check_whole(tap, name, target.pid, census)
            if census.doc:
                libc, foreign = census.doc["libc"], census.category("malloc.foreign")
                tap.ok(libc["allocator"] == allocator, f"{name}: its name", libc)
                tap.ok(foreign["resident_bytes"] > 20000000, f"{name}: its memory is foreign", foreign)
                unknown = census.category("unknown")["resident_bytes"]
                tap.say(f"{name}: foreign {foreign['resident_bytes']}, unknown {unknown}")


def test_foreign(tap):
    for allocator, pattern, package in FOREIGN:
        path = find(pattern)
        if path:
            check_foreign(tap, allocator, path)
        else:
            tap.skip(f"under {allocator}", f"{package} is not installed")


def check_glibc(tap, what, env):
    with start_python(CODE, env=env) as target:
        census = Census(target.pid)
        check_whole(tap, what, target.pid, census)
        if census.doc:
            tap.ok(census.doc["libc"]["allocator"] == "glibc", f"{what}: still glibc's malloc", census.doc["libc"])
            foreign = census.category("malloc.foreign")
            tap.ok(foreign["bytes"] == 0, f"{what}: nothing is foreign", foreign)
            used = census.doc["malloc"]["used_bytes"]
            tap.ok(used > 40000000, f"{what}: its chunks are counted", used)
        return census.doc


def test_settings(tap):
    docs = {what: check_glibc(tap, what, env) for what, env in SETTINGS}
    if docs["MALLOC_ARENA_MAX=1"]:
        tap.ok(docs["MALLOC_ARENA_MAX=1"]["malloc"]["arenas"] == 1, "MALLOC_ARENA_MAX=1: one arena")
    if docs["no tcache"]:
        cached = docs["no tcache"]["malloc"]["cached_bytes"]
        tap.say(f"no tcache: cached_bytes {cached} (fast bins)")


def test_malloc_debug(tap):
    path = find("libc_malloc_debug.so.0")
    if not path:
        tap.skip("with libc_malloc_debug", "libc6's libc_malloc_debug.so.0 is not installed")
        return
    check_glibc(tap, "libc_malloc_debug", {"LD_PRELOAD": path})
    check_checked(tap, path)


def check_checked(tap, path):
    """With MALLOC_CHECK_ the library allocates from a main arena of its own, a second one in the process: what cannot
    be walked may be missing from malloc's counts, but not from the sums, and not silently."""
    with start_python(CODE, env={"LD_PRELOAD": path, "MALLOC_CHECK_": "3"}) as target:
        census = Census(target.pid)
        tap.say(f"MALLOC_CHECK_=3: {census}, {census.doc and census.doc['notes']}")
        tap.ok(census.code == 0 or census.code == 6 and census.notes(), "MALLOC_CHECK_=3: whole, or it says what is not",
               census)
        tap.ok(census.doc and census.adds_up(), "MALLOC_CHECK_=3: the categories add up", census)


main(test_foreign, test_settings, test_malloc_debug)
