"""What users and scripts may rely on: views, JSON by its schema, files, exit codes, refusals."""
import gzip
import json
import os
import stat
import subprocess
import sys
import tempfile

import lib

VIEWS = ("summary", "sizes", "arenas", "malloc", "maps")


def validator(name):
    import jsonschema

    with open(os.path.join(lib.ROOT, "docs", name)) as f:
        return jsonschema.Draft202012Validator(json.load(f))


def errors_of(checker, document):
    return [e.message[:200] for e in checker.iter_errors(document)][:3]


def test_views(tap):
    views = validator("views.schema.json")
    with lib.start_python() as target, tempfile.TemporaryDirectory() as tmp:
        path = tmp + "/snap.jsonl.gz"
        lib.heapcensus("snapshot", target.pid, "-o", path)
        for view in VIEWS:
            for what in (target.pid, path):
                kind = "file" if what == path else "process"
                text = lib.heapcensus(view, what)
                tap.ok(text.returncode == 0 and "CPython" in text.stdout, "%s of a %s" % (view, kind), lib.describe(text))
                tap.ok("next: heapcensus" in text.stdout and not text.stderr, "%s of a %s ends with the next command" % (view, kind), lib.describe(text))
                tap.ok("\033" not in text.stdout, "%s of a %s: no escapes when not a terminal" % (view, kind))
                done = lib.heapcensus(view, what, "--json")
                document = json.loads(done.stdout)
                tap.ok(document["schema"] == 1 and document["view"] == view, "%s of a %s as JSON" % (view, kind))
                tap.ok(not errors_of(views, document), "%s of a %s fits the schema" % (view, kind), errors_of(views, document))
        once, twice = lib.heapcensus("summary", path).stdout, lib.heapcensus("summary", path).stdout
        tap.ok(once == twice, "a view of a file is the same each time")
        tap.ok(lib.heapcensus(path).stdout == once, "without a command: summary")
        colour = lib.heapcensus("summary", path, "--color=always").stdout
        tap.ok("\033[1m" in colour, "--color=always has colour")


def test_snapshot_lines(tap):
    lines = validator("snapshot.schema.json")
    with lib.start_python() as target:
        for way in (("--read", "copy"), ("--read", "window"), ("--no-pause",)):
            snap = lib.snapshot(target.pid, *way)
            wrong = [e for record in snap.lines for e in errors_of(lines, record)]
            tap.ok(snap.lines and not wrong, "every line of a snapshot fits the schema (%s)" % way[-1], wrong[:5])
            tap.ok(snap.lines[0]["record"] == "header" and snap.lines[-1] == {"record": "end", "records": len(snap.lines) - 1}, "header first, end last (%s)" % way[-1], snap.lines[-1])
        tap.ok(snap.header["source"]["paused_ns"] == 0 and not snap.header["source"]["consistent"], "--no-pause says so")
        tap.ok(lib.snapshot(target.pid).header["source"]["paused_ns"] > 0, "the pause is in the snapshot")


def test_files(tap):
    with lib.start_python() as target, tempfile.TemporaryDirectory() as tmp:
        for name in ("a.jsonl", "a.jsonl.gz"):
            path = os.path.join(tmp, name)
            tap.ok(lib.heapcensus("snapshot", target.pid, "-o", path).returncode == 0, "writes " + name)
            tap.ok(stat.S_IMODE(os.stat(path).st_mode) == 0o600, name + " is private")
            with open(path, "rb") as f:
                tap.ok((f.read(2) == b"\x1f\x8b") == name.endswith(".gz"), name + " is compressed by its name")
            done = lib.heapcensus("snapshot", target.pid, "-o", path)
            tap.ok(done.returncode == 2 and lib.two_lines(done.stderr), name + " is not overwritten", lib.describe(done))
            tap.ok(lib.heapcensus("snapshot", target.pid, "-f", "-o", path).returncode == 0, name + " is overwritten with -f")
        done = lib.run([lib.PROGRAM, "snapshot", target.pid], cwd=tmp)
        name = [n for n in os.listdir(tmp) if n.startswith("heapcensus.")]
        tap.ok(done.returncode == 0 and len(name) == 1 and name[0].endswith(".jsonl.gz") and ".%d." % target.pid in name[0], "the default name", name)
        tap.ok(set(os.listdir(tmp)) == {"a.jsonl", "a.jsonl.gz", *name}, "nothing else is left behind", os.listdir(tmp))
        done = lib.heapcensus("snapshot", target.pid, "-o", "/dev/full")
        tap.ok(done.returncode not in (0, 1) and "No space" in done.stderr, "a full disk is told", lib.describe(done))
        text = tmp + "/view.txt"
        tap.ok(lib.heapcensus("maps", target.pid, "-o", text).returncode == 0 and "stack" in open(text).read(), "a view into a file")


def test_damaged_files(tap):
    with lib.start_python() as target, tempfile.TemporaryDirectory() as tmp:
        whole = lib.heapcensus("snapshot", target.pid, "-o", "-").stdout.encode()

        def read(content, *options):
            path = tmp + "/x"
            with open(path, "wb") as f:
                f.write(content)
            return lib.heapcensus("summary", path, *options)

        half = whole[: len(whole) * 2 // 3]
        for name, content in (
            ("truncated", half),
            ("truncated gzip", gzip.compress(whole)[:-200]),
            ("garbage", b"\x00\x01garbage" * 100),
            ("empty", b""),
            ("JSON of something else", b'{"a": 1}\n'),
            ("a newer version", whole.replace(b'"version":1', b'"version":99', 1)),
        ):
            done = read(content)
            tap.ok(done.returncode == 7 and lib.two_lines(done.stderr) and not done.stdout, name + ": exit 7, cause and remedy", lib.describe(done))
        done = read(half, "--partial")
        tap.ok(done.returncode == 6 and "python.blocks.used" in done.stdout, "--partial reads what is there: exit 6", lib.describe(done))


def test_usage(tap):
    cases = (
        ([], 2), (["summary"], 2), (["--frobnicate"], 2), (["0"], 2), (["-p", "x"], 2), (["1", "2"], 2),
        (["summary", "1", "--top", "-3"], 2), (["summary", "1", "--top"], 2), (["summary", "1", "--read", "mail"], 2),
        (["sizes", "1", "--sort", "colour"], 2), (["snapshot", "/dev/null"], 2), (["doctor", "file"], 2),
        (["/nonexistent/file"], 3), (["99999999999999999999"], 2), (["--help"], 0), (["--version"], 0),
    )
    for words, status in cases:
        done = lib.heapcensus(*words)
        tap.ok(done.returncode == status, "heapcensus %s: exit %d" % (" ".join(words), status), lib.describe(done))


def test_lists(tap):
    keep = "keep = [bytes(i % 500) for i in range(200000)]\n"
    with lib.start_python(keep + lib.WAITING) as target, tempfile.TemporaryDirectory() as tmp:
        path = tmp + "/s"
        lib.heapcensus("snapshot", target.pid, "-o", path)

        def rows(*words):
            return [r for r in lib.heapcensus(*words).stdout.splitlines() if r.startswith("0x")]

        tap.ok(len(rows("arenas", path, "--top", "3")) == 3, "--top 3")
        everything = rows("arenas", path, "--top", "0")
        tap.ok(len(everything) > 20, "--top 0 shows all", len(everything))
        by_address = rows("arenas", path, "--top", "0", "--sort", "address")
        tap.ok(by_address == sorted(by_address, reverse=True), "--sort address")
        tap.ok(rows("arenas", path, "--top", "0", "--sort", "address", "-r") == sorted(by_address), "-r")
        exact = lib.heapcensus("summary", path, "--bytes").stdout
        memory = lib.read_snapshot(path).one("memory")
        tap.ok("{:,}".format(memory["rss_bytes"]) in exact, "--bytes gives the exact figure", exact[:400])


def test_hostile_name(tap):
    rename = "import ctypes\nctypes.CDLL(None).prctl(15, b'\\x1b[31mev\\nil', 0, 0, 0)\n"
    with lib.start_python(rename + lib.WAITING) as target:
        done = lib.heapcensus("summary", target.pid)
        tap.ok(done.returncode == 0 and "\033" not in done.stdout and "ev" in done.stdout, "control characters in a name", lib.describe(done))
        tap.ok(len(lib.snapshot(target.pid).lines) > 5, "its snapshot is valid JSON Lines")


def test_closed_pipe(tap):
    with lib.start_python() as target:
        command = "%s maps %d --top 0 | head -c 10 >/dev/null; echo ${PIPESTATUS[0]}" % (lib.PROGRAM, target.pid)
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
        tap.ok(int(done.stdout) < 128, "a closed pipe is no crash", done.stdout + done.stderr)


def test_doctor(tap):
    with lib.start_python() as target:
        done = lib.heapcensus("doctor", target.pid)
        tap.ok(done.returncode == 0 and "FAIL" not in done.stdout, "doctor", lib.describe(done))
        document = json.loads(lib.heapcensus("doctor", target.pid, "--json").stdout)
        tap.ok(document["failed"] == 0 and len(document["checks"]) >= 8, "doctor as JSON", document)


sys.exit(lib.Tap().run(test_views, test_snapshot_lines, test_files, test_damaged_files, test_usage, test_lists, test_hostile_name, test_closed_pipe, test_doctor))
