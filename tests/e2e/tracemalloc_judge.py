"""What Python says of the traces that tracemalloc_target.py wrote: statistics and comparisons in its own words.

usage: tracemalloc_judge.py FOLDER LIMIT

Runs on the same interpreter as the target. One line of JSON on stdout: name of the view -> its lines."""
import json
import marshal
import sys
import tracemalloc
from tracemalloc import DomainFilter, Filter

# By name; test_tracemalloc_matrix.py has the options of heapcensus that say the same.
FILTERS = {
    "include": [Filter(True, "*caf?.py")],
    "exclude": [Filter(False, "<frozen *"), Filter(False, "*.pyc")],
    "line": [Filter(True, "plain.py", 8)],
    "all frames": [Filter(True, "*tracemalloc_target.py", all_frames=True), Filter(False, "plain.py", all_frames=True)],
    "domain": [DomainFilter(True, 0)],
    "not domain": [DomainFilter(False, 0)],
}


def load(path, limit):
    with open(path, "rb") as f:
        return tracemalloc.Snapshot(marshal.load(f), limit)


def main():
    folder, limit = sys.argv[1], int(sys.argv[2])
    old, new = (load("%s/traces.%d" % (folder, n), limit) for n in (0, 1))
    views = {}
    for key in ("filename", "lineno", "traceback"):
        for cumulative in (False, True) if key != "traceback" else (False,):
            name = key + (" cumulative" if cumulative else "")
            views[name] = list(map(str, new.statistics(key, cumulative)))
            views["old " + name] = list(map(str, old.statistics(key, cumulative)))
            views["diff " + name] = list(map(str, new.compare_to(old, key, cumulative)))
    for name, filters in FILTERS.items():
        chosen = new.filter_traces(filters)
        views["filter " + name] = list(map(str, chosen.statistics("lineno")))
        views["diff filter " + name] = list(map(str, chosen.compare_to(old.filter_traces(filters), "lineno")))
    formats = [[stat.size, stat.traceback.format()] for stat in new.statistics("traceback")[:20]]
    sys.stdout.buffer.write(json.dumps([views, formats]).encode())


main()
