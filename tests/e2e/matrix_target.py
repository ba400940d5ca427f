"""The target of test_matrix.py: makes a mixed heap, writes its own truth and sleeps.

usage: matrix_target.py STATS MALLINFO BLOCKS

STATS: what sys._debugmallocstats() prints. MALLINFO: the raw struct mallinfo2 (mallinfo before glibc
2.33). BLOCKS: sys.getallocatedblocks() as 8 bytes. Nothing is allocated between the last of these and
the sleep, and what one needs was allocated by a first, discarded round. Runs on Python 3.8 and newer."""
import array
import gc
import os
import sys
import threading
import time

asleep = []


def fill():
    keep = [b"x" * s for s in range(1, 700, 7) for _ in range(60)]
    texts = [str(i) * 3 for i in range(60000)]
    table = {i: [i] for i in range(20000)}
    big = [bytes(1000 + 37 * i) for i in range(300)]
    huge = [bytearray(1 << 20), bytearray(300000)]
    del texts[::2], big[::3]
    for i in range(0, 20000, 3):
        del table[i]
    return keep, texts, table, big, huge


def idle_thread():
    mine = [bytes(600 + i) for i in range(200)]
    del mine[::2]
    asleep.append(1)
    time.sleep(100000)


def start_idle(n):
    """Start n threads and wait until they allocate no more, however busy the machine is: whoever has appended holds
    the GIL, as nobody may take it away, until it sleeps."""
    sys.setswitchinterval(3600)
    for _ in range(n):
        threading.Thread(target=idle_thread, daemon=True).start()
    while len(asleep) < n:
        time.sleep(0.01)


def mallinfo():
    """A function that returns a buffer with mallinfo, or None where there is none."""
    try:
        import ctypes

        libc = ctypes.CDLL(None)
        for name, kind in (("mallinfo2", ctypes.c_size_t), ("mallinfo", ctypes.c_int)):
            function = getattr(libc, name, None)
            if function is not None:
                fields = [("f%d" % i, kind) for i in range(10)]
                function.restype = type("Mallinfo", (ctypes.Structure,), {"_fields_": fields})
                return function
    except (ImportError, OSError, AttributeError):
        pass
    return None


def main():
    stats, info, blocks = (os.open(p, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644) for p in sys.argv[1:4])
    keep = fill()
    # getallocatedblocks() of mimalloc counts the blocks of the calling thread only
    start_idle(0 if os.environ.get("PYTHONMALLOC") == "mimalloc" else 2)
    gc.collect()
    gc.disable()
    function, count = mallinfo(), array.array("q", [0])
    saved = os.dup(2)
    os.dup2(stats, 2)
    # To look an attribute up can free a block: the cache of methods holds the last reference to some names.
    debug_stats, dup2, write, sleep = sys._debugmallocstats, os.dup2, os.write, time.sleep

    def tell():
        os.ftruncate(stats, 0)
        os.lseek(stats, 0, os.SEEK_SET)
        os.lseek(info, 0, os.SEEK_SET)
        os.lseek(blocks, 0, os.SEEK_SET)
        if function is not None:
            write(info, function())
        count[0] = sys.getallocatedblocks()
        write(blocks, count)
        debug_stats()
        dup2(saved, 2)
        if ready[0]:
            write(1, b"R")
            while True:  # no loop object, no return: nothing is freed after the truth was told
                sleep(3600)

    ready = [False]
    tell()  # finds out what it needs; the second time it is all there
    ready[0] = True
    os.dup2(stats, 2)
    tell()


main()
