"""Statistics, comparisons, filters and texts of made-up traces against Python's own tracemalloc, line by line."""
import fnmatch
import io
import json
import linecache
import os
import random
import tempfile
from tracemalloc import DomainFilter, Filter

from lib import describe, heapcensus, main
from sites_world import FILES, TYPES, World, worlds

SEEDS = range(1, 5)
KEYS = {"file": "filename", "line": "lineno", "traceback": "traceback"}
# Options, and the filters that they are.
FILTERS = [
    ([], []),
    (["--include", "app/*"], [Filter(True, "app/*")]),
    (["--include", "app/db.pyc"], [Filter(True, "app/db.pyc")]),
    (["--include", "*.py", "--exclude", "lib/*"], [Filter(True, "*.py"), Filter(False, "lib/*")]),
    (["--exclude", "<frozen importlib._bootstrap>", "--exclude", "<unknown>"],
     [Filter(False, "<frozen importlib._bootstrap>"), Filter(False, "<unknown>")]),
    (["--include", "app/db.py:3"], [Filter(True, "app/db.py", 3)]),
    (["--exclude", "*:2", "--all-frames"], [Filter(False, "*", 2, all_frames=True)]),
    (["--include", "*[[]1].py", "--all-frames"], [Filter(True, "*[[]1].py", all_frames=True)]),
    (["--include", "lib/[!A-Z]*", "--include", "/srv/?.py"], [Filter(True, "lib/[!A-Z]*"), Filter(True, "/srv/?.py")]),
    (["--domain", "7"], [DomainFilter(True, 7)]),
    (["--domain", "!0"], [DomainFilter(False, 0)]),
    (["--domain", "4294967295", "--include", "app/*"], [Filter(True, "app/*"), DomainFilter(True, 4294967295)]),
    (["--include", "app/*@1"], [Filter(True, "app/*", domain=1)]),
    (["--exclude", "app/db.py:1@0", "--domain", "!1"], [Filter(False, "app/db.py", 1, domain=0), DomainFilter(False, 1)]),
    (["--exclude", "app/*", "--include", "app/*"], [Filter(False, "app/*"), Filter(True, "app/*")]),
]


class Bench:
    folder = ""
    pairs = []  # (old, new, path of old, path of new)


def differing(done, want):
    found = done.stdout.splitlines()
    wrong = [f"line {i}: {a}\n  Python: {b}" for i, (a, b) in enumerate(zip(found, want)) if a != b][:3]
    if len(found) != len(want):
        wrong.append(f"{len(found)} lines, Python has {len(want)}")
    if done.returncode != 0 or done.stderr:
        wrong.append(describe(done))
    return [f"$ {' '.join(done.args)}", *wrong] if wrong else []


def words(statistics, key, limit=None, recent=False):
    lines = []
    for stat in statistics:
        lines.append(str(stat))
        if key == "traceback":
            lines += stat.traceback.format(limit, recent)
    return lines


def test_statistics(tap):
    for key, theirs in KEYS.items():
        for cumulative in (False, True):
            if cumulative and key == "traceback":
                continue
            wrong, lines = [], 0
            for old, new, old_path, new_path in Bench.pairs:
                more = ["--cumulative"] * cumulative
                for options, filters in FILTERS:
                    there, then = (w.python.filter_traces(filters) for w in (new, old))
                    want = words(there.statistics(theirs, cumulative), key)
                    wrong += differing(heapcensus("sites", new_path, "--format=tracemalloc", "--by", key, *options, *more), want)
                    lines += len(want)
                    want = words(there.compare_to(then, theirs, cumulative), key)
                    wrong += differing(heapcensus("diff", old_path, new_path, "--format=tracemalloc", "--top", "0", "--by", key,
                                                  *options, *more), want)
                    lines += len(want)
            tap.ok(not wrong and lines > 1000, f"by {key}{', cumulative' * cumulative}: statistics and comparisons under "
                   f"{len(FILTERS)} sets of filters, {lines} lines as Python's", "\n".join(wrong))


def test_traceback(tap):
    wrong = []
    new, path = Bench.pairs[0][1], Bench.pairs[0][3]
    for limit in (None, 1, 2, 100):
        for recent in (False, True):
            options = ["--limit", limit] * (limit is not None) + ["--most-recent-first"] * recent
            want = words(new.python.statistics("traceback"), "traceback", limit, recent)
            wrong += differing(heapcensus("sites", path, "--format=tracemalloc", "--by", "traceback", *options), want)
    sources = sum(line.startswith("    ") for line in want)
    tap.ok(not wrong and sources > 100, f"Traceback.format(): limits and orders, {sources} lines of source", "\n".join(wrong))


def display_top(snapshot, key_type="lineno", limit=10):
    """As the documentation of tracemalloc has it; the filters are given by the caller."""
    out = io.StringIO()
    top_stats = snapshot.statistics(key_type)
    print("Top %s lines" % limit, file=out)
    for index, stat in enumerate(top_stats[:limit], 1):
        frame = stat.traceback[0]
        print("#%s: %s:%s: %.1f KiB" % (index, frame.filename, frame.lineno, stat.size / 1024), file=out)
        line = linecache.getline(frame.filename, frame.lineno).strip()
        if line:
            print("    %s" % line, file=out)
    other = top_stats[limit:]
    if other:
        print("%s other: %.1f KiB" % (len(other), sum(stat.size for stat in other) / 1024), file=out)
    print("Total allocated size: %.1f KiB" % (sum(stat.size for stat in top_stats) / 1024), file=out)
    return out.getvalue().splitlines()


def test_display_top(tap):
    wrong = []
    options, filters = FILTERS[4]
    for _, new, _, path in Bench.pairs:
        kept = new.python.filter_traces(filters)
        for more, limit in (([], 10), (["--top", "3"], 3), (["--top", "100000"], 100000)):
            wrong += differing(heapcensus("sites", path, "--format=display_top", *options, *more), display_top(kept, limit=limit))
        wrong += differing(heapcensus("sites", path, "--format=display_top", "--by", "file", *options), display_top(kept, "filename"))
        statistics = kept.statistics("traceback")
        stat, other = statistics[0], statistics[1:]
        want = ["%s memory blocks: %.1f KiB" % (stat.count, stat.size / 1024), *stat.traceback.format(),
                "%s other: %.1f KiB" % (len(other), sum(s.size for s in other) / 1024),
                "Total allocated size: %.1f KiB" % (sum(s.size for s in statistics) / 1024)]
        wrong += differing(heapcensus("sites", path, "--format=display_top", "--by", "traceback", "--top", "1", *options), want)
    tap.ok(not wrong, "display_top() and the largest traceback, as the documentation prints them", "\n".join(wrong))


def test_rows(tap):
    """--top, --min-size, --sort, --reverse: the same rows, and what is left out told."""
    new, path = Bench.pairs[0][1], Bench.pairs[0][3]
    stats = new.python.statistics("lineno")
    total = "Total allocated size: %.1f KiB" % (sum(s.size for s in stats) / 1024)

    def other(left):
        return ["%s other: %.1f KiB" % (len(left), sum(s.size for s in left) / 1024), total]
    large = [s for s in stats if s.size >= 1 << 20]
    small = [s for s in stats if s.size < 1 << 20]
    by_count = sorted(stats, key=lambda s: -s.count)
    cases = [(["--top", "5"], [*map(str, stats[:5]), *other(stats[5:])]),
             (["--min-size", 1 << 20], [*map(str, large), *other(small)]),
             (["--sort", "count"], [*map(str, by_count)]),
             (["-r", "--top", "4"], [*map(str, stats[::-1][:4]), *other(stats[:-4])]),
             (["--sort", "count", "--min-size", 1 << 20], [*[str(s) for s in by_count if s.size >= 1 << 20], *other(small)])]
    wrong = []
    for options, want in cases:
        wrong += differing(heapcensus("sites", path, "--format=tracemalloc", *options), want)
    tap.ok(not wrong and large and small, "--top, --min-size, --sort and --reverse choose and order rows", "\n".join(wrong))


def test_types(tap):
    _, new, _, path = Bench.pairs[0]
    wrong = []
    for regex, match in (("^app\\.", lambda t: t.startswith("app.")), ("dict|list", lambda t: "dict" in t or "list" in t)):
        kept = [(t, y) for t, y in zip(new.traces, new.types) if y and match(y)]
        want = words(World([t for t, _ in kept], []).python.statistics("lineno"), "line")
        wrong += differing(heapcensus("sites", path, "--format=tracemalloc", "--type", regex), want)
    tap.ok(not wrong, "--type keeps the traces of those types", "\n".join(wrong))
    sums = {}
    for (_, size, stack, _), kind in zip(new.traces, new.types):
        sums.setdefault(stack[0], dict.fromkeys(TYPES, 0))[kind] += size
    document = json.loads(heapcensus("sites", path, "--json", "--top", "0").stdout)
    wrong = []
    for site in document["sites"]:
        frame = site["traceback"][0]
        named = {k: v for k, v in sums[frame["file"], frame["line"]].items() if k and v}
        best = min(((-v, k) for k, v in named.items()), default=(0, None))
        if (site["type"], site["type_bytes"]) != (best[1], -best[0]):
            wrong.append(f"{site}: {best}")
    tap.ok(not wrong and len(document["sites"]) == len(sums), f"the type of the most bytes of {len(sums)} lines", "\n".join(wrong))


def test_fnmatch(tap):
    """Random patterns: every name must match just where Python's fnmatch says so. By way of --include."""
    rng = random.Random(7)
    names = FILES + ["lib/" + "".join(rng.choice("ab-]^![z&|~\\") for _ in range(rng.randrange(1, 4))) for _ in range(60)]
    names = list(dict.fromkeys(names))
    world = World([(0, 8, ((name, 1),), 1) for name in names], [None] * len(names))
    path = world.write(os.path.join(Bench.folder, "names.jsonl"))
    wrong, hits = [], 0
    for _ in range(400):
        pattern = "lib/" + "".join(rng.choice(["a", "b", "z", "-", "]", "[", "[", "^", "!", "*", "?", "&&", "\\", "[!", "[a-", "a-b]", "z-a]"])
                                   for _ in range(rng.randrange(1, 6)))
        want = {name for name in names if Filter(True, pattern)._match_frame_impl(name, 1)}
        done = heapcensus("sites", path, "--json", "--top", "0", "--include", pattern + "@0")
        found = {site["traceback"][0]["file"] for site in json.loads(done.stdout)["sites"]}
        hits += len(want)
        if found != want:
            wrong.append(f"{pattern!r} {fnmatch.translate(pattern)}: {sorted(found ^ want)}")
    tap.ok(not wrong and hits > 400, f"400 random patterns, {hits} matches, as Python's fnmatch", "\n".join(wrong))


def test_usage(tap):
    path = Bench.pairs[0][3]
    for options, says in ((["--by", "colour"], "file, line or traceback"), (["--cumulative", "--by", "traceback"], "--by file"),
                          (["--domain", "x"], "--domain"), (["--domain", "4294967296"], "--domain"), (["--type", "("], "grep -E"),
                          (["--sort", "name"], "size,count"), (["--format", "xml"], "display_top")):
        done = heapcensus("sites", path, *options)
        tap.ok(done.returncode == 2 and says in done.stderr and len(done.stderr.splitlines()) == 2 and not done.stdout,
               f"{' '.join(options)}: refused, with a remedy", describe(done))


def test_off(tap):
    """Without tracemalloc: the facts and the remedy; a script that wants Python's words sees a failure."""
    path = os.path.join(Bench.folder, "off.jsonl")
    with open(Bench.pairs[0][3], encoding="utf-8") as f:
        head = f.readline().replace('"tracemalloc":true', '"tracemalloc":false')
        memory = f.readline()
    with open(path, "w", encoding="utf-8") as f:
        f.write(head + memory + '{"record":"end","records":2}\n')
    done = heapcensus("sites", path)
    tap.ok(done.returncode == 0 and "tracemalloc is off" in done.stdout and "PYTHONTRACEMALLOC=25" in done.stdout
           and "next: heapcensus types" in done.stdout, "off: said, with the ways to switch it on", describe(done))
    done = heapcensus("sites", path, "--format=tracemalloc")
    tap.ok(done.returncode == 5 and not done.stdout and "tracemalloc is off" in done.stderr and "PYTHONTRACEMALLOC" in done.stderr,
           "off, in tracemalloc's words: a failure, not an empty table", describe(done))
    done = heapcensus("summary", path)
    tap.ok(done.returncode == 0 and "tracemalloc:" not in done.stdout, "off: the summary says nothing of it", describe(done))
    done = heapcensus("summary", Bench.pairs[0][3])
    tap.ok("\ntracemalloc: on, 25 frames, " in done.stdout, "on: the summary has a line", describe(done))


def test_hostile_names(tap):
    """Neither the names nor the sources of a file reach the terminal as they are; pipes and devices are not read."""
    pipe = os.path.join(Bench.folder, "pipe.py")
    os.mkfifo(pipe)
    evil = os.path.join(Bench.folder, "evil.py")
    with open(evil, "wb") as f:
        f.write(b"x = '\x1b]0;owned\x07'\n")
    names = ["a\x1b[31m.py", pipe, evil, "/dev/zero", Bench.folder, "x" * 5000, ""]
    path = World([(0, 8, ((name, 1),), 1) for name in names], ["t\x1b[2J"] * len(names)).write(os.path.join(Bench.folder, "evil.jsonl"))
    for options in ([], ["--format=tracemalloc"], ["--format=display_top"], ["--format=tracemalloc", "--by", "traceback"]):
        done = heapcensus("sites", path, *options, timeout=10)
        tap.ok(done.returncode == 0 and "\x1b" not in done.stdout and "\x07" not in done.stdout,
               f"hostile names {' '.join(options)}: nothing but text", describe(done))


def test_ties(tap):
    """Many tracebacks that differ in nothing but their frames: those alone give the order."""
    rng = random.Random(3)
    stacks = [tuple((f"/srv/app/module{rng.randrange(300)}.py", rng.randrange(1, 2000)) for _ in range(8)) for _ in range(50000)]
    world = World([(0, 64, s, 8) for s in stacks], [rng.choice(TYPES) for _ in stacks])
    path = world.write(os.path.join(Bench.folder, "large.jsonl"))
    wrong = []
    for key, theirs in KEYS.items():
        want = words(world.python.statistics(theirs)[:50], "")
        done = heapcensus("sites", path, "--format=tracemalloc", "--by", key, "--top", "50", "--limit", "1")
        found = [line for line in done.stdout.splitlines() if ": size=" in line]
        wrong += [f"{a}\n{b}" for a, b in zip(found, want) if a != b] + [describe(done)] * (len(found) != len(want))
    tap.ok(not wrong, "50,000 tracebacks that tie in size: the order is Python's", "\n".join(wrong))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="heapcensus-test.") as folder:
        Bench.folder = folder
        for seed in SEEDS:
            place = os.path.join(folder, str(seed))
            os.mkdir(place)
            then, now = worlds(seed, place)
            Bench.pairs.append((then, now, then.write(place + ".old"), now.write(place + ".new")))
        main(test_statistics, test_traceback, test_display_top, test_rows, test_types, test_fnmatch, test_usage, test_off,
             test_hostile_names, test_ties)
