#!/usr/bin/env python3
"""diff, trend and gates: of real processes against what they did and against what the test computes from the records,
and of made-up traced snapshots against Python's own tracemalloc."""
import collections
import datetime
import json
import os
import random
import sys
import tempfile
import tracemalloc

import lib

TARGET = """
import sys
class Session:
    def __init__(self, i):
        self.data = b"x" * 200
kept = []
print("READY", flush=True)
for line in sys.stdin:
    n = int(line)
    if n > 0:
        kept.extend([Session(i) for i in range(n)])
    else:
        del kept[:-n]
    print("DONE", flush=True)
"""
OTHERS = {"inferred": "(inferred buffers)", "dead": "(kept by freelists)", "runtime": "(the interpreter's own)",
          "unowned": "(unowned)"}
folder = tempfile.TemporaryDirectory(prefix="heapcensus-test.")
SESSION = "__main__.Session"


def path(name):
    return os.path.join(folder.name, name)


def take(pid, name, *options):
    done = lib.heapcensus("snapshot", "-q", "-f", "-p", pid, "-o", path(name), *options)
    if done.returncode:
        raise RuntimeError(lib.describe(done))
    return lib.read_snapshot(path(name))


def diff(*args, status=0, t=None, name=""):
    """The document; with `t` the exit status is a check of its own."""
    done = lib.heapcensus("diff", "--json", *args)
    if t:
        t.ok(done.returncode == status, f"{name}: exit {status}", lib.describe(done))
    return json.loads(done.stdout) if done.stdout else None


def refused(t, name, *args, status=2, command="diff"):
    done = lib.heapcensus(command, *args)
    return t.ok(done.returncode == status and lib.two_lines(done.stderr) and not done.stdout, name, lib.describe(done))


def edit(source, target, change):
    """A copy of a snapshot whose records `change` has seen; what it returns is written, None is left out."""
    with open(path(target), "w", encoding="utf-8") as f:
        records = [r for r in map(change, lib.read_snapshot(path(source)).lines) if r]
        records[-1]["records"] = len(records) - 1
        f.writelines(json.dumps(r) + "\n" for r in records)
    return path(target)


# ---- what the documents must say, from the records ----

def figures(snap, key):
    """{key: (count, bytes)} of one snapshot."""
    rows = collections.defaultdict(lambda: [0, 0])

    def add(name, count, size):
        rows[name][0] += count
        rows[name][1] += size

    if key in ("type", "module", "package"):
        for r in snap["type"]:
            name = r["name"] if key == "type" else (r["module"] or "(no module)")
            add(name.split(".")[0] if key == "package" and r["module"] else name, r["count"],
                r["bytes"] + r["buffer_bytes"])
        for kind, name in OTHERS.items():
            o = snap.one("objects")
            if o[kind] or o[kind + "_bytes"]:
                add(name, o[kind], o[kind + "_bytes"])
    elif key == "size":
        for r in snap.one("pymalloc")["size_classes"]:
            if r["blocks_used"]:
                add(f"to {r['size']} bytes", r["blocks_used"], r["size"] * r["blocks_used"])
    elif key == "arena":
        for r in snap["arena"]:
            add(r["address"], r["blocks_used"], r["bytes_used"])
    elif key == "category":
        for r in snap.one("memory")["categories"]:
            add(r["name"], r["count"], r["resident_bytes"])
    else:
        for r in snap["mapping"]:
            add(r["path"] or f"({r['kind']})", 1, r["resident_bytes"])
    return rows


def check_key(t, a, b, key):
    old, new = figures(a, key), figures(b, key)
    document = diff(path("a.jsonl"), path("b.jsonl"), "--by", key, t=t, name=f"by {key}")
    want = {k: (new[k][0], new[k][0] - old[k][0], new[k][1], new[k][1] - old[k][1]) for k in {*old, *new}}
    have = {r["key"]: (r["count"], r["count_diff"], r["bytes"], r["bytes_diff"]) for r in document["rows"]}
    wrong = [(k, want.get(k), have.get(k)) for k in {*want, *have} if want.get(k) != have.get(k)]
    t.ok(not wrong and len(have) == len(document["rows"]), f"by {key}: {len(have)} rows are those of the records", wrong)
    total = document["total"]
    t.ok((total["count"], total["bytes_diff"]) == tuple(sum(r[i] for r in want.values()) for i in (0, 3)),
         f"by {key}: the total is their sum", total)
    growth = [abs(r["bytes_diff"]) for r in document["rows"]]
    t.ok(growth == sorted(growth, reverse=True), f"by {key}: most growth first", growth[:5])


def blocks(snap):
    """{address: (size, kind, type)}; what is in no heap is left out."""
    found = {}
    for r in snap["blocks"]:
        for i, address in enumerate(r["address"]):
            if r["kind"][i] != "static":
                name = r["types"][r["type"][i]] if r["type"][i] is not None else None
                found[address] = (r["size"][i], r["kind"][i], name)
    return found


def check_identity(t, a, b):
    old, new = blocks(a), blocks(b)
    want = collections.defaultdict(lambda: {"new": [0, 0], "gone": [0, 0], "surviving": [0, 0]})
    totals = collections.Counter()

    def count(block, change):
        size, kind, name = block
        row = want[OTHERS.get(kind) or name][change]
        row[0] += kind != "buffer"
        row[1] += size
        totals[change] += 1

    for address in {*old, *new}:
        x, y = old.get(address), new.get(address)
        if x == y:
            count(x, "surviving")
            continue
        if x:
            count(x, "gone")
        if y:
            count(y, "new")
    document = diff("--blocks", path("a.jsonl"), path("b.jsonl"), t=t, name="by identity")
    have = {r["key"]: {c: [r[c]["count"], r[c]["bytes"]] for c in ("new", "gone", "surviving")}
            for r in document["rows"]}
    wrong = [(k, want.get(k), have.get(k)) for k in {*want, *have} if want.get(k) != have.get(k)]
    t.ok(not wrong, f"by identity: {len(have)} rows are those of a join over {len(old)} and {len(new)} blocks", wrong)
    t.ok({c: document["blocks"][c]["count"] for c in totals} == dict(totals), "by identity: all blocks", document["blocks"])
    fresh = [r["new"]["bytes"] for r in document["rows"]]
    t.ok(fresh == sorted(fresh, reverse=True) and document["rows"][0]["key"] == SESSION, "by identity: most new bytes first")
    row = have[SESSION]
    t.ok(row["new"][0] - row["gone"][0] == 5000 - 300 and row["surviving"][0] <= 1000 and row["gone"][0] <= 300,
         "by identity: what the process did", row)


# ---- tests ----

def test_live(t):
    with lib.start_python(TARGET) as target:
        def make(n):
            target.send(str(n))
            target.line()
        make(1000)
        a = take(target.pid, "a.jsonl", "--blocks")
        make(-300)
        make(5000)
        b = take(target.pid, "b.jsonl", "--blocks")
        for key in ("type", "module", "package", "size", "arena", "category", "mapping"):
            check_key(t, a, b, key)
        check_identity(t, a, b)
        make(5000)
        document = diff(path("b.jsonl"), target.pid, t=t, name="a PID")
        rows = {r["key"]: r for r in document["rows"]}
        t.ok(rows[SESSION]["count_diff"] == 5000 and document["new"]["source"]["pid"] == target.pid,
             "a PID is compared with a snapshot", rows.get(SESSION))
        document = diff("--blocks", path("b.jsonl"), "-p", target.pid, "--top", 1, t=t, name="-p")
        t.ok(document["rows"][0]["key"] == SESSION and 4700 <= document["rows"][0]["new"]["count"] <= 5000 and
             len(document["rows"]) == 1, "a PID by identity", document["rows"])
        lib.heapcensus("core", target.pid, "-q", "-o", path("core"))
        make(-1000)
        document = diff(path("core"), target.pid, t=t, name="a core")
        rows = {r["key"]: r for r in document["rows"]}
        t.ok(rows[SESSION]["count_diff"] == -1000 and not any(w["what"] == "diff.process" for w in document["warnings"]),
             "a core is compared with its process", document["warnings"])
        t.ok(lib.survived(target.pid), "the process survived")


def test_words(t):
    """The text: three lines at the top, rows, gates; a comparison with itself."""
    done = lib.heapcensus("diff", path("a.jsonl"), path("b.jsonl"))
    lines = done.stdout.splitlines()
    at = next((i for i, line in enumerate(lines) if line.startswith("growth: Rss +")), None)
    t.ok(done.returncode == 0 and at is not None and at < 5, "the verdict is at the top", lib.describe(done))
    t.ok(lines[at + 1].startswith("  category ") and "%" in lines[at + 1] and f"%  {SESSION} (+4,700)" in lines[at + 2] and
         lines[at + 3].startswith("  site     not known: tracemalloc was off"), "category, type and site", "\n".join(lines))
    t.ok(lines[-1].startswith("next: heapcensus diff "), "the next command")
    done = lib.heapcensus("diff", "-q", path("a.jsonl"), path("a.jsonl"))
    t.ok(done.returncode == 0 and "\nno growth: Rss 0 B, blocks in use 0 B\n" in done.stdout and "none grew" in done.stdout and
         "next:" not in done.stdout, "nothing grew from itself", lib.describe(done))
    document = diff(path("a.jsonl"), path("a.jsonl"))
    t.ok(document["verdict"]["growth"] is False and document["verdict"]["type"] is None, "nor in the document")
    document = diff("--blocks", path("a.jsonl"), path("a.jsonl"))
    t.ok(document["blocks"]["new"]["count"] == 0 == document["blocks"]["gone"]["count"], "every block survives in itself")
    for sort, member in (("bytes", "bytes"), ("count", "count"), ("count-growth", "count_diff")):
        values = [abs(r[member]) for r in diff(path("a.jsonl"), path("b.jsonl"), "--sort", sort)["rows"]]
        reverse = [abs(r[member]) for r in diff(path("a.jsonl"), path("b.jsonl"), "--sort", sort, "-r")["rows"]]
        t.ok(values == sorted(values, reverse=True) and reverse == sorted(values), f"--sort {sort} and -r")
    document = diff(path("a.jsonl"), path("b.jsonl"), "--type", "^__main__", "--min-size", 1)
    t.ok({r["key"] for r in document["rows"]} == {SESSION}, "--type")


def test_gates(t):
    pair = (path("a.jsonl"), path("b.jsonl"))
    done = lib.heapcensus("diff", *pair, "--fail-if", f"type:{SESSION}>+4699", "--fail-if", "rss>+10GiB")
    t.ok(done.returncode == 1 and done.stderr == f"heapcensus: gate tripped: type:{SESSION}>+4699: 1,000 -> 5,700 (+4,700)\n",
         "a gate that trips: exit 1, told on stderr", lib.describe(done))
    t.ok(f"  TRIPPED type:{SESSION}>+4699: " in done.stdout and "  passed  rss>+10GiB: " in done.stdout, "and in the report",
         done.stdout[-600:])
    done = lib.heapcensus("diff", *pair, "--fail-if", f"type:{SESSION}>+4700", "--fail-if", "type:nobody>+0")
    t.ok(done.returncode == 0 and not done.stderr, "gates that hold", lib.describe(done))
    done = lib.heapcensus("diff", *pair, "--fail-if", "total>+5%", "--fail-if", "module:__main__>+1MiB", "--json", "-o", path("g.json"))
    with open(path("g.json"), encoding="utf-8") as f:
        gates = json.load(f)["gates"]
    t.ok(done.returncode == 1 and [g["tripped"] for g in gates] == [True, False] and gates[0]["rows"][0]["key"] == SESSION and
         gates[1]["unit"] == "bytes" and gates[0]["diff"] == gates[0]["new"] - gates[0]["old"], "gates in a document", gates)
    refused(t, "a gate that is none", *pair, "--fail-if", "total>lots")
    refused(t, "a gate on sites that are not known", *pair, "--fail-if", "line:app.py:1>+1")
    edit("a.jsonl", "untyped.jsonl", lambda r: r if r["record"] not in ("type", "objects") else None)
    refused(t, "a gate on types that are not known", path("untyped.jsonl"), path("b.jsonl"), "--fail-if", "type:x>+1")
    done = lib.heapcensus("diff", "-q", path("untyped.jsonl"), path("b.jsonl"), "--fail-if", "total>+5%")
    t.ok(done.returncode == 1 and "python.blocks.used" in done.stdout, "without types by category, and total all the same",
         lib.describe(done))


def test_unlike(t):
    """Other processes, versions, incomplete and damaged files."""
    def header(**members):
        return lambda r: {**r, **members} if r["record"] == "header" else r

    def source(**members):
        return lambda r: {**r, "source": {**r["source"], **members}} if r["record"] == "header" else r

    def moved(r):
        return {**r, "address": hex(int(r["address"], 16) + 4096)} if r.get("path") == "[vdso]" else r

    old = path("a.jsonl")
    for name, change in (("PID", source(pid=1)), ("host", header(host="elsewhere")), ("executable", source(exe_build_id="00")),
                         ("run of the PID", moved)):
        other = edit("b.jsonl", "other.jsonl", change)
        document = diff(old, other, t=t, name=f"another {name}")
        t.ok("diff.process" in {w["what"] for w in document["warnings"]}, f"another {name}: compared with a warning", document["warnings"])
        refused(t, f"another {name}: no identity", "--blocks", old, other)
        refused(t, f"another {name}: no arenas", "--by", "arena", old, other)
    other = edit("b.jsonl", "other.jsonl", header(complete=False))
    document = diff(old, other, t=t, status=6, name="an incomplete one")
    t.ok("diff.incomplete" in {w["what"] for w in document["warnings"]}, "is warned of")
    diff(old, other, "--fail-if", "total>0", t=t, status=1, name="a gate that trips on an incomplete one")
    document = diff(path("b.jsonl"), edit("a.jsonl", "other.jsonl", header(taken_at="2001-01-01T00:00:00Z")))
    t.ok("diff.order" in {w["what"] for w in document["warnings"]}, "the older one should come first", document["warnings"])
    refused(t, "no blocks", "--blocks", old, edit("b.jsonl", "other.jsonl", lambda r: r if r["record"] != "blocks" else None))
    with open(path("b.jsonl"), encoding="utf-8") as f, open(path("cut.jsonl"), "w", encoding="utf-8") as g:
        g.writelines(f.readlines()[:-1])
    refused(t, "a file that is cut short, block by block", "--blocks", old, path("cut.jsonl"), status=7)
    diff("--blocks", "--partial", old, path("cut.jsonl"), t=t, status=6, name="with --partial")
    refused(t, "by line without tracing", "--by", "line", old, path("b.jsonl"))
    refused(t, "one word", old)
    refused(t, "three words", old, old, old)
    refused(t, "no such key", "--by", "colour", old, old)
    refused(t, "no such order", "--sort", "colour", old, old)
    refused(t, "blocks by category", "--blocks", "--by", "category", old, old)
    refused(t, "no such file", old, path("none"), status=3)
    refused(t, "no snapshot", old, __file__, status=7)
    refused(t, "standard input twice", "-", "-")
    with open(path("b.jsonl"), encoding="utf-8") as f:
        done = lib.heapcensus("diff", "--json", old, "-", stdin=f)
    t.ok(done.returncode == 0 and json.loads(done.stdout)["rows"][0]["key"] == SESSION, "standard input", done.stderr)


def test_trend(t):
    """A series with a leak, and the slopes that the test computes."""
    start, names = datetime.datetime(2026, 1, 1), []
    counts, minutes = [10, 30, 35, 90], [0, 20, 60, 75]
    for i, count in enumerate(counts):
        when = (start + datetime.timedelta(minutes=minutes[i])).isoformat() + "Z"

        def change(r, when=when, count=count):
            if r["record"] == "type" and r["name"] == SESSION:
                return {**r, "count": count, "bytes": count * 100, "buffer_bytes": 0}
            return {**r, "taken_at": when} if r["record"] == "header" else r if r["record"] != "blocks" else None
        names.append(edit("a.jsonl", f"trend{i}.jsonl", change))
    done = lib.heapcensus("trend", "--json", names[2], names[0], names[3], names[1])
    document = json.loads(done.stdout)
    row = document["rows"][0]
    hours = [m / 60 for m in minutes]
    mean = sum(hours) / len(hours)
    slope = sum((h - mean) * c for h, c in zip(hours, counts)) / sum((h - mean) ** 2 for h in hours)
    t.ok(done.returncode == 0 and [s["seconds"] for s in document["snapshots"]] == [m * 60 for m in minutes],
         "in the order of time", document["snapshots"])
    t.ok(row["key"] == SESSION and row["count"] == counts and row["monotone"] and row["bytes_diff"] == 8000 and
         abs(row["count_per_hour"] - slope) < 1e-6 and abs(row["bytes_per_hour"] - 100 * slope) < 1e-4, "the leak comes first", row)
    t.ok(not any(r["monotone"] for r in document["rows"][1:]) and all(r["bytes_diff"] == 0 for r in document["rows"][1:]),
         "nothing else grows")
    done = lib.heapcensus("trend", *names, "--by", "module")
    t.ok(done.returncode == 0 and "(1.25 hours)" in done.stdout and any(
        line.startswith("* ") and line.endswith("  __main__") for line in done.stdout.splitlines()), "as text", lib.describe(done))
    refused(t, "two are no trend", *names[:2], command="trend")
    t.ok("diff" in lib.heapcensus("trend", *names[:2]).stderr, "diff is for two")
    refused(t, "gates are diff's", *names, "--fail-if", "rss>1", command="trend")
    refused(t, "a file that is none", *names[:2], path("none"), command="trend", status=3)


# ---- traced ----

def make_traced(name, rng):
    """Random traces as a snapshot of ours, made of a.jsonl, and as Python's own."""
    files = ["app/db.py", "app/views.py", "lib/über.py", "<frozen x>"]
    frames = [(f, n) for f in files for n in (1, 7, 12)]
    tracebacks = [tuple(rng.choice(frames) for _ in range(rng.randint(1, 4))) for _ in range(12)]
    sites = collections.defaultdict(list)
    for _ in range(rng.randint(100, 200)):
        sites[rng.choice(tracebacks)].append(rng.choice([16, 64, 5000, 1 << 20]))
    unique = list(dict.fromkeys(tracebacks))
    records = [{"record": "tracing", "source": "tracemalloc", "tracing": True, "frames_limit": 4}]
    total = sum(map(sum, sites.values()))
    for member in ("traced_bytes", "peak_bytes", "trace_bytes"):
        records[0][member] = total
    for member in ("overhead_bytes", "covered_blocks", "covered_bytes", "untraced_blocks", "untraced_bytes", "gone_traces",
                   "gone_bytes", "lost"):
        records[0][member] = 0
    records[0]["traces"] = sum(map(len, sites.values()))
    records[0]["tracebacks"] = len(unique)
    records += [{"record": "frame", "file": f, "line": n, "function": None} for f, n in frames]
    records += [{"record": "traceback", "frames": [frames.index(x) for x in tb], "total": len(tb)} for tb in unique]
    for tb, sizes in sites.items():
        counts = sorted(collections.Counter(sizes).items())
        records.append({"record": "site", "traceback": unique.index(tb), "domain": 0, "type": None, "kind": None,
                        "source": "tracemalloc", "count": len(sizes), "bytes": sum(sizes), "sizes": [list(c) for c in counts]})
    lines = [r for r in lib.read_snapshot(path("a.jsonl")).lines if r["record"] not in ("blocks", "end", "tracing", "frame", "traceback", "site")]
    lines += records + [{"record": "end", "records": len(lines) + len(records)}]
    with open(path(name), "w", encoding="utf-8") as f:
        f.writelines(json.dumps(r) + "\n" for r in lines)
    # In memory the most recent frame comes first; Traceback reverses what it is given.
    traces = [(0, size, tb, len(tb)) for tb, sizes in sites.items() for size in sizes]
    return tracemalloc.Snapshot(traces, 4)


def test_traced(t):
    rng = random.Random(int(os.environ.get("HEAPCENSUS_SEED", "1")))
    for round_ in range(3):
        old, new = make_traced("t0.jsonl", rng), make_traced("t1.jsonl", rng)
        for key, theirs, cumulative in (("line", "lineno", False), ("file", "filename", False), ("line", "lineno", True),
                                        ("file", "filename", True)):
            options = ["--by", key] + ["--cumulative"] * cumulative
            want = [str(s) for s in new.compare_to(old, theirs, cumulative)]
            done = lib.heapcensus("diff", path("t0.jsonl"), path("t1.jsonl"), "--format=tracemalloc", *options)
            t.ok(done.returncode == 0 and done.stdout.splitlines() == want,
                 f"{round_}: by {' '.join(options[1:])}, {len(want)} lines are Python's own", f"{want[:3]}\n{lib.describe(done)}")
        want = new.compare_to(old, "traceback")
        document = diff(path("t0.jsonl"), path("t1.jsonl"), "--by", "traceback")
        have = [(r["bytes_diff"], r["count_diff"], [(f["file"], f["line"]) for f in r["traceback"]]) for r in document["rows"]]
        t.ok(have == [(s.size_diff, s.count_diff, [(f.filename, f.lineno) for f in reversed(s.traceback)]) for s in want],
             f"{round_}: by traceback in the same order", have[:2])
        top = max(new.compare_to(old, "lineno"), key=lambda s: s.size_diff)
        site = document["verdict"]["site"]
        t.ok(site["bytes_diff"] == top.size_diff and site["key"] in {f"{f.filename}:{f.lineno}" for f in top.traceback},
             f"{round_}: the verdict names the site", site)
    document = diff(path("t0.jsonl"), path("t1.jsonl"), "--by", "file", "--include", "app/*")
    t.ok(document["rows"] and all(r["key"].startswith("app/") for r in document["rows"]), "--include", document["rows"])
    refused(t, "tracemalloc's words for types", path("t0.jsonl"), path("t1.jsonl"), "--format=tracemalloc", "--by", "type")
    done = lib.heapcensus("diff", path("t0.jsonl"), path("t1.jsonl"), "--fail-if", "file:app/*>0")
    t.ok(done.returncode == 1, "a gate on files", lib.describe(done))


if __name__ == "__main__":
    sys.exit(lib.Tap().run(test_live, test_words, test_gates, test_unlike, test_trend, test_traced))
