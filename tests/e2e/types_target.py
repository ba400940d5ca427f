"""The target of test_types.py: makes known objects, writes the truth about all it can reach and sleeps.

usage: types_target.py FOLDER [enabled|disabled]

Files in FOLDER (native 8-byte integers, but for the first): types (a line of JSON for each type: id, name, module,
basicsize, itemsize, flags, dictoffset, own), objects (their number, then of each id, id of the type, sys.getsizeof or -1,
1 if the collector tracks it), population (their number, then id and buffers, -1 for not judged), gc (enabled, frozen,
garbage, 3 thresholds, 3 counts).

The objects are those that the collector knows, the frozen ones and all that can be reached from them. The truth is told
twice: the first time finds out what telling needs; after the second nothing is made or freed but what the telling
itself had in its hands. Runs on Python 3.8 and newer."""
import array
import gc
import json
import os
import sys
import time

import types_population
from types_population import THINGS, WANTS

SPARE = 20000  # objects that there may be more of in the second round
CODE = type(compile("0", "", "eval"))
KEEP = []      # what lives from before the truth


def type_line(kind, own):
    get = type.__dict__
    names = [get["__module__"].__get__(kind), get["__qualname__"].__get__(kind)]
    return json.dumps({
        "id": id(kind), "module": names[0] if isinstance(names[0], str) else None, "name": names[1],
        "basicsize": kind.__basicsize__, "itemsize": kind.__itemsize__, "flags": kind.__flags__,
        "dictoffset": kind.__dictoffset__, "own": kind in own}) + "\n"


def sized(kind):
    """Whether sys.getsizeof() of its objects runs no Python code."""
    for base in kind.__mro__:
        if "__sizeof__" in base.__dict__:
            return type(base.__dict__["__sizeof__"]).__name__ == "method_descriptor"
    return False


def type_ids(objects):
    kinds = {id(type(o)): type(o) for o in objects}
    for o in objects:
        if isinstance(o, type):
            kinds[id(o)] = o
    return kinds


def everything():
    """A list of all objects that can be reached, those that the collector tracks first; their number."""
    found = gc.get_objects()
    found.extend(KEEP[0])
    found.append(KEEP[0])
    tracked = len(found)
    seen = set(map(id, found))
    done = 0
    while done < len(found):
        here = found[done]
        # code objects do not tell the collector what they hold
        others = (here.co_consts, here.co_names, here.co_name) if type(here) is CODE else gc.get_referents(here)
        for other in others:
            if id(other) not in seen:
                seen.add(id(other))
                found.append(other)
        done += 1
    return found, tracked


def describe(table, sizes):
    """Fill the table with every object: number, then 4 columns."""
    found, tracked = everything()
    at = 1
    for number, thing in enumerate(found):
        if number >= tracked and gc.is_tracked(thing):
            continue  # found by way of a referent, so made by this telling
        kind = id(type(thing))
        table[at] = id(thing)
        table[at + 1] = kind
        table[at + 2] = sys.getsizeof(thing) if kind in sizes else -1
        table[at + 3] = number < tracked
        at += 4
    table[0] = at // 4


def gc_facts(into):
    into[0], into[1], into[2] = gc.isenabled(), gc.get_freeze_count(), len(gc.garbage)
    into[3], into[4], into[5] = gc.get_threshold()
    into[6], into[7], into[8] = gc.get_count()


def population():
    table = array.array("q", [len(THINGS)])
    for thing, want in zip(THINGS, WANTS):
        table.extend((id(thing), want))
    return table


def main():
    folder, collecting = sys.argv[1], sys.argv[2] == "enabled"
    files = [os.open(os.path.join(folder, n), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644) for n in
             ("types", "objects", "population", "gc")]
    odd = types_population.populate()
    gc.collect()
    gc.set_threshold(100000000, 11, 12)
    if not collecting:
        gc.disable()
    gc.garbage.append(put_aside())
    os.write(files[2], population())
    gc.unfreeze()  # 3.12 starts with some
    KEEP.append(gc.get_objects())
    gc.freeze()
    own = [k for k in vars(types_population).values() if isinstance(k, type)] + odd
    found = everything()[0]
    kinds = type_ids(found)
    for line in [type_line(k, own) for k in kinds.values()]:
        os.write(files[0], line.encode())
    sizes = frozenset(k for k, v in kinds.items() if sized(v))
    table = array.array("q", bytes(8 * (4 * (len(found) + SPARE))))
    facts = array.array("q", bytes(8 * 9))
    later = [types_population.Plain(n) for n in range(100)]  # not frozen
    del found, kinds, own
    ready = [False]
    # To look an attribute up can free a block: the cache of methods holds the last reference to some names.
    seek, write, sleep = os.lseek, os.write, time.sleep

    def tell():
        describe(table, sizes)
        seek(files[1], 0, 0)
        write(files[1], table)
        gc_facts(facts)
        write(files[3], facts)
        if ready[0]:
            write(1, b"R")
            while True:  # no loop object, no return: nothing is freed after the truth was told
                sleep(3600)
        seek(files[3], 0, 0)

    tell()
    ready[0] = True
    tell()
    return later


def put_aside():
    ring = types_population.Plain(-1)
    ring.items.append(ring)
    return ring


main()
