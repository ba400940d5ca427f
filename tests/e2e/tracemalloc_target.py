"""The target of test_tracemalloc_matrix.py: traced from its start (PYTHONTRACEMALLOC), it makes known allocations and tells
what tracemalloc knows of them, twice: before and after it has grown.

usage: tracemalloc_target.py FOLDER TRACES

Each time it writes FOLDER/traces.0 or .1 (marshal: the list that take_snapshot() makes its snapshot of) and facts.0 or
.1 (8-byte integers: traced bytes, their peak, the overhead, the limit, is_tracing), prints one byte, R, and waits for
SIGUSR1. tracemalloc_judge.py makes Python's own statistics of the files.

To tell is to allocate. So everything is told before it counts: what telling keeps is then there already, and what it
frees has gone before the byte is written. The list itself stays, and was in the table when it was told; tracemalloc
does not trace what it puts into it. That empties the freelists, and a freed object in a freelist stays traced: so the
end of the list is dropped before the figures are asked for, whose tuples and integers are then made of untraced ones,
and leave no trace. The peak lies above all that telling needs. Runs on Python 3.8 and newer."""
import array
import ctypes
import gc
import marshal
import os
import signal
import sys
import time
import tracemalloc

import _tracemalloc

# Every kind of str that a file name can be: ASCII, Latin-1, UCS-2, UCS-4; a byte that is no UTF-8; a new line.
FILES = ("plain.py", "caf\xe9.py", "\u0444\u0430\u0439\u043b.py", "\u6587\u4ef6\U0001f40d.py", "with space.pyc",
         "<generated %s>" % ("x" * 300), "bad\udce9.py", "two\nlines:7.py")
SOURCE = """
class Row:  # of a type that keeps no freelist
    __slots__ = ()

class Session:
    def __init__(self, n):
        self.data = bytes(n)

def make(n):
    return [Session(i) for i in range(n)]

def deep(depth, n):
    if depth:
        return deep(depth - 1, n)
    return [bytearray(i + 1) for i in range(n)]

def many(into, n):
    for _ in range(n):
        into.append(Row())
"""
KEEP = []
DOMAINS = ((1, 0x10, 4096), (1, 0x7fff12345678, 8), (389047, 0x20, 80000), (0xffffffff, 0x30, 1), (7, 0x10, 1 << 40))


def module_of(name):
    space = {"__name__": "made"}
    # compile() itself takes no name with a lone surrogate; importing a file of such a name makes one
    exec(renamed(compile(SOURCE, "renamed", "exec"), name), space)
    return space


def renamed(code, name):
    """A code object, and those in it, of another file."""
    inner = tuple(renamed(c, name) if isinstance(c, type(code)) else c for c in code.co_consts)
    return code.replace(co_filename=name, co_consts=inner)


def grow(modules, scale):
    """One more step of the same lines; a list of what it made."""
    made = []
    for number, space in enumerate(modules):
        made.append(space["make"](scale * (number + 1)))
        made.append(space["deep"](3 + 40 * number, scale))
    return made


def track(domains):
    """What an extension does for memory that is not Python's."""
    call = ctypes.pythonapi.PyTraceMalloc_Track
    call.argtypes = (ctypes.c_uint, ctypes.c_size_t, ctypes.c_size_t)
    call.restype = ctypes.c_int
    for domain, address, size in domains:
        if call(domain, address, size) != 0:
            raise MemoryError(domain)


class Teller:
    """Tells into files that are open already."""

    def __init__(self, folder, traces):
        self.dropped = (None,) * (4000 + traces // 4)
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC
        self.files = [(os.open("%s/traces.%d" % (folder, n), flags, 0o644), os.open("%s/facts.%d" % (folder, n), flags, 0o644))
                      for n in (0, 1)]
        self.facts = array.array("Q", bytes(8 * 5))
        self.go = [False]
        signal.signal(signal.SIGUSR1, self.wake)

    def wake(self, *unused):
        self.go[0] = True

    def tell(self, number, loud):
        # Looked up first: an attribute's lookup can free a block, as the cache of methods holds the last reference to
        # some names. At most three in a line, as more make a tuple.
        traces_fd, facts_fd = self.files[number]
        facts, go, pause = self.facts, self.go, signal.pause
        dropped = self.dropped
        write, pwrite, truncate = os.write, os.pwrite, os.ftruncate
        dumps, pop = marshal.dumps, list.pop
        memory, overhead = tracemalloc.get_traced_memory, tracemalloc.get_tracemalloc_memory
        limit, tracing = tracemalloc.get_traceback_limit, tracemalloc.is_tracing
        table = _tracemalloc._get_traces()
        truncate(traces_fd, 0)
        data = dumps(table)
        for _ in dropped:
            pop(table)
        pwrite(traces_fd, data, 0)
        del data
        facts[3], facts[4] = limit(), tracing()
        facts[2] = overhead()
        facts[0], facts[1] = memory()
        pwrite(facts_fd, facts, 0)
        if loud:
            write(1, b"R")
            while not go[0]:
                pause()
            go[0] = False

    def tell_well(self, number):
        bytes(128 << 20)  # raises the peak
        for loud in (False, False, True):
            self.tell(number, loud)


def main():
    folder, traces = sys.argv[1], int(sys.argv[2])
    gc.collect()
    gc.disable()
    teller = Teller(folder, traces)
    modules = [module_of(name) for name in FILES]
    KEEP.append(grow(modules, 40))
    KEEP.append([bytes(2000 + i) for i in range(1000)])  # sizes that are no small integers
    large = []
    KEEP.append(large)
    modules[0]["many"](large, traces)
    teller.tell_well(0)
    KEEP.append(grow(modules, 10))
    del KEEP[0][::3]
    track(DOMAINS)
    del large[::10]
    KEEP.append(bytes(3 << 20))
    teller.tell_well(1)
    while True:
        time.sleep(3600)


main()
