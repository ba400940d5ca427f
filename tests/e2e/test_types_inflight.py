"""Censuses of processes that are always in the middle of something (inflight_target.py): a collection, a finalizer or
callback of the collector, the resize of a dict, the growth of lists, allocations. Each must end with 0 and add up, and
the population that stays must be counted to the last object and buffer, whatever the collector keeps in its heads then."""
import array
import json
import os
import re
import shutil
import sys

from builds import BUILD, all_builds
from lib import Snapshot, Tap, describe, heapcensus, start, survived
from types_census import blocks_of, number, told_name

HERE = os.path.dirname(os.path.abspath(__file__))
SCALE = 1200
WANTED = ("system", "pyenv 3.8", "pyenv 3.11", "pyenv 3.12", "pyenv 3.13", "sid python3.14", "sid python3.15")
# How many censuses at random moments, whether a collection is under way (None: now and then, 0.5: in at least
# half of them), and of which generation as far as that is certain.
JOBS = {
    "idle": (1, False, None), "collect": (6, 0.5, 2), "collect_generation": (3, None, 1), "finalizer": (1, True, 2),
    "callback": (1, True, 2), "started": (1, True, None), "grow_dict": (3, None, None), "churn": (3, None, None),
    "append": (3, None, None),
}
# In one more of these each block is named: the containers of the builtin types that stay are told from the others so.
NAMED = ("collect", "finalizer", "grow_dict", "append")
CONTAINERS = {1: ("list", 1), 2: ("dict", 1), 3: ("set", 1)}
SUMS = (("objects", "count", "object_bytes", "bytes"), ("buffers", "buffers", "buffer_bytes", "buffer_bytes"),
        ("inferred", "inferred", "inferred_bytes", "inferred_bytes"), ("statics", "statics", "static_bytes", "static_bytes"))
KINDS = {"object": "objects", "buffer": "buffers", "inferred": "inferred", "dead": "dead", "runtime": "runtime",
         "unowned": "unowned"}  # of blocks: rows and totals


def start_target(build):
    """The target and the folder of its own, as seen from here."""
    name = "types.inflight"
    folder = os.path.join(build.root, "tmp", name) if build.root else os.path.join(BUILD, name)
    os.makedirs(folder, exist_ok=True)
    shutil.copy(os.path.join(HERE, "inflight_target.py"), folder)
    inside = "/tmp/" + name if build.root else folder
    command = ["chroot", build.root] if build.root else []
    command += build.command + ["-B", inside + "/inflight_target.py", inside, str(SCALE)]
    return start(command, env=build.env, cwd=folder), folder


def containers_of(folder):
    """Address -> (type, buffers) of lists, dicts and sets that stay."""
    with open(os.path.join(folder, "containers"), "rb") as file:
        values, found = array.array("q", file.read()), {}
    while values:
        kind, n = values[:2]
        found.update(dict.fromkeys(values[2:2 + n], CONTAINERS[kind]))
        values = values[2 + n:]
    return found


def wrong_sums(snap):
    """Totals, type records and the allocators' own figures say the same."""
    o, types, wrong = snap.one("objects"), snap["type"], []
    for total, count, total_bytes, bytes_ in SUMS:
        sums = [sum(t[count] for t in types), sum(t[bytes_] for t in types)]
        if sums != [o[total], o[total_bytes]]:
            wrong.append("%s: type records %s, totals %s" % (total, sums, [o[total], o[total_bytes]]))
    in_python = sum(o[k + "_bytes"] - o["malloc_" + k + "_bytes"] for k in KINDS)
    beyond = in_python - snap.one("pymalloc")["bytes_used"]
    # of a block that is not counted any more, but on no list yet, nothing tells which it is
    moving = any(n["what"] == "pymalloc.moving" for n in snap["note"])
    if beyond and not (moving and 0 < beyond <= 512):
        wrong.append("bytes of all kinds in pools %d, pymalloc's %d" % (in_python, snap.one("pymalloc")["bytes_used"]))
    memory = snap.one("memory")
    for key, whole in (("bytes", "mapped_bytes"), ("resident_bytes", "rss_bytes")):
        if sum(c[key] for c in memory["categories"]) != memory[whole]:
            wrong.append("categories do not add up to " + whole)
    return wrong


def wrong_population(snap, truth):
    """The classes whose objects or buffers are not all there."""
    found, wrong = {}, []
    for t in snap["type"]:
        have = found.setdefault(told_name(t["name"]), [0, 0, 0])
        for i, key in enumerate(("count", "buffers", "dead")):
            have[i] += t[key]
    for name, (count, buffers) in truth.items():
        if found.get(name) != [count, buffers, 0]:
            wrong.append("%s: [objects, buffers, dead] %s, not %s" % (name, found.get(name), [count, buffers, 0]))
    return wrong


def wrong_blocks(snap, containers):
    """Each container is an object of its type and has its buffers; rows of blocks and totals say the same."""
    blocks, owned, wrong, sums = {}, {}, [], {k: [0, 0] for k in (*KINDS, "static")}
    for block in blocks_of(snap["blocks"]):
        blocks[block.address] = block
        owned[block.owner] = owned.get(block.owner, 0) + 1
        sums[block.kind][0] += 1
        sums[block.kind][1] += block.size
    for address, (name, buffers) in containers.items():
        block = blocks.get(address - 16)
        if block is None or (block.kind, block.type) != ("object", name):
            wrong.append("0x%x (%s): %s" % (address, name, block and (block.kind, block.type)))
        elif owned.get(block.address, 0) != buffers:
            wrong.append("0x%x (%s): owns %d buffers" % (address, name, owned.get(block.address, 0)))
    totals = snap.one("objects")
    # the rows of static objects have sizes without the collector's heads
    return wrong + ["%s: rows %s" % (kind, have) for kind, have in sums.items()
                    if have[0] != totals[KINDS.get(kind, "statics")] or (kind in KINDS and have[1] != totals[kind + "_bytes"])]


def wrong_notes(snap, generation):
    """What is told of a collection: in the record, in a note, and of which generation if that is said at all."""
    gc = snap.one("gc")
    notes = [n["why"] for n in snap["note"] if n["what"] == "gc.collecting"]
    if bool(notes) != gc["collecting"]:
        return ["gc %s, notes %s" % (gc, notes)]
    told = re.search(r"generation (\d)", notes[0]) if notes else None
    if told and generation is not None and int(told.group(1)) != generation:
        return ["generation %d: %s" % (generation, notes[0])]
    return []


class Case:
    """One target: its process, what it says of itself and where its containers are."""

    def __init__(self, tap, name, target, folder):
        self.tap, self.name, self.target = tap, name, target
        self.tracked, truth = target.ready.split(" ", 1)
        self.truth, self.containers = json.loads(truth), containers_of(folder)

    def census(self, label, generation, *options):
        """A snapshot and what is wrong with it; None if there is none."""
        done = heapcensus("snapshot", self.target.pid, "-o", "-", "--max-pause", 30000, *options)
        if done.returncode != 0:
            self.tap.ok(False, label, describe(done) + "\n" + "\n".join(
                line for line in done.stdout.splitlines() if line.startswith('{"record":"note"')))
            return None, []
        snap = Snapshot(done.stdout, done)
        wrong = wrong_sums(snap) + wrong_population(snap, self.truth) + wrong_notes(snap, generation)
        if "--blocks" in options:
            wrong += wrong_blocks(snap, self.containers)
        return snap, wrong

    def job(self, job, censuses, collecting, generation):
        self.target.send(job)
        self.target.wait_ready(job)
        under_way, faults, told, taken = 0, [], 0, 0
        for i, options in enumerate([[]] * censuses + [["--blocks"]] * (job in NAMED)):
            snap, wrong = self.census("%s, %s" % (self.name, job), generation, *options)
            if snap is None:
                return
            taken += 1
            under_way += snap.one("gc")["collecting"]
            told += any("generation" in n["why"] for n in snap["note"] if n["what"] == "gc.collecting")
            faults += ["census %d: %s" % (i, w) for w in wrong[:20]]
        self.tap.ok(not faults, "%s, %s: %d censuses (%d in a collection, of %d the generation is told)"
                    % (self.name, job, taken, under_way, told), "\n".join(faults))
        if collecting is not None:
            least = {True: taken, False: 0}.get(collecting, taken * collecting)
            self.tap.ok(under_way >= least and (collecting or not under_way),
                        "%s, %s: whether a collection is under way" % (self.name, job), under_way)

    def window(self):
        self.target.send("collect")
        self.target.wait_ready("collect")
        snap, wrong = self.census("%s, collect, window" % self.name, 2, "--read", "window")
        if snap is not None:
            self.tap.ok(not wrong, "%s, collect, window" % self.name, "\n".join(wrong))

    def run(self):
        self.tap.ok(int(self.tracked) > 280000, "%s: %s objects are tracked" % (self.name, self.tracked))
        for job, (censuses, collecting, generation) in JOBS.items():
            self.job(job, censuses, collecting, generation)
        self.window()
        self.target.send("idle")
        self.target.wait_ready("idle")
        self.tap.ok(survived(self.target.pid), "%s: it runs on" % self.name)


def check_build(tap, build):
    target, folder = start_target(build)
    with target:
        Case(tap, build.name, target.wait_ready(), folder).run()


def main():
    tap, words = Tap(), sys.argv[1:]
    for build in all_builds(tap.skip):
        if build.name.startswith(WANTED) and not build.name.endswith("-dbg") and (not words or any(w in build.name for w in words)):
            try:
                check_build(tap, build)
            except (RuntimeError, OSError, KeyError, ValueError) as error:
                tap.ok(False, build.name, "%s: %s" % (type(error).__name__, error))
    return tap.done()


sys.exit(main())
