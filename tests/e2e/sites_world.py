"""Made-up traces, as a snapshot of heapcensus and as one of tracemalloc: the two must say the same."""
import collections
import json
import os
import random
import tracemalloc

# Names that are odd to fnmatch, to the normalisation, to the order of characters, and that exist as files.
FILES = ["app/db.py", "app/db.pyc", "app/views.py", "app/views.pyc", "<frozen importlib._bootstrap>", "<unknown>", "<string>",
         "lib/b[1].py", "lib/a-b.py", "lib/back\\slash.py", "/srv/\u00e4/\u00fc.py", "/srv/\u65e5\u672c.py", "/srv/\uff5e.py",
         "/srv/\U0001f600.py", "lib/UPPER.py", "lib/upper.py", "lib/.hidden.py", "lib/x", "lib/x.py", "lib/with space.py"]
SOURCES = {
    "tabs.py": b"def f():\n\treturn\t[1,\t2]\n\n    x = 1   \n",
    "crlf.py": b"import os\r\nprint(os)\r\rlast",
    "bom.py": b"\xef\xbb\xbffirst = '\xc3\xa4'\nsecond = 2\n",
    "latin.py": b"# -*- coding: latin-1 -*-\nname = '\xe4\xf6'\n",
    "second_cookie.py": b"#!/usr/bin/python3\n# vim: set fileencoding=iso-8859-1 :\nname = '\xe4'\n",
    "broken.py": b"good = 1\nbad = '\xff'\n",
    "late_cookie.py": b"x = 1\n# coding: latin-1\ny = '\xc3\xa4'\n",
    "spaces.py": "\u00a0\u3000x = 1\u2003\x1f\n\x0cy = 2\x0b\n".encode(),
    "unknown_cookie.py": b"# coding: no-such-codec\nx = 1\n",
    "empty.py": b"",
}
TYPES = [None, "dict", "app.Session", "numpy.ndarray", "builtins.list"]
HEADER = {"record": "header", "format": "heapcensus", "version": 1, "tool": {"version": "0"}, "taken_at": "2024-05-06T07:08:09Z",
          "host": "h", "source": {"kind": "copy", "pid": 1, "comm": "made-up", "core": None, "exe": None, "exe_build_id": None,
                                  "paused_ns": 0, "consistent": True, "read_bytes": 0, "swap_bytes": 0, "threads": 1, "dump": None},
          "python": {"version": "3.11.2", "hexversion": 51053296, "debug": False, "free_threaded": False, "trace_refs": False,
                     "allocator": "pymalloc", "layout": {"name": "n", "source": "s"}, "state": "running", "tracemalloc": True,
                     "interpreters": 1, "found_by": "f"},
          "libc": {"name": "glibc", "version": "2.36", "allocator": "glibc"}, "complete": True, "redacted": True}


class World:
    """Traces: (domain, size, frames most recent first, total frames), each with a type."""

    def __init__(self, traces, types):
        self.traces, self.types = traces, types
        self.python = tracemalloc.Snapshot(list(traces), 25)

    def changed(self, rng, files):
        """Another moment of the same program: some traces gone, some new, some sizes changed."""
        kept = [(t, y) for t, y in zip(self.traces, self.types) if rng.random() < 0.7]
        kept = [((t[0], t[1] + rng.choice((0, 0, 0, 1, -1)), *t[2:]) if t[1] > 1 else t, y) for t, y in kept]
        more = made(rng, files, len(self.traces) // 3)
        return World([t for t, _ in kept] + more.traces, [y for _, y in kept] + more.types)

    def write(self, path):
        frames, tracebacks, sites = {}, {}, collections.defaultdict(collections.Counter)
        for (domain, size, stack, total), kind in zip(self.traces, self.types):
            ids = tuple(frames.setdefault(f, len(frames)) for f in stack)
            sites[tracebacks.setdefault((ids, total), len(tracebacks)), domain, kind][size] += 1
        size = sum(t[1] for t in self.traces)
        records = [HEADER, {"record": "memory", "rss_bytes": 0, "mapped_bytes": 0, "categories": []}, {
            "record": "tracing", "source": "tracemalloc", "tracing": True, "frames_limit": 25, "traced_bytes": size,
            "peak_bytes": size, "overhead_bytes": 0, "traces": len(self.traces), "trace_bytes": size, "tracebacks": len(tracebacks),
            "covered_blocks": 0, "covered_bytes": 0, "untraced_blocks": 0, "untraced_bytes": 0, "gone_traces": 0, "gone_bytes": 0,
            "lost": 0}]
        records += [{"record": "frame", "file": f, "line": n, "function": None} for f, n in frames]
        records += [{"record": "traceback", "frames": ids, "total": total} for ids, total in tracebacks]
        records += [{"record": "site", "traceback": t, "type": kind, "kind": "object" if kind else None, "domain": d,
                     "source": "tracemalloc", "count": sum(c.values()), "bytes": sum(n * k for n, k in c.items()),
                     "sizes": sorted(c.items())} for (t, d, kind), c in sites.items()]
        records.append({"record": "end", "records": len(records)})
        with open(path, "w", encoding="utf-8") as f:
            f.writelines(json.dumps(r, ensure_ascii=False, separators=(",", ":")) + "\n" for r in records)
        return path


def made(rng, files, count):
    """Few sizes and lines, so that ties and shared frames are many."""
    pool = [tuple((rng.choice(files), rng.randrange(6)) for _ in range(rng.choice((1, 1, 2, 3, 8)))) for _ in range(count // 4 + 1)]
    traces = []
    for _ in range(count):
        stack = rng.choice(pool)
        size = rng.choice((1, 16, 16, 64, 100, 1023, 1024, 10239, 10240, 102399, 1 << 20, rng.randrange(1, 1 << 34)))
        traces.append((rng.choice((0, 0, 0, 1, 7, 4294967295)), size, stack, len(stack) + rng.choice((0, 0, 3))))
    return World(traces, [rng.choice(TYPES) for _ in traces])


def write_sources(folder):
    paths = []
    for name, data in SOURCES.items():
        paths.append(os.path.join(folder, name))
        with open(paths[-1], "wb") as f:
            f.write(data)
    return paths


def worlds(seed, folder, count=2000):
    rng = random.Random(seed)
    files = FILES + write_sources(folder)
    old = made(rng, files, count)
    return old, old.changed(rng, files)
