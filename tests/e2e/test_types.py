"""The types of all objects and what they own, on every interpreter there is, against the interpreter's own truth
(types_target.py): each object that it can reach is in the census, at its address and with its type; what the census
has beyond that are objects by their own words which the collector does not track; counts and sizes by type, buffers by
owner, names, the collector's figures; and the share of bytes in used blocks that is nobody's."""
import json
import subprocess
import sys
import time

from builds import TOOL, all_builds
from types_census import Block, Census
from types_checks import (check_extra, check_gc, check_objects, check_owners, check_population, check_records,
                          check_runtime, check_statics, unattributed)
from types_run import TypesTarget, census_of, take

# Builds on which the other allocators are tried, too.
ALLOCATORS = {"pyenv 3.8": ("debug", "malloc"), "pyenv 3.11": ("debug", "malloc"),
              "pyenv 3.13": ("debug", "malloc", "mimalloc"), "sid python3.15": ("debug", "mimalloc")}
WAYS = ("pyenv 3.9", "pyenv 3.12", "sid python3.14")  # builds that are read in windows and without a pause, too
count = 0


def ok(good, name, detail=""):
    global count
    count += 1
    print("%s %d - %s" % ("ok" if good else "not ok", count, name))
    if not good:
        print("\n".join("# " + line for line in str(detail).splitlines()), flush=True)


def skip(name, reason):
    global count
    count += 1
    print("ok %d - %s # SKIP %s" % (count, name, reason), flush=True)


def say(text):
    print("# " + text, flush=True)


def compare(target, census):
    """What is wrong, and what the census has beyond the truth: type's id -> objects."""
    truth, memory = target.truth, target.memory
    wrong = check_objects(truth, census, memory)
    more, extra = check_extra(truth, census, memory)
    wrong += more + check_records(truth, census, extra) + check_population(truth, census, memory)
    wrong += check_statics(truth, census, memory)
    return wrong + check_owners(census, memory) + check_runtime(census, memory) + check_gc(truth, census), extra


def check_census(name, target, *options):
    started = time.monotonic()
    census = census_of(target.pid, *options)
    wrong, extra = compare(target, census)
    ok(not wrong, "%s: %d objects and what they own" % (name, len(target.truth.objects)), "\n".join(wrong))
    hidden = {target.truth.names[k]: len(n) for k, n in extra.items() if target.truth.types[k]["flags"] & 1 << 14}
    say("%s: untracked objects of the collector's types that nothing reaches: %s" % (name, hidden or "none"))
    lost, most = unattributed(census), 0.02 if target.minor == 8 else 0.01
    ok(lost <= most, "%s: %.2f %% of used bytes unattributed" % (name, 100 * lost), "more than %d %%" % (100 * most))
    say("%s: %.1f s, unowned in malloc %d bytes" % (name, time.monotonic() - started, census.objects["malloc_unowned_bytes"]))


def check_setting(build, setting, number):
    name = "%s, %s" % (build.name, setting or "default")
    ways = [()]
    if not setting and build.name.startswith(WAYS):
        ways += [("--read", "window"), ("--no-pause",)]
    try:
        with TypesTarget(build, setting, number % 2 == 0) as target:
            for way in ways:
                check_census(name + "".join(", " + w.lstrip("-") for w in way[-1:]), target, *way)
            if number == 0:
                check_view(target)
                check_checks(target)
            ok(target.process.poll() is None, name + ": it runs on")
    except (RuntimeError, OSError, KeyError, ValueError, subprocess.SubprocessError) as error:
        ok(False, name, "%s: %s" % (type(error).__name__, error))


def check_view(target):
    """`types --json` has the type records of the snapshot, and `--top` of them."""
    records = {t["address"]: t for t in take(target.pid)["type"]}
    for top in (7, 0):
        run = subprocess.run([TOOL, "types", str(target.pid), "--json", "--top", str(top)], capture_output=True, timeout=60)
        found = [{k: v for k, v in t.items() if k != "record"} for t in json.loads(run.stdout)["types"]]
        same = all(t == {k: v for k, v in records[t["address"]].items() if k != "record"} for t in found)
        ok(run.returncode == 0 and same and len(found) == (top or len(records)), "types --json --top %d" % top, run.stdout[:300])


def check_checks(target):
    """The comparisons notice what they are for."""
    records, truth, memory = take(target.pid), target.truth, target.memory
    for what, damage, check in (
            ("an object missing", without_object, lambda c: check_objects(truth, c, memory)),
            ("a wrong type", wrong_type, lambda c: check_objects(truth, c, memory)),
            ("a wrong owner", wrong_owner, lambda c: check_owners(c, memory)),
            ("another's buffer", wrong_owner, lambda c: check_population(truth, c, memory)),
            ("a missing buffer", without_buffer, lambda c: check_population(truth, c, memory)),
            ("a wrong count", wrong_count, lambda c: check_records(truth, c, check_extra(truth, c, memory)[1])),
            ("a wrong size", wrong_size, lambda c: check_records(truth, c, check_extra(truth, c, memory)[1])),
            ("an object too many", buffer_as_object, lambda c: check_extra(truth, c, memory)[0]),
            ("a block of nobody as the interpreter's", buffer_as_runtime, lambda c: check_runtime(c, memory)),
            ("a static object missing", without_static, lambda c: check_objects(truth, c, memory)),
            ("a static object of another type", wrong_static, lambda c: check_objects(truth, c, memory)),
            ("a static object too many", static_within, lambda c: check_statics(truth, c, memory)),
            ("a number and a type as an object", static_pair, lambda c: check_statics(truth, c, memory)),
            ("a wrong sum of static objects", wrong_static_sum, lambda c: check_statics(truth, c, memory)),
            ("a wrong threshold", wrong_gc, lambda c: check_gc(truth, c))):
        census = Census(records)
        before = check(census)
        damage(census, truth)
        ok(not before and check(census), "noticed: " + what, "before: %s" % before[:5])


def own_block(census, truth, name, buffers):
    """The block of an object of the population, of that type and with that many buffers."""
    for address, want in truth.population.items():
        if want == buffers and truth.names[truth.objects[address][0]] == name:
            return census.find(address)
    raise KeyError(name)


def own_record(census, truth, name):
    return next(t for t in census.types.values() if t["name"] == name and t["address"])


def without_object(census, truth):
    own_block(census, truth, "list", 1).kind = "unowned"


def wrong_type(census, truth):
    own_block(census, truth, "list", 1).type = "dict"


def wrong_owner(census, truth):
    block = own_block(census, truth, "list", 1)
    other = own_block(census, truth, "dict", 0)
    census.owned[other.address] = census.owned.pop(block.address)


def without_buffer(census, truth):
    del census.owned[own_block(census, truth, "set", 1).address]


def wrong_count(census, truth):
    own_record(census, truth, "types_population.Slots")["count"] += 1


def wrong_size(census, truth):
    own_record(census, truth, "types_population.SlotsWeak")["size_bytes"] -= 8


def buffer_as_object(census, truth):
    own = own_block(census, truth, "list", 1)
    buffer = census.owned[own.address][0]
    buffer.kind, buffer.type = "object", "list"


def buffer_as_runtime(census, truth):
    own = own_block(census, truth, "list", 1)
    census.owned[own.address][0].kind = "runtime"


def reached_static(census, truth):
    return next(a for a in census.statics if a in truth.objects)


def without_static(census, truth):
    del census.statics[reached_static(census, truth)]


def wrong_static(census, truth):
    census.statics[reached_static(census, truth)].type = "dict"


def static_within(census, truth):
    address = next(a for a, b in census.statics.items() if b.type == "type")
    census.statics[address + 8] = Block(address + 8, 16, "static", "object", 0)


def static_pair(census, truth):
    """A word before a static type's own header: what is there is no count, or no type."""
    address = next(a for a, b in census.statics.items() if b.type == "type")
    census.statics[address + 16] = Block(address + 16, 16, "static", "NoneType", 0)


def wrong_static_sum(census, truth):
    own_record(census, truth, "type")["static_bytes"] += 8


def wrong_gc(census, truth):
    census.gc["threshold"][1] += 1


def main():
    wanted = sys.argv[1:]
    builds = [b for b in all_builds(skip) if not wanted or any(w in b.name for w in wanted)]
    number = 0
    for build in builds:
        others = next((v for k, v in ALLOCATORS.items() if build.name.startswith(k)), ())
        for setting in ("",) + others:
            check_setting(build, setting, number)
            number += 1
    print("1..%d" % count)


main()
