"""export: each format is read by the program it is made for, and says what the target's own tracemalloc said."""
import collections
import csv
import gzip
import io
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile

import builds
import lib
from export_target import NAMES, READER, TARGET

FORMATS = ["tracemalloc", "ndjson", "csv", "folded", "speedscope", "pprof"]
SPEEDSCOPE = "speedscope@1.25.0"


class Traced:
    """A target under tracemalloc, its own dump, and a snapshot file of it."""

    def __init__(self, folder, build=None, frames=5, options=()):
        self.root = build.root if build else None
        prefix = ["chroot", build.root] if self.root else []
        self.outside = tempfile.mkdtemp(prefix="export.", dir=self.root + "/tmp" if self.root else folder)
        self.inside = self.outside[len(self.root):] if self.root else self.outside
        self.exe, self.prefix = (build.command[0] if build else lib.PYTHON), prefix
        self.process = lib.start_python(TARGET % (NAMES, self.inside + "/truth"), self.exe,
                                        ["-X", f"tracemalloc={frames}"], prefix)
        self.file = os.path.join(self.outside, "s.jsonl")
        self.done = lib.heapcensus("snapshot", self.process.pid, "-o", self.file, *options)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.process.kill()
        shutil.rmtree(self.outside)

    def export(self, to, *options, source=None):
        """(CompletedProcess, bytes of the file)"""
        path = os.path.join(self.outside, "out." + to)
        done = lib.heapcensus("export", source or self.file, "--to", to, "-o", path, "-f", *options)
        if not os.path.exists(path):
            return done, b""
        with open(path, "rb") as f:
            return done, f.read()

    def read_back(self, name="out.tracemalloc"):
        """What the target's own kind of Python says of the file."""
        files = [os.path.join(self.inside, n) for n in (name, "truth", "statistics")]
        return lib.run([*self.prefix, self.exe, "-c", READER, *files], timeout=120)


def decode(data):
    """How names are written in lines of text: bytes that are no UTF-8 and control characters as \\xHH."""
    done, at = "", 0
    while at < len(data):
        for n in (1, 2, 3, 4):
            try:
                c = data[at:at + n].decode()
                break
            except UnicodeDecodeError:
                c = ""
        bad = not c or ord(c) < 32 or 127 <= ord(c) < 160 or re.match(rb"\\x[0-9a-f]{2}", data[at:])
        n = n if c else 1
        done += "".join("\\x%02x" % b for b in data[at:at + n]) if bad else c
        at += n
    return done


# ---- Python's own loader ----

def check_loader(tap, build, folder):
    with Traced(folder, build) as target:
        done, _ = target.export("tracemalloc")
        if not tap.ok(done.returncode == 0, f"{build.name}: exported", lib.describe(done)):
            return
        read = target.read_back()
        lines = read.stdout.splitlines()
        records = re.match(r"records (\d+) 0 True", lines[0] if lines else "")
        tap.ok(records and int(records.group(1)) > 700, f"{build.name}: every record of the target's own dump is there, "
               "and no other, with its size, domain, frames and number of frames", lib.describe(read))
        bad = [line for line in lines if "False" in line]
        tap.ok(len(lines) == 12 and not bad, f"{build.name}: statistics, cumulative, compare_to, filter_traces, limit "
               "and domains are those of the target's own", lib.describe(read))
        sites = lib.heapcensus("sites", target.file, "--format", "tracemalloc", "--by", "line")
        with open(os.path.join(target.outside, "statistics"), encoding="utf-8", errors="surrogatepass") as f:
            theirs = collections.Counter(names_as_text(f.read()))
        ours = collections.Counter(sites.stdout.splitlines())
        tap.ok(theirs == ours and len(ours) > 100, f"{build.name}: the statistics of all {sum(ours.values())} lines of "
               "the file are those of `sites`", f"{list((theirs - ours))[:3]} {list((ours - theirs))[:3]}")


def names_as_text(text):
    """Lines of str(Statistic), with the names as a terminal is shown them."""
    found = re.findall(r"(.*?): (size=[^\n]*average=[^\n]*)\n", text, re.S)
    return [shown(name) + ": " + rest for name, rest in found]


def raw_bytes(name):
    """A name's bytes: what os.fsdecode made of a byte is that byte again, other lone surrogates are as UTF-8 has them."""
    return b"".join(c.encode("utf-8", "surrogateescape" if "\udc80" <= c <= "\udcff" else "surrogatepass") for c in name)


def shown(name):
    out = ""
    for c in name:
        data = raw_bytes(c)
        if ord(c) < 32 or 127 <= ord(c) < 160 or 0xd800 <= ord(c) < 0xe000:
            out += "".join("\\x%02x" % b for b in data)
        else:
            out += c
    return out


def test_loader(tap):
    with tempfile.TemporaryDirectory(prefix="heapcensus-test.") as folder:
        for build in builds.all_builds(tap.skip):
            if not build.name.startswith("stripped"):
                check_loader(tap, build, folder)


def test_for_python(tap):
    with tempfile.TemporaryDirectory(prefix="heapcensus-test.") as folder, Traced(folder) as target:
        shapes = {}
        for version in ("3.6", "3.8", "3.9", "3.15"):
            done, _ = target.export("tracemalloc", "--for-python", version)
            code = "import sys, tracemalloc; s = tracemalloc.Snapshot.load(sys.argv[1]); print({len(t) for t in s.traces._traces})"
            shapes[version] = lib.run([lib.PYTHON, "-c", code, target.outside + "/out.tracemalloc"]).stdout.strip()
        tap.ok(shapes == {"3.6": "{3}", "3.8": "{3}", "3.9": "{4}", "3.15": "{4}"}, "--for-python: the shape of records",
               shapes)
        for version in ("2.7", "3.5", "3", "3.x", "3.11.2", "4.0", "3.-1", "3. 9"):
            done = lib.heapcensus("export", target.file, "--to", "tracemalloc", "-o", "-", "--for-python", version)
            tap.ok(done.returncode == 2 and lib.two_lines(done.stderr), f"--for-python {version}: refused", lib.describe(done))


def test_sources(tap):
    """A process and a snapshot of it give the same; so does a core."""
    with tempfile.TemporaryDirectory(prefix="heapcensus-test.") as folder, Traced(folder) as target:
        _, of_file = target.export("tracemalloc")
        done, of_process = target.export("tracemalloc", source=target.process.pid)
        tap.ok(done.returncode == 0 and of_process == of_file, "of a process: the bytes of its snapshot", lib.describe(done))
        core = os.path.join(folder, "c.core")
        lib.heapcensus("core", target.process.pid, "-o", core)
        done, of_core = target.export("tracemalloc", source=core)
        tap.ok(done.returncode == 0 and of_core == of_file, "of a core: the same bytes", lib.describe(done))
        for to in FORMATS[1:]:
            one, two = target.export(to)[1], target.export(to)[1]
            tap.ok(one and one == two, f"{to}: the same input gives the same bytes")


# ---- rows ----

def rows_of(tap, target, *options):
    """A table as both formats, which must say the same; the rows of ndjson."""
    done, lines = target.export("ndjson", *options)
    _, table = target.export("csv", *options)
    rows = [json.loads(line) for line in lines.decode().splitlines()]
    read = list(csv.reader(io.StringIO(table.decode(), newline="")))
    same = len(read) == len(rows) + 1 and all(list(r) == read[0] for r in rows)
    wrong = [(r, c) for r, c in zip(rows, read[1:]) if not all(map(matches, r.values(), c))]
    tap.ok(done.returncode == 0 and same and not wrong and rows, f"{' '.join(options) or 'sites'}: {len(rows)} rows, "
           "the same as CSV and as JSON", wrong[:2] or lib.describe(done))
    tap.ok(table.count(b"\n") == table.count(b"\r\n") == len(rows) + 1 and not re.search(rb"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f]", table),
           f"{' '.join(options) or 'sites'}: CSV has a line for each row and no control characters")
    return rows


def matches(value, field):
    if not isinstance(value, str):
        return field == ("" if value is None else str(value).lower())
    escaped = decode(value.encode("utf-8"))
    # JSON's own escapes hold what CSV writes as \\xHH, but for bytes that are no UTF-8, which both write so.
    for text in (value, escaped, re.sub(r"\\x5c(?=x[0-9a-f]{2})", r"\\", escaped)):
        if field in (text, "".join("\\x%02x" % ord(c) if c in "=+-@" else c for c in text[:1]) + text[1:]):
            return True
    return False


def test_rows(tap):
    with tempfile.TemporaryDirectory(prefix="heapcensus-test.") as folder, \
            Traced(folder, options=["--blocks"]) as target:
        snap = lib.read_snapshot(target.file)
        rows = rows_of(tap, target)
        tracing = snap.one("tracing")
        tap.ok(sum(r["count"] for r in rows) == tracing["traces"] and sum(r["bytes"] for r in rows) == tracing["trace_bytes"],
               "the rows of sites add up to all traces")
        files = {r["file"] for r in rows}
        as_json = [re.sub("[\udc80-\udcff]", lambda m: "".join("\\x%02x" % b for b in raw_bytes(m.group())),
                          n).replace("\\x41", "\\x5cx41") for n in NAMES]
        tap.ok(not set(as_json) - files, "every name of a file is there", [ascii(n) for n in set(as_json) - files])
        db = [r for r in rows if r["file"] == "/srv/shop/app/db.py" and r["type"] == "__main__.Session"]
        tap.ok({r["line"] for r in db} == {6, 7} and sum(r["count"] for r in db) >= 10 and
               all(re.match(r"/srv/shop/app/db\.py:%d < " % r["line"], r["traceback"]) for r in db),
               "type, line and callers stand in one row", db[:2])
        for table, record in (("type", "type"), ("arena", "arena"), ("mapping", "mapping")):
            tap.ok(len(rows_of(tap, target, "--by", table)) == len(snap[record]), f"a row for each {record}")
        tap.ok(len(rows_of(tap, target, "--by", "size")) == len(snap.one("pymalloc")["size_classes"]), "and size class")
        rows = rows_of(tap, target, "--by", "category")
        tap.ok(sum(r["resident_bytes"] for r in rows) == snap.one("memory")["rss_bytes"], "categories add up to Rss")
        rows = rows_of(tap, target, "--by", "blocks")
        tap.ok(len(rows) == sum(len(r["address"]) for r in snap["blocks"]) and
               sum(r["size"] for r in rows) == sum(sum(r["size"]) for r in snap["blocks"]), "a row for each block")
        tap.ok(sum(r["file"] == "/srv/large.py" and r["size"] > 3 << 20 for r in rows) == 10,
               "a block's row has its site")
        check_formulas(tap, target)
        check_pandas(tap, target)


def check_formulas(tap, target):
    """No field of a CSV begins as a formula does, and the names come back."""
    _, table = target.export("csv")
    read = list(csv.DictReader(io.StringIO(table.decode(), newline="")))
    tap.ok(not [f for r in read for f in r.values() if f[:1] in ("=", "+", "-", "@", "\t", "\r")],
           "no field of the CSV begins like a formula")
    raw = {re.sub(rb"\\x([0-9a-f]{2})", lambda m: bytes([int(m.group(1), 16)]), r["file"].encode()) for r in read}
    want = {raw_bytes(n) for n in NAMES}
    tap.ok(not want - raw, "turning \\xHH back gives the very names", want - raw)


def check_pandas(tap, target):
    try:
        import pandas
    except ImportError:
        tap.skip("pandas reads CSV and NDJSON", "python3-pandas is not installed")
        return
    one = pandas.read_csv(target.outside + "/out.csv")
    target.export("ndjson")
    two = pandas.read_json(target.outside + "/out.ndjson", lines=True)
    tap.ok(one["bytes"].sum() == two["bytes"].sum() > 0 and list(one) == list(two) and len(one) == len(two),
           "pandas reads CSV and NDJSON")


# ---- stacks ----

def expected_stacks(target):
    """From the rows: (frames as text, root first) -> [count, bytes]"""
    snap = lib.read_snapshot(target.file)
    found = collections.defaultdict(lambda: [0, 0])
    for site in snap["site"]:
        frames = [snap["frame"][f] for f in snap["traceback"][site["traceback"]]["frames"]]
        key = tuple((f["file"], f["line"]) for f in reversed(frames))
        found[key][0] += site["count"]
        found[key][1] += site["bytes"]
    return dict(found)


def frame_name(file, line):
    folder, slash, base = file.rpartition("/")
    line = f":{line}" if line else ""
    return f"{base}{line} ({folder})" if slash and folder and base else file + line


def test_folded(tap):
    with tempfile.TemporaryDirectory(prefix="heapcensus-test.") as folder, Traced(folder) as target:
        want = expected_stacks(target)
        for at, weight in enumerate(("count", "bytes")):
            done, data = target.export("folded", "--weight", weight)
            # How flamegraph.pl takes a line apart.
            lines = [re.match(r"^(.*)\s+?(\d+(?:\.\d*)?)$", line) for line in data.decode().split("\n")[:-1]]
            found = collections.Counter()
            for m in filter(None, lines):
                found[m.group(1)] += int(m.group(2))
            named = collections.Counter()
            for key, sums in want.items():
                named[";".join(decode_json(frame_name(*f)).replace(";", "\\x3b") for f in key)] += sums[at]
            tap.ok(all(lines) and found == named and len(named) > 100, f"folded: {len(named)} stacks with their {weight}",
                   [ascii(x) for x in list((found - named) + (named - found))[:2]] or lib.describe(done))
        done = lib.heapcensus("export", target.file, "--to", "folded", "--weight", "pages")
        tap.ok(done.returncode == 2 and lib.two_lines(done.stderr), "--weight pages: refused", lib.describe(done))


def decode_json(text):
    """A text of a snapshot, whose bytes that are no UTF-8 are \\xHH already, as lines of text have it."""
    return "".join("".join("\\x%02x" % b for b in c.encode()) if ord(c) < 32 or 127 <= ord(c) < 160 else c for c in text)


def speedscope_schema(tap, folder):
    """The schema that speedscope is shipped with, or None."""
    if not shutil.which("npm"):
        tap.skip("speedscope's schema", "npm is not installed")
        return None
    cache = os.path.join(lib.BUILD, "speedscope-schema.json")
    if not os.path.exists(cache):
        got = lib.run(["npm", "pack", "--silent", SPEEDSCOPE], cwd=folder, timeout=120)
        packed = os.path.join(folder, got.stdout.strip().splitlines()[-1]) if got.stdout.strip() else ""
        if got.returncode or not os.path.exists(packed):
            tap.skip("speedscope's schema", "the schema of speedscope could not be fetched")
            return None
        member = "package/dist/release/file-format-schema.json"
        with open(cache, "wb") as f:
            f.write(subprocess.run(["tar", "xzOf", packed, member], stdout=subprocess.PIPE, check=True).stdout)
    with open(cache) as f:
        return json.load(f)


def test_speedscope(tap):
    import jsonschema
    with tempfile.TemporaryDirectory(prefix="heapcensus-test.") as folder, Traced(folder) as target:
        done, data = target.export("speedscope")
        file = json.loads(data)
        frames, want = file["shared"]["frames"], expected_stacks(target)
        tap.ok([(p["name"], p["unit"]) for p in file["profiles"]] == [("Memory", "bytes"), ("Allocations", "none")],
               "speedscope: two profiles", lib.describe(done))
        for at, p in ((1, file["profiles"][0]), (0, file["profiles"][1])):
            found = collections.Counter()
            for sample, weight in zip(p["samples"], p["weights"]):
                found[tuple((frames[i]["file"], frames[i].get("line", 0)) for i in sample)] += weight
            tap.ok(found == {k: v[at] for k, v in want.items() if v[at]} or +found == +collections.Counter(
                {k: v[at] for k, v in want.items()}), f"speedscope: {p['name']}: all stacks and weights, root first")
            tap.ok(len(p["samples"]) == len(p["weights"]) and p["startValue"] == 0 and p["endValue"] == sum(p["weights"]),
                   f"speedscope: {p['name']}: the sums fit")
        tap.ok(sorted({i for p in file["profiles"] for s in p["samples"] for i in s}) == list(range(len(frames))),
               "speedscope: no frame that no stack has")
        schema = speedscope_schema(tap, folder)
        if schema:
            errors = list(jsonschema.Draft7Validator(schema).iter_errors(file))
            tap.ok(not errors, "speedscope: valid by its own schema", errors[:1])
            file["profiles"][0]["unit"] = "furlongs"
            tap.ok(list(jsonschema.Draft7Validator(schema).iter_errors(file)), "... which refuses a wrong unit")


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def fields(data):
    """[(number, int or bytes)] of a protobuf message."""
    found, at = [], 0
    while at < len(data):
        tag, at = varint(data, at)
        value, at = varint(data, at)
        if tag & 7 == 2:
            value, at = data[at:at + value], at + value
        elif tag & 7:
            raise ValueError(f"wire type {tag & 7}")
        found.append((tag >> 3, value))
    return found


def packed(data):
    found, at = [], 0
    while at < len(data):
        value, at = varint(data, at)
        found.append(value)
    return found


def check_pprof(tap, target, data):
    """By profile.proto: every number leads somewhere, and the stacks are those of the snapshot."""
    profile = fields(gzip.decompress(data))
    texts = [v.decode() for n, v in profile if n == 6]
    functions = {dict(fields(v))[1]: dict(fields(v)) for n, v in profile if n == 5}
    locations = {dict(fields(v))[1]: dict(fields(dict(fields(v))[4])) for n, v in profile if n == 4}
    types = [[texts[dict(fields(v))[i]] for i in (1, 2)] for n, v in profile if n == 1]
    tap.ok(texts[0] == "" and types == [["inuse_objects", "count"], ["inuse_space", "bytes"]], "pprof: texts and types")
    tap.ok(all(3 not in f for f in functions.values()), "pprof: no system_name, which would erase <module>")
    found = collections.defaultdict(lambda: [0, 0])
    labels = set()
    for sample in (fields(v) for n, v in profile if n == 2):
        ids, values = (packed(dict(sample)[i]) for i in (1, 2))
        key = tuple((texts[functions[locations[i][1]][4]], locations[i].get(2, 0)) for i in reversed(ids))
        found[key] = [a + b for a, b in zip(found[key], values)]
        labels |= {(texts[d[1]], texts[d.get(2, 0)]) for d in (dict(fields(v)) for n, v in sample if n == 3)}
    want = {tuple((decode_json(f), n) for f, n in k): v for k, v in expected_stacks(target).items()}
    tap.ok(dict(found) == want, f"pprof: all {len(want)} stacks with their counts and bytes", list(set(found) ^ set(want))[:2])
    tap.ok({("type", "__main__.Session"), ("kind", "object"), ("domain", "")} <= labels, "pprof: labels", list(labels)[:5])


def test_pprof(tap):
    with tempfile.TemporaryDirectory(prefix="heapcensus-test.") as folder, Traced(folder) as target:
        done, data = target.export("pprof")
        tap.ok(done.returncode == 0 and data[:2] == b"\x1f\x8b", "pprof: gzip", lib.describe(done))
        check_pprof(tap, target, data)
        named = os.path.join(target.outside, "heap.pb.gz")
        lib.heapcensus("export", target.file, "--to", "pprof", "-o", named)
        with open(named, "rb") as f:
            tap.ok(gzip.decompress(f.read()) == gzip.decompress(data), "pprof: a name in .gz is packed once")
        check_go(tap, target, folder)


def check_go(tap, target, folder):
    if not shutil.which("go"):
        tap.skip("go tool pprof reads it", "golang-go is not installed")
        return
    def go(*options):
        return lib.run(["go", "tool", "pprof", *options, target.outside + "/out.pprof"], timeout=120,
                       env=lib.environment(PPROF_TMPDIR=folder, HOME=folder))
    total = lib.read_snapshot(target.file).one("tracing")
    top = go("-top", "-unit=B", "-nodecount=10000", "-nodefraction=0")
    tap.ok(top.returncode == 0 and f"of {total['trace_bytes']}B total" in top.stdout and
           re.search(r"db\.py:\d+ \(/srv/shop/app\)", top.stdout) and re.search(r"<module>:\d+ \(/srv\)", top.stdout),
           "go tool pprof -top: the total, the lines, <module> not erased", lib.describe(top))
    count = go("-top", "-sample_index=inuse_objects")
    tap.ok(f"of {total['traces']} total" in count.stdout, "go tool pprof -sample_index=inuse_objects", lib.describe(count))
    tags = go("-tags")
    tap.ok(all(w in tags.stdout for w in ("type: Total", "__main__.Session", "kind: Total")), "go tool pprof -tags",
           lib.describe(tags))
    leaf = go("-top", "-tagleaf=type", "-nodefraction=0")
    tap.ok(re.search(r"\sbytearray\n", leaf.stdout) and re.search(r"\s\((gone|runtime|unowned)\)\n", leaf.stdout),
           "go tool pprof -tagleaf=type", lib.describe(leaf))
    base = go("-top", "-diff_base", target.outside + "/out.pprof")
    tap.ok(base.returncode == 0 and "accounting for 0, 0% of" in base.stdout, "go tool pprof -diff_base: no growth against itself",
           lib.describe(base))


# ---- options ----

def test_filters(tap):
    with tempfile.TemporaryDirectory(prefix="heapcensus-test.") as folder, Traced(folder) as target:
        total = lib.read_snapshot(target.file).one("tracing")["traces"]
        def load(*options):
            done, data = target.export("ndjson", *options)
            return done, [json.loads(line) for line in data.decode().splitlines()]
        done, rows = load("--include", "/srv/shop/*")
        kept = sum(r["count"] for r in rows)
        left = re.search(r"left out by filters: ([\d,]+) traces", done.stdout)
        tap.ok({r["file"] for r in rows} == set(NAMES[:2]) and left and int(left.group(1).replace(",", "")) == total - kept,
               "--include, and what it left out is told", lib.describe(done))
        done, rows = load("--exclude", "/srv/*", "--type", "Session$")
        tap.ok(rows and all(r["type"] == "__main__.Session" and not r["file"].startswith("/srv/") for r in rows),
               "--exclude and --type together", rows[:2])
        done, rows = load("--min-size", "1000000")
        tap.ok(rows and all(r["bytes"] >= 1000000 for r in rows), "--min-size", rows[:2])
        done, rows = load("--limit", "1")
        tap.ok(not [r for r in rows if " < " in r["traceback"]] and sum(r["count"] for r in rows) == total, "--limit")
        done, rows = load("--domain", "0")
        tap.ok(rows and all(r["domain"] == 0 for r in rows), "--domain")
        for to in FORMATS:
            done, data = target.export(to, "--include", "/nowhere/*")
            tap.ok(done.returncode == 0 and "0 traces at 0 sites" in done.stdout, f"{to}: nothing passes: an empty file",
                   lib.describe(done))
        done = lib.heapcensus("export", target.file, "--to", "csv", "--include", "/srv/*")
        tap.ok(done.returncode == 0 and done.stdout.startswith("type,kind,") and "left out by filters" in done.stderr,
               "to stdout: only the file there, what was left out on stderr", lib.describe(done))


def refuse(tap, code, words, *options):
    done = lib.heapcensus("export", *options)
    tap.ok(done.returncode == code and lib.two_lines(done.stderr) and words in done.stderr and not done.stdout,
           f"{code}: {words}", lib.describe(done))


def test_refusals(tap):
    with tempfile.TemporaryDirectory(prefix="heapcensus-test.") as folder, Traced(folder) as target:
        refuse(tap, 2, "export needs a format", target.file)
        refuse(tap, 2, "no format 'xml'", target.file, "--to", "xml")
        refuse(tap, 2, "--by chooses a table", target.file, "--to", "pprof", "--by", "type")
        refuse(tap, 2, "there is no table 'lines'", target.file, "--to", "csv", "--by", "lines")
        refuse(tap, 2, "there are no single blocks", target.file, "--to", "csv", "--by", "blocks")
        refuse(tap, 2, "exists already", target.file, "--to", "csv", "-o", target.file)
        refuse(tap, 3, "", folder + "/nothing", "--to", "csv", "--by", "blocks")
        refuse(tap, 7, "", target.outside + "/truth", "--to", "csv", "--by", "blocks")
        plain = os.path.join(folder, "plain")
        with lib.start_python() as other:
            lib.heapcensus("snapshot", other.pid, "-o", plain)
        for to in FORMATS:
            refuse(tap, 5, "tracemalloc is off", plain, "--to", to, "-o", folder + "/out")
        tap.ok(not os.path.exists(folder + "/out"), "nothing is left behind")
        done = lib.heapcensus("export", plain, "--to", "csv", "--by", "type")
        tap.ok(done.returncode == 0 and '"dict","builtins"' in done.stdout, "tables need no tracemalloc", lib.describe(done))
        for to in ("tracemalloc", "pprof"):
            master, slave = pty.openpty()
            done = lib.run([lib.PROGRAM, "export", target.file, "--to", to], stdout=slave)
            os.close(master), os.close(slave)
            tap.ok(done.returncode == 2 and "this is a terminal" in done.stderr, f"{to} does not go to a terminal", done.stderr)


def rewritten(target, change):
    """A copy of the snapshot with each record changed."""
    path = os.path.join(target.outside, "changed.jsonl")
    with open(target.file) as old, open(path, "w") as new:
        for line in old:
            record = json.loads(line)
            change(record)
            new.write(json.dumps(record) + "\n")
    return path


def test_made_up(tap):
    """Files that claim what no process has."""
    with tempfile.TemporaryDirectory(prefix="heapcensus-test.") as folder, Traced(folder) as target:
        def no_sizes(record):
            if record["record"] == "site":
                record["sizes"] = []
        path = rewritten(target, no_sizes)
        refuse(tap, 2, "does not have the size of each trace", path, "--to", "tracemalloc", "-o", folder + "/out")
        for to in FORMATS[1:]:
            done, data = target.export(to, source=path)
            tap.ok(done.returncode == 0 and data, f"{to} needs only the sums", lib.describe(done))

        def many(n):
            left = [1]
            def change(record):
                if record["record"] == "site" and left:
                    record.update(count=n, bytes=n * left.pop(), sizes=[[1, n]])
            return change
        path = rewritten(target, many(10 ** 15))
        refuse(tap, 6, "more than Python's tracemalloc could read", path, "--to", "tracemalloc", "-o", folder + "/out")
        path = rewritten(target, many(3 * 10 ** 7))
        long = lib.start([lib.PROGRAM, "export", path, "--to", "tracemalloc", "-o", folder + "/out"], stderr=subprocess.PIPE)
        lib.wait_for(lambda: [n for n in os.listdir(folder) if n.startswith(".heapcensus-")])
        long.popen.send_signal(signal.SIGINT)
        status = long.popen.wait(timeout=60)
        long.popen.stderr.close()
        long.kill()
        tap.ok(status == 130 and not [n for n in os.listdir(folder) if "out" in n or n.startswith(".heapcensus-")],
               "a signal ends a long export, and nothing is left", f"{status} {os.listdir(folder)}")


if __name__ == "__main__":
    sys.exit(lib.Tap().run(test_loader, test_for_python, test_sources, test_rows, test_folded, test_speedscope, test_pprof,
                           test_filters, test_refusals, test_made_up))
