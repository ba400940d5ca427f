"""A process full of small objects, or of something else, for the benches.

usage: objects.py KIND MIB|Nx [THREADS [ask]]     KIND: objects, sessions, malloc, arrays; MIB that shall be resident, or N
things ("1000x"). Prints READY and sleeps; so do the threads, each with a malloc arena of its own. With "ask" it
prints for each line of its input, the name of a counter of counters.py, what that counter says of it."""
import gc
import sys
import threading
import time


def rss_mib():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * 4096 / 2**20


class Slots:
    __slots__ = ("a", "b")


def objects(keep, i):
    s = Slots()
    s.a, s.b = i + 1000, str(i)
    keep.append((s, [i], {i: i} if i % 7 == 0 else (i, i + 1), "k%d" % i, float(i), (i,), b"x" * (i % 200)))


class Session:
    def __init__(self, i):
        self.user = "user%d" % i
        self.data = {"id": i, "tags": [i]}


def sessions(keep, i):
    keep.append(Session(i))


def malloc(keep, i):
    keep.append(bytes(520 + i % 900))
    if i % 3 == 0:
        keep[i // 2] = None


def arrays(keep, i):
    keep.append(bytearray(1 << 20))


def main():
    kind, size = sys.argv[1:3]
    number, mib = (int(size[:-1]), 0) if size.endswith("x") else (0, float(size))
    make = {"objects": objects, "sessions": sessions, "malloc": malloc, "arrays": arrays}[kind]
    for _ in range(int(sys.argv[3]) if len(sys.argv) > 3 else 0):
        threading.Thread(target=lambda: (bytes(600), time.sleep(100000)), daemon=True).start()
    gc.disable()
    keep, i = [], 0
    while i < number or not number:
        if not number and (i % 10000 == 0 or kind == "arrays"):
            if rss_mib() >= mib:
                break
        make(keep, i)
        i += 1
    print("READY", i, flush=True)
    if sys.argv[4:] == ["ask"]:
        import counters
        counters.serve(sys.stdin)
    time.sleep(100000)


main()
