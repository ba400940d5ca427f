"""What the tutorials' programs tell: one line of JSON each time, from the tracemalloc inside; then they wait.

tell(...) answers what the test wants to compare with; the line of input that follows lets the program go on. What it
says of lines of this file and of tracemalloc's own is its own doing and not compared."""
import json
import os
import sys
import tracemalloc

SNAPSHOTS = []


def rss():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def take():
    SNAPSHOTS.append(tracemalloc.take_snapshot())
    return SNAPSHOTS[-1]


def tell(**more):
    """The top lines, the growth since the first snapshot and since the one before, and what is in `more`."""
    memory = tracemalloc.get_traced_memory()
    now = take()
    told = {"memory": memory, "lines": list(map(str, now.statistics("lineno")[:10])),
            "files": list(map(str, now.statistics("filename")[:10])),
            "growth": list(map(str, now.compare_to(SNAPSHOTS[0], "lineno")[:10])),
            "step": list(map(str, now.compare_to(SNAPSHOTS[-2:][0], "lineno")[:10])),
            "largest": [line for stat in now.statistics("traceback")[:1] for line in stat.traceback.format()], **more}
    told["rss"] = rss()
    sys.stdout.write("TOLD " + json.dumps(told) + "\n")
    sys.stdout.flush()
    sys.stdin.readline()
