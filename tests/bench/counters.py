"""Counting objects from inside, as a program does that has a counter of its own."""
import resource
import time


def objgraph():
    import objgraph as module
    return module.typestats(shortnames=False)


def guppy():
    from guppy import hpy
    return {row.name: row.count for row in hpy().heap().bytype.partition.get_rows()}


def available(name):
    """Imports it, which is no part of the counting; why it cannot be."""
    try:
        __import__(name)
    except ImportError as error:
        return str(error)
    return ""


def serve(lines):
    """For each line that names a counter: its seconds, the objects that it saw, and by how many MiB the process's
    peak grew. NONE and the reason if it is not installed."""
    for line in lines:
        name = line.strip()
        missing = available(name)
        if missing:
            print("NONE", missing, flush=True)
            continue
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begun = time.perf_counter()
        counts = {"objgraph": objgraph, "guppy": guppy}[name]()
        took = time.perf_counter() - begun
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
        print(took, sum(counts.values()), grown / 1024, flush=True)
