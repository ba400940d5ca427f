"""The table of tracemalloc, read from outside, on every interpreter there is, with 1 and 25 frames: record by record
what take_snapshot() had at that moment, the same traced bytes, peak and overhead; and statistics, filters and
comparisons as Python prints them, line by line. The target tells (tracemalloc_target.py), another process of the same
interpreter makes Python's own statistics of it (tracemalloc_judge.py): not for stripped and debug builds, whose
tracemalloc.py is that of their brothers, and not again for other allocators."""
import os
import subprocess
import sys
import time

from builds import BUILD, all_builds
from tracemalloc_run import MINE, Target, table, take, tool

SCRATCH = os.path.join(BUILD, "tracemalloc." + MINE, "snapshots")
MANY, FEW = 100000, 2000
# Builds with the large table, and those on which other allocators are tried.
LARGE = ("system", "pyenv 3.8", "pyenv 3.13", "sid python3.15")
ALLOCATORS = {"pyenv 3.8": ("debug", "malloc"), "system": ("debug",), "pyenv 3.12": ("malloc",),
              "pyenv 3.13": ("debug", "mimalloc"), "sid python3.15": ("debug", "mimalloc")}
# The filters of tracemalloc_judge.py.
FILTERS = {
    "include": ["--include", "*caf?.py"],
    "exclude": ["--exclude", "<frozen *", "--exclude", "*.pyc"],
    "line": ["--include", "plain.py:8"],
    "all frames": ["--all-frames", "--include", "*tracemalloc_target.py", "--exclude", "plain.py"],
    "domain": ["--domain", "0"],
    "not domain": ["--domain", "!0"],
}
ROWS = ("plain.py", 19)  # where the target makes its many objects
count = 0


def ok(good, name, detail=""):
    global count
    count += 1
    print("%s %d - %s" % ("ok" if good else "not ok", count, name), flush=True)
    if not good:
        print("\n".join("# " + line[:300] for line in str(detail).splitlines()[:30]), flush=True)


def skip(name, reason):
    global count
    count += 1
    print("ok %d - %s # SKIP %s" % (count, name, reason), flush=True)


def say(text):
    print("# " + text, flush=True)


# ---- the table ----

def wrong_table(records, truth):
    """What differs between a snapshot and the target's truth, in words."""
    found, want = table(records), truth.traces
    wrong = ["%d x %s: %d bytes, domain %d, %d of %d frames %s" % (n, what, size, domain, len(frames), total, frames[:3])
             for what, more in (("missing", want - found), ("too many", found - want))
             for (domain, size, frames, total), n in sorted(more.items(), key=str)[:8]]
    tracing = records["tracing"][0]
    for name, value in (("traced_bytes", truth.traced), ("peak_bytes", truth.peak), ("overhead_bytes", truth.overhead),
                        ("frames_limit", truth.limit), ("tracing", bool(truth.tracing)), ("source", "tracemalloc"),
                        ("traces", sum(want.values())), ("lost", 0),
                        ("trace_bytes", sum(size * n for (_, size, _, _), n in want.items()))):
        if tracing[name] != value:
            wrong.append("%s is %s, not %s" % (name, tracing[name], value))
    return wrong + wrong_sums(records)


def wrong_sums(records):
    """What a snapshot says of itself must add up, whatever the target does."""
    wrong, tracing, sites = [], records["tracing"][0], records.get("site", [])
    for site in sites:
        sums = sum(n for _, n in site["sizes"]), sum(size * n for size, n in site["sizes"])
        if sums != (site["count"], site["bytes"]):
            wrong.append("the sizes of a site do not add up: %s" % site)
    if tracing["traces"] != sum(s["count"] for s in sites) or tracing["trace_bytes"] != sum(s["bytes"] for s in sites):
        wrong.append("the sites do not add up to the tables: %s" % tracing)
    gone = [s for s in sites if s["kind"] == "gone"]
    if (tracing["gone_traces"], tracing["gone_bytes"]) != (sum(s["count"] for s in gone), sum(s["bytes"] for s in gone)):
        wrong.append("the sites do not add up to the gone: %s" % tracing)
    if "objects" in records and tracing["covered_blocks"] != tracing["traces"] - tracing["gone_traces"]:
        wrong.append("traces are neither of a block nor gone: %s" % tracing)
    return wrong


def wrong_join(records, rows):
    """Traces of Python's domain are of blocks in use, and those of a known line of the type that it makes."""
    tracebacks, frames = records["traceback"], records["frame"]
    wrong = ["gone: %s" % s for s in records["site"] if s["kind"] == "gone" and s["domain"] == 0]
    here = [s for s in records["site"] if [(f["file"], f["line"]) for f in
            [frames[n] for n in tracebacks[s["traceback"]]["frames"][:1]]] == [ROWS]]
    found = sum(s["count"] for s in here if s["kind"] == "object" and s["type"] == "made.Row")
    items = sum(s["count"] for s in here if s["kind"] == "buffer" and s["type"] == "list")
    if found != rows or items != 1:
        wrong.append("%d rows, not %d, and %d buffers of lists at %s" % (found, rows, items, ROWS))
    tracing, objects = records["tracing"][0], records["objects"][0]
    blocks = sum(v for k, v in objects.items() if k in ("objects", "buffers", "inferred", "dead", "runtime", "unowned"))
    if tracing["covered_blocks"] + tracing["untraced_blocks"] != blocks:
        wrong.append("of %d blocks, %s" % (blocks, tracing))
    if tracing["covered_bytes"] < sum(s["bytes"] for s in records["site"] if s["kind"] != "gone"):
        wrong.append("blocks smaller than what was asked for: %s" % tracing)
    return wrong


# ---- Python's own words ----

def statistics(text):
    """The lines of statistics, without the total behind them."""
    return [line for line in text.splitlines() if ": size=" in line and ", count=" in line]


def wrong_lines(run, want):
    if run.returncode != 0:
        return ["$ %s" % " ".join(run.args), "exit %d" % run.returncode, run.stderr[-300:]]
    found = statistics(run.stdout)
    wrong = ["line %d: %s\n   Python: %s" % (i, a, b) for i, (a, b) in enumerate(zip(found, want)) if a != b]
    if len(found) != len(want):
        wrong.append("%d lines, Python has %d" % (len(found), len(want)))
    return (["$ %s" % " ".join(run.args)] + wrong) if wrong else []


def sites(target, *options):
    return tool("sites", target, "--format=tracemalloc", "--top", "0", *options)


def diff(old, new, *options):
    return tool("diff", old, new, "--format=tracemalloc", "--top", "0", *options)


def check_words(name, old, new, views):
    wrong = []
    for key, by in (("filename", "file"), ("lineno", "line"), ("traceback", "traceback")):
        for more, option in (("", ()), (" cumulative", ("--cumulative",))):
            if key + more in views:
                wrong += wrong_lines(sites(new, "--by", by, *option), views[key + more])
                wrong += wrong_lines(sites(old, "--by", by, *option), views["old " + key + more])
                wrong += wrong_lines(diff(old, new, "--by", by, *option), views["diff " + key + more])
    for what, options in FILTERS.items():
        wrong += wrong_lines(sites(new, "--by", "line", *options), views["filter " + what])
        wrong += wrong_lines(diff(old, new, "--by", "line", *options), views["diff filter " + what])
    lines = sum(map(len, views.values()))
    ok(not wrong, "%s: %d lines of statistics as Python has them" % (name, lines), "\n".join(wrong))


def check_ways(name, target, truth, views):
    """The same by other ways of reading, and from a core."""
    for way in (("--read", "window"), ("--no-pause",)):
        records = take(os.path.join(SCRATCH, "way.jsonl"), target.pid, *way)
        wrong = wrong_table(records, truth)
        ok(not wrong, "%s: the table, %s" % (name, " ".join(way)), "\n".join(wrong))
    core = os.path.join(SCRATCH, "core")
    sysroot = ("--sysroot", target.build.root) if target.build.root else ()
    run = tool("core", target.pid, "-f", "-o", core)
    if run.returncode != 0:
        return ok(False, name + ": heapcensus core", run.stderr)
    wrong = wrong_table(take(os.path.join(SCRATCH, "way.jsonl"), core, *sysroot), truth)
    ok(not wrong, "%s: the table, from a core" % name, "\n".join(wrong))
    wrong = wrong_lines(sites(core, *sysroot), views["lineno"]) + wrong_lines(sites(target.pid), views["lineno"])
    ok(not wrong, "%s: the view of the process and of its core" % name, "\n".join(wrong))
    os.unlink(core)


def check_target(build, frames, setting):
    name = "%s, %s, %d frames" % (build.name, setting or "default", frames)
    rows = MANY if one_of(build, LARGE) and not setting else FEW
    begun = time.monotonic()
    old, new = (os.path.join(SCRATCH, n) for n in ("old.jsonl", "new.jsonl"))
    with Target(build, frames, rows, setting) as target:
        truth = target.truth(0)
        records = take(old, target.pid)
        wrong = wrong_table(records, truth) + wrong_join(records, rows)
        ok(not wrong, "%s: %d traces" % (name, sum(truth.traces.values())), "\n".join(wrong))
        target.next()
        truth = target.truth(1)
        records = take(new, target.pid)
        wrong = wrong_table(records, truth) + wrong_join(records, rows - rows // 10)
        ok(not wrong, "%s: %d traces, with domains" % (name, sum(truth.traces.values())), "\n".join(wrong))
        if not setting and not twin(build):
            views = target.judge()[0]
            check_words(name, old, new, views)
            if frames == 25:
                check_ways(name, target, truth, views)
        ok(target.process.poll() is None, name + ": it runs on")
    say("%s: %.1f s, paused %.1f ms" % (name, time.monotonic() - begun, records["header"][0]["source"]["paused_ns"] / 1e6))


def one_of(build, names):
    """The one that names the build: "pyenv 3.8" is any 3.8 of pyenv; debug builds have names of their own."""
    return next((n for n in names if build.name == n or build.name.startswith((n + ".", n + " "))), None)


def twin(build):
    """Whether another build has the same library of Python code."""
    return build.name.startswith("stripped") or build.name.endswith("-dbg")


def targets_of(build):
    """Frames and allocators."""
    return [(1, ""), (25, "")] + [(25, setting) for setting in ALLOCATORS.get(one_of(build, ALLOCATORS), ())]


def main():
    wanted = sys.argv[1:]
    os.makedirs(SCRATCH, exist_ok=True)
    for build in all_builds(skip):
        if wanted and not any(w in build.name for w in wanted):
            continue
        for frames, setting in targets_of(build):
            try:
                check_target(build, frames, setting)
            except (RuntimeError, OSError, KeyError, ValueError, subprocess.SubprocessError) as error:
                ok(False, "%s, %s, %d frames" % (build.name, setting, frames), "%s: %s" % (type(error).__name__, error))
    print("1..%d" % count)


main()
