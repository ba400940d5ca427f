"""The recipes of docs/recipes at work, on a program of their own: prints what they print."""
import json
import sys
import tempfile
import tracemalloc

import census


def build_list(keep, n):
    keep.extend(bytes(1000) for _ in range(n))


def context(keep):
    first = tracemalloc.take_snapshot()
    with census.trace_memory("Building a list"):
        build_list(keep, 2000)
    second = tracemalloc.take_snapshot()
    return str(second.compare_to(first, "lineno")[0])


@census.memory_profile
def build_dict():
    return {f"key_{i}": list(range(10)) for i in range(1000)}


def main():
    tracemalloc.start(25)
    keep = []
    inside = {"context": context(keep)}
    kept = build_dict()
    inside["memory"] = tracemalloc.get_traced_memory()
    with tempfile.TemporaryDirectory() as folder:
        profiler = census.MemoryProfiler(folder)
        profiler.checkpoint("start")
        build_list(keep, 300)
        profiler.checkpoint("after")
        profiler.compare("start", "after", 1)
        sys.stdout.write(census.statistics(profiler.path("after"), "file", 3, "--exclude", "*/subprocess.py"))
    print("TOLD " + json.dumps(inside))
    return kept


main()
