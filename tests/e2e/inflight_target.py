"""A process that is always in the middle of something: a population that stays, of which every figure is known, and a
thread that does one thing over and over. Runs on Python 3.8 and newer.

usage: inflight_target.py FOLDER SCALE     FOLDER: where the addresses of the builtin containers are written
Prints READY and, as JSON, type -> [objects, buffers]. Then, for each line of its input: a name of JOBS, which runs
until the next line; prints NAME when it is under way."""
import array
import collections
import gc
import json
import os
import sys
import threading
import time
import weakref

VALUES_IN_BUFFERS = (3, 11) <= sys.version_info < (3, 13)  # before: in a dict of its own; later: in the instance
ARRAY_OF_ITS_OWN = sys.version_info < (3, 15)  # of a bytearray; later it has a bytes object
TRUTH, KEEP, CONTAINERS = {}, [], array.array("q")


class Plain:
    def __init__(self, n):
        self.number, self.text, self.ring = n, "plain %d" % n, self


class Slotted:
    __slots__ = ("one", "two", "__weakref__")

    def __init__(self, n):
        self.one, self.two = [n], self


class Untracked:
    __slots__ = ()


class FixedList(list):
    __slots__ = ()


class FixedDict(dict):
    __slots__ = ()


class FixedSet(set):
    __slots__ = ()


class FixedTuple(tuple):
    __slots__ = ()


class FixedStr(str):
    __slots__ = ()


class FixedBytearray(bytearray):
    __slots__ = ()


class FixedArray(array.array):
    __slots__ = ()


class FixedDeque(collections.deque):
    __slots__ = ()


class FixedOrdered(collections.OrderedDict):
    __slots__ = ()


class WithValue(Exception):
    pass


def keep(cls, things, buffers):
    """things: a list of instances of cls, which own so many buffers in all."""
    KEEP.append(things)
    TRUTH[cls.__module__ + "." + cls.__qualname__] = [len(things), buffers]


def many_classes():
    """Types are objects of the collector, too, whose blocks say little of their size."""
    made = []
    for n in range(200):
        cls = type("Made%d" % n, (Plain,), {"__slots__": ("slot_%d" % n,)} if n % 2 else {})
        made.append(cls)
        keep(cls, [cls(n) for _ in range(3)], 3 if VALUES_IN_BUFFERS else 0)
    KEEP.append(made)


def mixed(n):
    return {"key": [n], n: (n, [n])}


def populate(scale):
    keep(Plain, [Plain(n) for n in range(20 * scale)], 20 * scale if VALUES_IN_BUFFERS else 0)
    keep(Slotted, [Slotted(n) for n in range(20 * scale)], 0)
    keep(Untracked, [Untracked() for _ in range(5 * scale)], 0)
    keep(FixedList, [FixedList([n, []]) for n in range(10 * scale)], 10 * scale)
    keep(FixedDict, [FixedDict({n: [n], "text": None}) for n in range(10 * scale)], 10 * scale)
    keep(FixedSet, [FixedSet(range(n, n + 9)) for n in range(5 * scale)], 5 * scale)  # more than lie in the set itself
    keep(FixedTuple, [FixedTuple([n, []] * (n % 5)) for n in range(10 * scale)], 0)
    keep(FixedStr, [FixedStr("text %d" % n) for n in range(5 * scale)], 5 * scale)
    keep(FixedBytearray, [FixedBytearray(b"x" * (n % 900 + 1)) for n in range(2 * scale)], 2 * scale if ARRAY_OF_ITS_OWN else 0)
    keep(FixedArray, [FixedArray("q", range(n % 90 + 1)) for n in range(2 * scale)], 2 * scale)
    keep(FixedDeque, [FixedDeque([n, []] * 40) for n in range(scale)], 2 * scale)
    keep(FixedOrdered, [FixedOrdered([(n, []), (-n - 1, n)]) for n in range(2 * scale)], 2 * scale * 4)
    keep(WithValue, [WithValue(n, []) for n in range(2 * scale)], 0)
    many_classes()
    for name, made in (("list", [[n, None] for n in range(20 * scale)]), ("dict", [mixed(n) for n in range(20 * scale)]),
                       ("set", [set(range(9)) for _ in range(5 * scale)])):
        KEEP.append(made)
        CONTAINERS.extend([{"list": 1, "dict": 2, "set": 3}[name], len(made)])
        CONTAINERS.extend(map(id, made))


class Worker:
    """wanted: the job that runs; done is set when it may end."""

    def __init__(self):
        self.done, self.under_way, self.wanted = threading.Event(), threading.Event(), None
        self.next, self.over = threading.Semaphore(0), threading.Semaphore(0)

    def run(self):
        while True:
            self.next.acquire()
            JOBS[self.wanted](self)
            self.over.release()

    def do(self, job):
        if self.wanted:
            self.done.set()
            self.over.acquire()
        self.done.clear()
        self.under_way.clear()
        self.wanted = job
        self.next.release()
        self.under_way.wait()


def idle(worker):
    worker.under_way.set()
    worker.done.wait()


def collect(worker):
    worker.under_way.set()
    while not worker.done.is_set():
        gc.collect()


def collect_generation(worker):
    """The second generation only, with a list of garbage that is large."""
    gc.disable()
    worker.under_way.set()
    while not worker.done.is_set():
        rings = [[] for _ in range(100000)]
        for ring in rings:
            ring.append(ring)
        del ring, rings
        gc.collect(1)
    gc.enable()


class Blocks:
    """Its finalizer, which the collector calls, waits."""

    def __init__(self, worker):
        self.worker, self.ring = worker, self

    def __del__(self):
        idle(self.worker)


def finalizer(worker):
    Blocks(worker)
    gc.collect()


def callback(worker):
    """A callback for a weak reference that outlives what it refers to."""
    class Ring:
        pass

    ring = Ring()
    ring.ring = ring
    kept = weakref.ref(ring, lambda _: idle(worker))
    del ring
    gc.collect()
    del kept


def started(worker):
    """gc.callbacks are called before a collection has touched anything."""
    def wait(phase, info):
        if phase == "start":
            gc.callbacks.clear()
            idle(worker)

    gc.callbacks.append(wait)
    gc.collect(1)


def grow_dict(worker):
    worker.under_way.set()
    while not worker.done.is_set():
        grown = {}
        for n in range(2000000):
            grown[n] = n
            if n % 1024 == 0 and worker.done.is_set():
                break
        del grown


def churn(worker):
    worker.under_way.set()
    number, kept = 1, [None] * 5000
    while not worker.done.is_set():
        for _ in range(2000):
            number = number * 1103515245 + 12345 & 0x7fffffff
            size = 1 << number % 18
            kind, at = number >> 8 & 3, (number >> 10) % len(kept)
            kept[at] = None
            kept[at] = ([None] * (size >> 3), bytes(size), "x" * size, bytearray(size))[kind]


def append(worker):
    worker.under_way.set()
    while not worker.done.is_set():
        lists = [[] for _ in range(4)]
        for n in range(1000000):
            lists[n & 3].append(None)
            if n % 1024 == 0 and worker.done.is_set():
                break


JOBS = {f.__name__: f for f in (idle, collect, collect_generation, finalizer, callback, started, grow_dict, churn, append)}


def main():
    populate(int(sys.argv[2]))
    with open(os.path.join(sys.argv[1], "containers"), "wb") as file:
        CONTAINERS.tofile(file)
    del CONTAINERS[:]
    gc.collect()
    worker = Worker()
    threading.Thread(target=worker.run, daemon=True).start()
    print("READY", len(gc.get_objects()), json.dumps(TRUTH), flush=True)
    for line in sys.stdin:
        worker.do(line.strip())
        print(line.strip(), flush=True)
    os._exit(0)


main()
