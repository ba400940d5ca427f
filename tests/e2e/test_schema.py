"""docs/*.schema.json against what heapcensus writes, both ways: every record of snapshots and every view's document is
valid with no member that the schema does not know; every member that the schema knows is written; and a document with a
member less or more does not pass.

The published schemas allow members of later versions and require those of the first; here each object is closed and all
of its members are required (`strict`).
"""
import copy
import json
import os
import tempfile

from lib import ROOT, describe, heapcensus, main, read_snapshot, start_python, survived

try:
    import jsonschema
except ImportError:
    jsonschema = None

NO_SCHEMA = "python3-jsonschema is not installed"
TRACED = """
import sys, time
class Session:
    def __init__(self):
        self.data = {"name": str(id(self))}
def fill(n):
    return [Session() for i in range(n)]
kept = fill(2000)
print('READY', flush=True)
sys.stdin.readline()
more = fill(3000)
sparse = [[i] for i in range(60000)][::1000]
print('MORE', flush=True)
while True: time.sleep(0.02)
"""
PLAIN = "import time\nkept = [[i] for i in range(20000)]\nprint('READY', flush=True)\nwhile True: time.sleep(0.02)\n"


def optional(path, name):
    """Members that a document of this version may lack; docs/CONTRACT.md says when."""
    if path == "blocks":
        return name == "site"
    if path == "doctor":
        return name in ("pid", "core")
    if path.startswith("diff"):
        return name in ("also", "blocks", "traceback", "module") or \
            (name in ("new", "gone", "surviving") and path.split(".")[-1] in ("rows", "total"))
    return False


class Bench:
    """A traced and an untraced target; snapshots of them in a folder."""
    folder = ""
    traced = plain = None

    @classmethod
    def path(cls, name):
        return os.path.join(cls.folder, name)


# ---- schemas ----

def resolve(node, root):
    return root["$defs"][node["$ref"].rsplit("/", 1)[1]] if "$ref" in node else node


def strict(node, root, path):
    """A schema whose objects have all members that it names, and no other; references are written out. The published
    ones require those of version 1 only, for files of that version."""
    node = resolve(node, root)
    if "allOf" in node:
        parts = [resolve(part, root) for part in node["allOf"]]
        node = {"type": "object", "properties": {k: v for p in parts for k, v in p["properties"].items()}}
    made = dict(node)
    if "properties" in node:
        made["properties"] = {name: strict(member, root, f"{path}.{name}") for name, member in node["properties"].items()}
        made["required"] = [name for name in node["properties"] if not optional(path, name)]
        made["additionalProperties"] = False
    for key in ("oneOf", "prefixItems"):
        if key in node:
            made[key] = [strict(part, root, path) for part in node[key]]
    if isinstance(node.get("items"), dict):
        made["items"] = strict(node["items"], root, path)
    return made


def schemas(name, member):
    """{record or view: its strict schema} of a file of docs/, by the constant that `member` must be."""
    with open(os.path.join(ROOT, "docs", name)) as f:
        root = json.load(f)
    jsonschema.Draft202012Validator.check_schema(root)
    found = {}
    for branch in root["oneOf"]:
        first = branch["allOf"][0] if "allOf" in branch else branch
        constant = first["properties"][member].get("const")
        if constant:
            found[constant] = strict(branch, root, constant)
    return found


def complaints(schema, documents, most=5):
    validator, found = jsonschema.Draft202012Validator(schema), []
    for document in documents:
        for error in validator.iter_errors(document):
            found.append(f"{error.json_path}: {error.message[-300:]}")
            if len(found) == most:
                return found
    return found


def objects(schema, path):
    """All objects of a strict schema with their paths, depth first."""
    if "properties" in schema:
        yield path, schema
        for name, member in schema["properties"].items():
            yield from objects(member, f"{path}.{name}")
    for part in schema.get("oneOf", []):
        yield from objects(part, path)
    if isinstance(schema.get("items"), dict):
        yield from objects(schema["items"], path)


def members(value, path):
    """All (path of the object, member) of a document, lists left out of the paths."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield path, name
            yield from members(member, f"{path}.{name}")
    elif isinstance(value, list):
        for part in value:
            yield from members(part, path)


def check(tap, kinds, documents, what):
    """`documents`: {kind: [document, ...]}."""
    for kind, found in documents.items():
        if not tap.ok(kind in kinds, f"{what}: \"{kind}\" has a schema", sorted(kinds)):
            continue
        if kind == "blocks":
            found = [found[0], found[-1]]  # each has thousands of numbers
        wrong = complaints(kinds[kind], found)
        tap.ok(not wrong, f"{what}: {len(found)} of \"{kind}\" valid", "\n".join(wrong))


def check_written(tap, kinds, documents, what):
    """No member in the schema that nothing writes."""
    for kind, found in documents.items():
        known = {(path, name) for path, node in objects(kinds[kind], kind) for name in node["properties"]}
        # Rows by identity have no frames, though they share their schema with those that have.
        known = {(path, name) for path, name in known if "diff.also.rows.traceback" not in f"{path}.{name}"}
        written = {pair for document in found for pair in members(document, kind)}
        tap.ok(known == written, f"{what}: every member of \"{kind}\" is written", sorted(known ^ written)[:20])


def check_bites(tap, kinds, documents, what):
    """A member more and a member less are complained about, at the top and in every object below it."""
    missed = []
    for kind, found in documents.items():
        whole = shortened(found[-1])
        for place, path in places(whole, kind):
            other = copy.deepcopy(whole)
            here = at(other, place)
            here["novel"] = 1
            if not complaints(kinds[kind], [other], 1):
                missed.append(f"{kind} with novel at {place} passes")
            del here["novel"]
            for name in [name for name in here if not optional(path, name)]:
                kept = here.pop(name)
                if not complaints(kinds[kind], [other], 1):
                    missed.append(f"{kind} without {name} at {place} passes")
                here[name] = kept
    tap.ok(not missed, f"{what}: a member less or more is seen", "\n".join(missed))


def shortened(value):
    """The same with long lists cut: what is validated hundreds of times."""
    if isinstance(value, dict):
        return {name: shortened(member) for name, member in value.items()}
    if isinstance(value, list):
        return [shortened(part) for part in (value[:3] if len(value) > 20 else value)]
    return value


def places(value, path, place=()):
    """Where objects are in a document, one of each list: (steps, path)."""
    if isinstance(value, dict):
        yield place, path
        for name, member in value.items():
            yield from places(member, f"{path}.{name}", (*place, name))
    elif isinstance(value, list) and value:
        yield from places(value[0], path, (*place, 0))


def at(value, place):
    for step in place:
        value = value[step]
    return value


# ---- what is written ----

def take(tap, name, *words):
    path = Bench.path(name)
    done = heapcensus("snapshot", *words, "-o", path)
    tap.ok(done.returncode in (0, 6) and os.path.exists(path), f"snapshot {name}", describe(done))
    return path


def snapshots(tap):
    """Files of every sort, and the targets that they are of."""
    Bench.traced = start_python(TRACED, args=["-X", "tracemalloc=5"], stdin=-1)
    Bench.plain = start_python(PLAIN)
    pid = Bench.traced.pid
    with start_python() as idle:
        take(tap, "idle.jsonl", idle.pid)
    take(tap, "plain.jsonl", Bench.plain.pid, "--blocks")
    take(tap, "first.jsonl", pid, "--blocks")
    Bench.traced.send("")
    Bench.traced.wait_ready("MORE")
    take(tap, "second.jsonl", pid, "--blocks")
    take(tap, "third.jsonl", pid)
    take(tap, "moving.jsonl", pid, "--no-pause")
    take(tap, "untyped.jsonl", pid, "--no-types")
    with open(Bench.path("third.jsonl"), "rb") as f:
        third = f.read()
    with open(Bench.path("cut.jsonl"), "wb") as f:
        f.write(third[:-30])
    done = heapcensus("core", pid, "-o", Bench.path("core"))
    tap.ok(done.returncode in (0, 6), "a core", describe(done))
    take(tap, "core.jsonl", Bench.path("core"))
    tap.ok(survived(pid) and survived(Bench.plain.pid), "the targets live on")


def test_snapshots(tap):
    snapshots(tap)
    kinds, all_records = schemas("snapshot.schema.json", "record"), {}
    for name in ("plain", "first", "second", "third", "moving", "untyped", "core"):
        shot = read_snapshot(Bench.path(name + ".jsonl"))
        check(tap, kinds, shot.records, name)
        for kind, found in shot.records.items():
            all_records.setdefault(kind, []).extend(found)
    all_records.setdefault("note", [{"record": "note", "address": None, "what": "a.b", "why": "c", "bytes": 0}])
    tap.ok(set(all_records) == set(kinds), "every record has been seen", sorted(set(all_records) ^ set(kinds)))
    tap.ok("site" not in read_snapshot(Bench.path("plain.jsonl"))["blocks"][0], "no sites, no column of them")
    check_written(tap, kinds, all_records, "snapshots")
    check_bites(tap, kinds, all_records, "snapshots")


def view(tap, *words, codes=(0,)):
    done = heapcensus(*words, "--json")
    name = " ".join(os.path.basename(str(word)) for word in words)
    tap.ok(done.returncode in codes and done.stdout.count("\n") == 1, f"{name} --json", describe(done))
    return json.loads(done.stdout)


def documents(tap):
    first, second, third = (Bench.path(name + ".jsonl") for name in ("first", "second", "third"))
    found = {}
    for name in ("summary", "types", "sizes", "arenas", "malloc", "maps", "sites"):
        found[name] = [view(tap, name, source, *more) for source in (second, Bench.path("core.jsonl"), Bench.traced.pid)
                       for more in ([], ["--top", "2"])]
        found[name].append(view(tap, name, Bench.path("cut.jsonl"), "--partial", codes=(6,)))
    found["summary"].append(view(tap, "summary", Bench.path("plain.jsonl")))
    found["sites"] += [view(tap, "sites", second, "--by", by) for by in ("file", "line", "traceback")]
    found["sites"] += [view(tap, "sites", second, "--by", "file", "--cumulative", "--exclude", "*")]
    found["doctor"] = [view(tap, "doctor", Bench.traced.pid), view(tap, "doctor", Bench.path("core"))]
    found["diff"] = [view(tap, "diff", first, second), view(tap, "diff", first, third)]
    for by in ("type", "module", "size", "arena", "category", "file", "line", "traceback"):
        found["diff"].append(view(tap, "diff", first, second, "--by", by))
    found["diff"].append(view(tap, "diff", Bench.path("idle.jsonl"), Bench.path("plain.jsonl")))
    found["diff"].append(view(tap, "diff", *[Bench.path("core.jsonl")] * 2))
    found["diff"].append(view(tap, "diff", first, second, "--fail-if", "total>+1", "--fail-if", "type:Session>+1", codes=(1,)))
    found["diff"] += [view(tap, "diff", first, second, "--blocks", *more) for more in ([], ["--by", "line"])]
    found["trend"] = [view(tap, "trend", first, second, third, *more) for more in ([], ["--by", "line"])]
    return found


def test_views(tap):
    kinds, found = schemas("views.schema.json", "view"), documents(tap)
    check(tap, kinds, found, "--json")
    tap.ok(set(found) == set(kinds), "every view has been seen", sorted(set(found) ^ set(kinds)))
    check_written(tap, kinds, found, "--json")
    check_bites(tap, kinds, found, "--json")
    tracing = found["summary"][0]["tracing"]
    tap.ok(tracing["source"] == "tracemalloc" and tracing["frames_limit"] == 5 and tracing["traces"] > 1000,
           "summary: what the tables say", tracing)
    tap.ok(found["summary"][-1]["tracing"] is None, "summary: no tables, no tracing", found["summary"][-1]["tracing"])
    by_file, by_line = found["sites"][-4], found["sites"][-3]
    tap.ok(all(f["line"] == 0 and len(s["traceback"]) == 1 for s in by_file["sites"] for f in s["traceback"]),
           "sites: by file, one frame without its line")
    tap.ok(sum(s["bytes"] for s in by_line["sites"]) == by_line["total"]["bytes"] > 0, "sites: the rows add up")


def test_members(tap):
    """The published schemas take what later versions may add."""
    for name, member in (("snapshot.schema.json", "record"), ("views.schema.json", "view")):
        with open(os.path.join(ROOT, "docs", name)) as f:
            root = json.load(f)
        document = view(tap, "sizes", Bench.path("second.jsonl"))
        if member == "record":
            document = read_snapshot(Bench.path("second.jsonl")).one("tracing")
        tap.ok(not complaints(root, [{**document, "novel": 1}]), f"{name}: takes a novel member")
        del document["source"]
        tap.ok(complaints(root, [document]), f"{name}: needs the old ones")


def with_targets(tap):
    if not jsonschema:
        return tap.skip("everything that is written is valid", NO_SCHEMA)
    with tempfile.TemporaryDirectory(prefix="heapcensus-test.") as Bench.folder:
        for test in (test_snapshots, test_views, test_members):
            test(tap)
    for target in (Bench.traced, Bench.plain):
        target.kill()
    return None


if __name__ == "__main__":
    main(with_targets)
