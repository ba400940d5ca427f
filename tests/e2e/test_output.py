"""What heapcensus writes: every view in text and JSON, snapshot files, their schemas, options, and writing that fails."""
import gzip
import json
import os
import re
import stat
import subprocess
import tempfile

from lib import (PROGRAM, ROOT, describe, environment, heapcensus, main, read_snapshot, start_python, survived,
                 two_lines)

try:
    import jsonschema
except ImportError:
    jsonschema = None

VIEWS = ["summary", "types", "sizes", "arenas", "malloc", "maps"]
NO_SCHEMA = "python3-jsonschema is not installed"
RAW_NAME = b"a\x1b[31m\nb\x07\xff\x9b"
BUSY = """
import threading, time
kept = [[str(i) * (i % 40 + 1)] for i in range(30000)]
del kept[::3]
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
print('READY', flush=True)
while True: time.sleep(0.02)
"""
RENAMED = f"""
import ctypes, time
ctypes.CDLL(None).prctl(15, {RAW_NAME!r}, 0, 0, 0)
print('READY', flush=True)
while True: time.sleep(0.02)
"""


class Bench:
    """One target and one snapshot of it in a folder, for all tests of this file."""
    target = None
    folder = ""
    plain = ""

    @classmethod
    def path(cls, name):
        return os.path.join(cls.folder, name)

    @classmethod
    def write(cls, name, data):
        with open(cls.path(name), "wb") as f:
            f.write(data)
        return cls.path(name)

    @classmethod
    def bytes(cls):
        with open(cls.plain, "rb") as f:
            return f.read()


def schema(name):
    with open(os.path.join(ROOT, "docs", name)) as f:
        found = json.load(f)
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


def complaints(validator, documents):
    return [f"{error.json_path}: {error.message[:300]}" for document in documents
            for error in validator.iter_errors(document)]


def check_text(tap, view, source, name):
    done = heapcensus(view, source)
    tap.ok(done.returncode == 0 and done.stderr == "", f"{name}: exit 0, nothing on stderr", describe(done))
    lines = done.stdout.splitlines()
    tap.ok("CPython 3." in done.stdout and lines[-1].startswith("next: heapcensus "), f"{name}: head and next command",
           describe(done))
    tap.ok("\x1b" not in done.stdout, f"{name}: no colour into a pipe")
    quiet = heapcensus(view, source, "-q").stdout
    tap.ok("next:" not in quiet and len(quiet) > 100, f"{name}: -q leaves the hint away")


def check_json(tap, view, source, name):
    done = heapcensus(view, source, "--json")
    tap.ok(done.returncode == 0 and done.stderr == "", f"{name} --json: exit 0, nothing on stderr", describe(done))
    document = json.loads(done.stdout)
    tap.ok(document["schema"] == 1 and document["view"] == view, f"{name} --json: one document, schema 1")
    if not jsonschema:
        return tap.skip(f"{name} --json: valid", NO_SCHEMA)
    found = complaints(schema("views.schema.json"), [document])
    tap.ok(not found, f"{name} --json: valid", "\n".join(found))


def test_views(tap):
    for view in VIEWS:
        for source, name in ((Bench.target.pid, "PID"), (Bench.plain, "FILE")):
            check_text(tap, view, source, f"{view} {name}")
            check_json(tap, view, source, f"{view} {name}")
    tap.ok(survived(Bench.target.pid), "the target of all views lives on")


def test_same(tap):
    """A view of a file is a function of the file, compressed or not, named or on stdin."""
    zipped = Bench.write("copy.jsonl.gz", gzip.compress(Bench.bytes()))
    for view in VIEWS:
        first = heapcensus(view, Bench.plain, "-q").stdout
        tap.ok(first and first == heapcensus(view, Bench.plain, "-q").stdout, f"{view} FILE: twice the same")
        tap.ok(first == heapcensus(view, zipped, "-q").stdout, f"{view} FILE.gz: as of the plain file")
    with open(Bench.plain) as f:
        done = heapcensus("summary", "-", "-q", stdin=f)
    tap.ok(done.stdout == heapcensus("summary", Bench.plain, "-q").stdout, "summary -: as of the file", describe(done))
    done = heapcensus(Bench.plain, "-q")
    tap.ok(done.stdout == heapcensus("summary", Bench.plain, "-q").stdout, "without a command: summary", describe(done))


def test_lines(tap):
    """The snapshot file's own rules."""
    shot = read_snapshot(Bench.plain)
    names = [record["record"] for record in shot.lines]
    tap.ok(names[0] == "header" and names[-1] == "end", "snapshot: from header to end", names[:3])
    tap.ok(shot.one("end")["records"] == len(names) - 1, "snapshot: end counts the records", shot["end"])
    memory = shot.one("memory")
    sums = [sum(c[key] for c in memory["categories"]) for key in ("bytes", "resident_bytes")]
    tap.ok(sums == [memory["mapped_bytes"], memory["rss_bytes"]], "snapshot: categories add up", memory)
    tap.ok(memory["mapped_bytes"] == sum(m["bytes"] for m in shot["mapping"]), "snapshot: mappings add up")
    pools = shot.one("pymalloc")
    tap.ok(len(shot["arena"]) == pools["arenas"] and sum(a["blocks_used"] for a in shot["arena"]) == pools["blocks_used"],
           "snapshot: arenas add up to pymalloc", pools)
    tap.ok(sum(s["blocks_used"] for s in pools["size_classes"]) == pools["blocks_used"], "snapshot: size classes add up")
    if not jsonschema:
        return tap.skip("snapshot: every line valid", NO_SCHEMA)
    found = complaints(schema("snapshot.schema.json"), shot.lines)
    tap.ok(not found, "snapshot: every line valid", "\n".join(found))


def test_files(tap):
    pid, path = Bench.target.pid, Bench.path("new.jsonl")
    old_mask = os.umask(0)
    done = heapcensus("snapshot", pid, "-o", path)
    os.umask(old_mask)
    tap.ok(done.returncode == 0 and stat.S_IMODE(os.stat(path).st_mode) == 0o600, "-o: mode 0600", describe(done))
    Bench.write("new.jsonl", b"precious")
    done = heapcensus("snapshot", pid, "-o", path)
    tap.ok(done.returncode == 2 and two_lines(done.stderr), "-o: does not overwrite", describe(done))
    with open(path, "rb") as f:
        tap.ok(f.read() == b"precious", "-o: the old file is untouched")
    done = heapcensus("snapshot", pid, "-f", "-o", path)
    tap.ok(done.returncode == 0 and read_snapshot(path)["end"], "-f overwrites", describe(done))
    tap.ok(stat.S_IMODE(os.stat(path).st_mode) == 0o600, "-f: mode 0600")
    done = heapcensus("snapshot", pid, "-o", "-")
    tap.ok(done.returncode == 0 and json.loads(done.stdout.splitlines()[-1])["record"] == "end", "-o -: to stdout",
           describe(done))
    done = heapcensus("snapshot", pid, "-o", Bench.path("no/such/folder/s.jsonl"))
    tap.ok(done.returncode in (2, 6) and two_lines(done.stderr), "-o into no folder: exit 2 or 6", describe(done))
    view = Bench.path("view.json")
    done = heapcensus("sizes", pid, "--json", "-o", view)
    tap.ok(done.returncode == 0 and done.stdout == "" and os.path.exists(view), "-o of a view", describe(done))
    tap.ok(heapcensus("sizes", pid, "--json", "-o", view).returncode == 2, "-o of a view does not overwrite")


def test_gzip(tap):
    for name, magic in (("s.jsonl.gz", b"\x1f\x8b"), ("s.jsonl", b'{"')):
        path = Bench.path(name)
        heapcensus("snapshot", Bench.target.pid, "-o", path)
        with open(path, "rb") as f:
            tap.ok(f.read(2) == magic, f"{name}: form by name")
        tap.ok(read_snapshot(path)["end"], f"{name}: complete")


def test_default_name(tap):
    with tempfile.TemporaryDirectory() as folder:
        done = heapcensus("snapshot", Bench.target.pid, cwd=folder)
        names = os.listdir(folder)
        tap.ok(done.returncode == 0 and len(names) == 1, "default name: one file, nothing temporary", names)
        words = names[0].split(".")
        tap.ok(words[0] == "heapcensus" and words[2] == str(Bench.target.pid) and words[4:] == ["jsonl", "gz"],
               "default name: heapcensus.<comm>.<pid>.<time>.jsonl.gz", names)
        tap.ok(heapcensus("summary", names[0], cwd=folder).returncode == 0, "default name: can be read back")


def test_full_disk(tap):
    pid = Bench.target.pid
    cases = [["snapshot", pid, "-o", "-"], ["summary", pid], ["maps", pid, "--json"], ["doctor", pid],
             ["sizes", Bench.plain]]
    for words in cases:
        with open("/dev/full", "w") as full:
            done = heapcensus(*words, stdout=full)
        name = "full disk: " + " ".join(str(w) for w in words[:1] + words[2:])
        tap.ok(done.returncode not in (0, -9) and done.returncode > 0, f"{name}: not 0", describe(done))
        tap.ok("No space left" in done.stderr and two_lines(done.stderr), f"{name}: says so in two lines", describe(done))
    tap.ok(survived(pid), "full disk: the target lives on")


def test_full_filesystem(tap):
    """A file that cannot be finished must not stay, nor replace the old one."""
    script = ('mount -t tmpfs -o size=4k none "$0" && echo old >"$0/s.jsonl" && "$1" snapshot "$2" -f -o "$0/s.jsonl";'
              'echo "status $?"; ls -A "$0"; cat "$0/s.jsonl"')
    if os.geteuid() != 0:
        return tap.skip("full file system", "needs root")
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(["unshare", "-m", "sh", "-c", script, folder, PROGRAM, str(Bench.target.pid)], text=True,
                              capture_output=True, env=environment(), check=False, timeout=60)
    tap.ok(done.stdout == "status 6\ns.jsonl\nold\n" and "No space left" in done.stderr,
           "full file system: exit 6, the old file stays, nothing else", describe(done))


def check_unreadable(tap, name, path, status, *words):
    done = heapcensus("summary", path)
    tap.ok(done.returncode == status, f"{name}: exit {status}", describe(done))
    tap.ok(two_lines(done.stderr) and done.stdout == "", f"{name}: a line of cause and one of remedy", describe(done))
    for word in words:
        tap.ok(word in done.stderr, f"{name}: says {word}", describe(done))


def test_truncated(tap):
    data = Bench.bytes()
    middle = data[: len(data) // 2]
    lines = data.splitlines(keepends=True)
    cases = {"cut in a line": middle, "cut after a line": b"".join(lines[:-1]), "cut gzip": gzip.compress(data)[:900]}
    for name, cut in cases.items():
        path = Bench.write("cut.jsonl", cut)
        check_unreadable(tap, f"snapshot {name}", path, 7, "truncated", "--partial")
        done = heapcensus("summary", path, "--partial")
        tap.ok(done.returncode == 6, f"snapshot {name}, --partial: exit 6", describe(done))
        tap.ok("truncated" in done.stdout, f"snapshot {name}, --partial: says so in the report", describe(done))


def test_unreadable(tap):
    lines = Bench.bytes().splitlines(keepends=True)
    cases = {"garbage": os.urandom(5000), "empty file": b"", "other JSON": b'{"record":"header","format":"x"}\n',
             "garbage in gzip": gzip.compress(b"no snapshot"), "nested JSON": b"[" * 100000,
             "damaged line": b"".join(lines[:3]) + b'{"record":\n' + b"".join(lines[3:]),
             "later version": lines[0].replace(b'"version":1', b'"version":99', 1) + b"".join(lines[1:])}
    for name, data in cases.items():
        check_unreadable(tap, name, Bench.write("bad.jsonl", data), 7)
    check_unreadable(tap, "a folder", Bench.folder, 7)
    check_unreadable(tap, "missing file", Bench.path("nothing.jsonl"), 3, "nothing.jsonl")


BAD_OPTIONS = ["--nope PID", "frobnicate PID", "PID --top", "PID --top x", "PID --top -1", "PID --top 1e3",
               "sizes PID --sort nope", "arenas PID --sort pools", "summary PID --sort size", "PID --color pink", "-p x",
               "-p", "PID --max-pause x", "PID --max-pause -5", "PID --read fast", "-p 0", "0", "snapshot FILE -o X", "snapshot",
               "summary", "PID PID", "FILE FILE", "doctor FILE", "doctor", "PID -o", "sizes PID --js=1", "-1",
               "maps PID extra"]


def test_bad_options(tap):
    names = {"PID": str(Bench.target.pid), "FILE": Bench.plain, "X": Bench.path("x.jsonl")}
    for case in BAD_OPTIONS:
        done = heapcensus(*[names.get(word, word) for word in case.split()])
        tap.ok(done.returncode == 2 and done.stdout == "" and two_lines(done.stderr), f"bad options: {case}: exit 2",
               describe(done))
    done = heapcensus()
    tap.ok(done.returncode == 2 and "usage:" in done.stdout + done.stderr, "no arguments: usage, exit 2", describe(done))
    for option in ("--help", "--version", "-h", "-V"):
        done = heapcensus(option)
        tap.ok(done.returncode == 0 and "heapcensus" in done.stdout and done.stderr == "", f"{option}: exit 0 on stdout",
               describe(done))


def is_clean(text):
    """No control character but newline; C1 controls (0x80 to 0x9f) also as single bytes, as some terminals take them."""
    return not [c for c in text if (ord(c) < 32 and c != "\n") or 127 <= ord(c) < 160 or 0xDC80 <= ord(c) < 0xDCA0]


def test_control_characters(tap):
    with start_python(RENAMED) as target, tempfile.TemporaryDirectory() as folder:
        with open(f"/proc/{target.pid}/comm", "rb") as f:
            tap.ok(f.read().startswith(RAW_NAME[:5]), "control characters: the test itself")
        done = heapcensus("snapshot", target.pid, "-v", cwd=folder)
        names = os.listdir(folder)
        tap.ok(done.returncode == 0 and len(names) == 1 and is_clean(names[0]) and "/" not in names[0],
               "control characters: default name is clean", [*names, describe(done)])
        tap.ok(is_clean(done.stdout + done.stderr), "control characters: snapshot", repr(done.stdout + done.stderr))
        for words in (["summary"], ["maps"], ["doctor"], ["summary", "--json"], ["doctor", "--json"], ["summary", "-v"]):
            done = heapcensus(*words, target.pid)
            tap.ok(done.returncode == 0 and is_clean(done.stdout + done.stderr), f"control characters: {' '.join(words)}",
                   repr(done.stdout[:500] + done.stderr))
        file_view = heapcensus("summary", *names, cwd=folder)
        tap.ok(is_clean(file_view.stdout + file_view.stderr), "control characters: summary FILE", repr(file_view.stdout))
    done = heapcensus("summary", "/nowhere/\x1b[31mred\x07\n")
    tap.ok(done.returncode == 3 and is_clean(done.stderr), "control characters: name of a missing file", repr(done.stderr))


def column(view, index, *options):
    """One column of the list in a view's text, as numbers; the JSON form holds all rows in the file's own order."""
    text = heapcensus(view, Bench.plain, "--bytes", "-q", *options).stdout
    rows = [line.replace(",", "").split() for line in text.splitlines() if ROW[view].match(line)]
    return [int(row[index], 16) if row[index].startswith("0x") else float(row[index]) for row in rows]


ROW = {"sizes": re.compile(r" +[0-9]+ "), "arenas": re.compile("0x"), "maps": re.compile("0x")}
# view, column, its place in a row
SORTED = [("sizes", "size", 0), ("sizes", "pools", 1), ("sizes", "used", 3), ("sizes", "free", 5), ("arenas", "address", 0),
          ("arenas", "used", 1), ("arenas", "resident", 4), ("maps", "address", 0), ("maps", "size", 1),
          ("maps", "resident", 2)]


def test_order(tap):
    for view, option, index in SORTED:
        got = column(view, index, "--sort", option, "--top", "0")
        back = column(view, index, "--sort", option, "--top", "0", "-r")
        tap.ok(got in (sorted(got), sorted(got, reverse=True)) and len(got) > 1, f"{view} --sort {option} sorts", got)
        tap.ok(back == got[::-1], f"{view} --sort {option} -r turns it round", back)
    every = column("maps", 0, "--top", "0")
    tap.ok(len(every) == len(read_snapshot(Bench.plain)["mapping"]), "maps --top 0: all mappings")
    for view in ("sizes", "maps"):
        head = heapcensus(view, Bench.plain, "--top", "3", "-q").stdout
        whole = heapcensus(view, Bench.plain, "--top", "0", "-q").stdout
        tap.ok(len(head.splitlines()) + 3 < len(whole.splitlines()), f"{view} --top 3: shorter text", head)
        if view == "maps":
            tap.ok("more mappings" in head, "maps --top 3: says that there are more", head)


def test_order_json(tap):
    """The same options on the JSON form; what sums up all arenas stays whole."""
    def document(*words):
        return json.loads(heapcensus(*words, "--json").stdout)

    whole, cut = document("arenas", Bench.plain), document("arenas", Bench.plain, "--top", "1", "--sort", "address")
    tap.ok(len(cut["arenas"]) == 1 < len(whole["arenas"]), "arenas --json --top 1", len(cut["arenas"]))
    tap.ok(cut["arenas"][0]["address"] == max(a["address"] for a in whole["arenas"]), "arenas --json --sort address")
    tap.ok(cut["histogram"] == whole["histogram"] and cut["sparse"] == whole["sparse"], "the histogram counts all arenas")
    maps = document("maps", Bench.plain, "--top", "5", "--sort", "size")["mappings"]
    sizes = sorted((m["bytes"] for m in document("maps", Bench.plain)["mappings"]), reverse=True)
    tap.ok([m["bytes"] for m in maps] == sizes[:5], "maps --json --top 5 --sort size", maps)
    classes = document("sizes", Bench.plain, "--top", "2", "--sort", "size")["size_classes"]
    tap.ok([c["size"] for c in classes] == sorted((c["size"] for c in classes), reverse=True) and len(classes) == 2,
           "sizes --json --top 2 --sort size", classes)


def test_bytes(tap):
    done = heapcensus("summary", Bench.plain, "--bytes")
    memory = read_snapshot(Bench.plain).one("memory")
    digits = done.stdout.replace(",", "")
    tap.ok(str(memory["rss_bytes"]) in digits and str(memory["mapped_bytes"]) in digits, "--bytes: exact numbers",
           describe(done))
    done = heapcensus("summary", Bench.plain, "--color", "always")
    tap.ok("\x1b[" in done.stdout, "--color always colours", describe(done))
    done = heapcensus("summary", Bench.plain, "--color", "auto", env=environment(NO_COLOR="1"))
    tap.ok("\x1b[" not in done.stdout, "NO_COLOR")


def test_closed_pipe(tap):
    for words in (["maps", Bench.plain], ["summary", Bench.target.pid, "--json"],
                  ["snapshot", Bench.target.pid, "-o", "-"], ["doctor", Bench.target.pid]):
        command = " ".join(f"'{word}'" for word in [PROGRAM, *words])
        done = subprocess.run(["bash", "-c", f'{command} | head -c 10; echo " ${{PIPESTATUS[0]}}"'], capture_output=True,
                              text=True, env=environment(), check=False, timeout=60)
        status = int(done.stdout.split()[-1])
        tap.ok(status in (0, 6, 141), f"closed pipe: {words[0]}: no crash", f"{status} {done.stderr}")
        tap.ok("ERROR" not in done.stderr and len(done.stderr.splitlines()) <= 2, f"closed pipe: {words[0]}: no noise",
               done.stderr)
    tap.ok(survived(Bench.target.pid), "closed pipe: the target lives on")


def test_doctor(tap):
    done = heapcensus("doctor", Bench.target.pid)
    tap.ok(done.returncode == 0 and "FAIL" not in done.stdout and "CPython 3." in done.stdout, "doctor: all is well",
           describe(done))
    done = heapcensus("doctor", Bench.target.pid, "--json")
    document = json.loads(done.stdout)
    tap.ok(document["schema"] == 1 and document["view"] == "doctor" and document["failed"] == 0, "doctor --json",
           describe(done))
    tap.ok(all(set(c) == {"check", "ok", "finding", "remedy"} for c in document["checks"]), "doctor --json: its checks",
           document)
    tap.ok(survived(Bench.target.pid), "doctor: the target lives on")


if __name__ == "__main__":
    with start_python(BUSY) as Bench.target, tempfile.TemporaryDirectory(prefix="heapcensus-test.") as Bench.folder:
        Bench.plain = Bench.path("bench.jsonl")
        heapcensus("snapshot", Bench.target.pid, "-o", Bench.plain)
        main(test_views, test_same, test_lines, test_files, test_gzip, test_default_name, test_full_disk,
             test_full_filesystem, test_truncated, test_unreadable, test_bad_options, test_control_characters, test_order,
             test_order_json,
             test_bytes, test_closed_pipe, test_doctor)
