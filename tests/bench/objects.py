"""A process full of small objects, or of something else, for the benches.

usage: objects.py KIND MIB [THREADS]     KIND: objects, malloc, arrays, sparse. Prints READY and sleeps;
so do the threads, each with a malloc arena of its own."""
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


def malloc(keep, i):
    keep.append(bytes(520 + i % 900))
    if i % 3 == 0:
        keep[i // 2] = None


def arrays(keep, i):
    keep.append(bytearray(1 << 20))


def main():
    kind, mib = sys.argv[1], float(sys.argv[2])
    make = {"objects": objects, "malloc": malloc, "arrays": arrays}[kind]
    for _ in range(int(sys.argv[3]) if len(sys.argv) > 3 else 0):
        threading.Thread(target=lambda: (bytes(600), time.sleep(100000)), daemon=True).start()
    gc.disable()
    keep, i = [], 0
    while True:
        if i % 10000 == 0 or kind == "arrays":
            if rss_mib() >= mib:
                break
        make(keep, i)
        i += 1
    print("READY", i, flush=True)
    time.sleep(100000)


main()
