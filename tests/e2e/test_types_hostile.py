"""Targets whose types and objects are damaged: the census must not crash or hang, must end with 0 or 6, must not call a
thing by a name that is not its own, and still counts the bystanders exactly. And own-GIL subinterpreters: the types of
each are found, and told apart."""
import json
import re

from lib import Snapshot, heapcensus, main, start_python, survived
from lib_b import pyenv_pythons, root_pythons
from types_census import blocks_of

BYSTANDERS, VICTIMS = 300, 200
TRUE_NAMES = ["__main__.Victim", "Victim"]  # the second where only tp_name is left

PRELUDE = """
import array, collections, ctypes, gc, json, sys, time
gc.disable()
def poke(address, *words):
    for i, word in enumerate(words):
        ctypes.c_uint64.from_address(address + 8 * i).value = word %% (1 << 64)
def peek(address):
    return ctypes.c_uint64.from_address(address).value
def text(data):
    keep.append(ctypes.create_string_buffer(data))
    return ctypes.addressof(keep[-1])
class Bystander:
    __slots__ = ('one',)
class Victim:
    __slots__ = ('one', 'two')
keep = [Bystander() for _ in range(%d)]
victims = [Victim() for _ in range(%d)]
kind, NOWHERE = id(Victim), 0xdead00000
alien = []
""" % (BYSTANDERS, VICTIMS)

EPILOGUE = """
print('READY', json.dumps([id(v) for v in victims] + alien), flush=True)
while True:
    time.sleep(1000)
"""

# what is damaged: how; whether the victims may still be called by their name
CASES = {
    "tp_name nowhere": ("poke(kind + 24, NOWHERE)", True),
    "tp_name of control characters": ("poke(kind + 24, text(b'\\x1b]0;x\\x07\\n\\xff\\xfe'))", True),
    "tp_name without an end": ("poke(kind + 24, text(b'A' * (1 << 21)))", True),
    "tp_name empty": ("poke(kind + 24, text(b''))", True),
    "names of a type that are no strings": ("""
for at in range(kind, kind + 1000, 8):
    if peek(at) in (id(Victim.__qualname__), id(Victim.__name__)):
        poke(at, id(keep))
""", True),
    "names of a type nowhere": ("""
names = (id(Victim.__qualname__), id(Victim.__name__))
for at in range(kind, kind + 1000, 8):
    if peek(at) in names:
        poke(at, NOWHERE)
""", True),
    "a dict of a type that is none": ("poke(kind + 264, id(keep))", True),
    "a type that is its own metatype and base": ("poke(kind + 8, kind); poke(kind + 256, kind)", True),
    "two types that are each other's metatype": ("""
class Other:
    __slots__ = ()
poke(kind + 8, id(Other)); poke(id(Other) + 8, kind); keep.append(Other)
""", True),
    "memory freed under a type": ("poke(kind, *[0xdddddddddddddddd] * 50)", False),
    "a type of zeros": ("poke(kind, *[0] * 50)", False),
    "a type that is not ready": ("poke(kind + 168, peek(kind + 168) & ~(1 << 12))", True),
    "a size of a type that is absurd": ("poke(kind + 32, 1 << 62)", False),
    "a size of a type below none": ("poke(kind + 32, -64)", False),
    "an item size that is absurd": ("poke(kind + 40, 1 << 61)", True),
    "a dictoffset that is absurd": ("poke(kind + 288, -(1 << 62))", True),
    "odd reference counts": ("""
odd = [0, -1, 1 << 31, (1 << 31) - 1, 1 << 32, 1 << 62, 1 << 63, 0xffffffff, 0xc0000000, 0x5000000000000, 12345678901]
for n, v in enumerate(victims):
    poke(id(v), odd[n % len(odd)])
""", True),
    "types of objects that are none": ("""
bad = [0, 8, NOWHERE, (1 << 64) - 8, kind + 1, kind + 8, kind + 24, id(keep), id(''), id(1 << 70), 0x7fffffffffff, 1 << 63]
for n, v in enumerate(victims):
    poke(id(v) + 8, bad[n % len(bad)])
""", False),
    "links of the collector that lead nowhere": ("""
for n, v in enumerate(victims[::7]):
    poke(id(v) - 16, [NOWHERE, 8, (1 << 64) - 8, id(v) - 16, 3][n % 5], [NOWHERE, 0, id(v) - 16][n % 3])
""", True),
    "sizes and pointers of containers": ("""
made = [[1, 2, 3], {1: 2}, {n: n for n in range(99)}, set(range(99)), (1, 2, 3), bytearray(99), array.array('q', [1, 2]),
        collections.deque(range(99)), collections.OrderedDict({1: 2}), int('9' * 90), chr(97) * 90, chr(8364) * 9, bytes(range(99)),
        lambda: 1, iter([1]), slice(3)]
for thing in made:
    size = type(thing).__basicsize__
    for at, word in ((16, 1 << 62), (24, NOWHERE), (32, 1 << 61), (40, -8), (48, (1 << 64) - 8)):
        if at + 8 <= size:
            poke(id(thing) + at, word)
keep.append(made)
""", True),
    "rings of deques and of ordered dicts": ("""
deque, ordered = collections.deque(range(999)), collections.OrderedDict((n, n) for n in range(99))
block = peek(id(deque) + 24)
poke(block + 520, block)
node = peek(id(ordered) + 48)
poke(node + 16, node, node)
keep.extend((deque, ordered))
""", True),
    "buffers that look like objects": ("""
shapes = [[1, id(list), 3, NOWHERE, 4], [NOWHERE, NOWHERE, 1, id(dict), 3, 7, NOWHERE, NOWHERE], [1, kind, 0, 0],
          [0x4141414141414141, 0x4141414141414141, 1, kind, 0, 0], [1, id(Bystander), 0], [5, id(str), 9, 9, 0xe4, 0]]
made = []
for n in range(120):
    shape = shapes[n % len(shapes)]
    made.append(array.array('Q', shape))
    alien.append(made[-1].buffer_info()[0])
keep.append(made)
""", True),
}


def pythons():
    yield "system", "/usr/bin/python3"
    for version, exe in pyenv_pythons("3.8", "3.12", "3.13"):
        yield version, exe


def misnamed(snap, addresses, may):
    """Victims and aliens that the census takes for something that they are not."""
    blocks = {b.address: b for b in blocks_of(snap["blocks"])}
    wrong = []
    for number, address in enumerate(addresses):
        allowed = TRUE_NAMES if number < VICTIMS and may else []
        for block in (blocks.get(address), blocks.get(address - 16), blocks.get(address - 32)):
            if block is not None and block.address + block.size > address and block.kind == "object" and block.type not in allowed:
                wrong.append("0x%x: %s" % (address, block.type))
    return wrong


def plain(text):
    """Whether text has nothing that a terminal would obey."""
    return not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\udc80-\udcff]", text)


def check_case(tap, name, exe, damage, may, way):
    with start_python(PRELUDE + damage + EPILOGUE, exe=exe) as target:
        addresses = json.loads(target.ready)
        done = heapcensus("snapshot", target.pid, "--blocks", "-o", "-", *way, timeout=20)
        good = tap.ok(done.returncode in (0, 6) and done.stdout, f"{name}: ends with 0 or 6", done.stderr)
        if good:
            snap = Snapshot(done.stdout)
            wrong = misnamed(snap, addresses, may)
            tap.ok(not wrong, f"{name}: nothing called what it is not", "%d: %s" % (len(wrong), wrong[:5]))
            counts = [t["count"] for t in snap["type"] if t["name"] == "__main__.Bystander"]
            tap.ok(counts == [BYSTANDERS], f"{name}: {BYSTANDERS} bystanders", counts)
        done = heapcensus("types", target.pid, timeout=20)
        tap.ok(done.returncode in (0, 6) and plain(done.stdout), f"{name}: types prints plain text",
               repr(done.stdout[:500]) + done.stderr)
        tap.ok(survived(target.pid), f"{name}: the target is as it was")


def test_damage(tap):
    for number, (label, (damage, may)) in enumerate(CASES.items()):
        for version, exe in pythons():
            way = (("--read", "window"), ("--no-pause",), (), ())[number % 4]
            check_case(tap, f"{version}, {label}", exe, damage, may, way)


SUBINTERPRETERS = """
import os, sys, threading, time
try:
    import _interpreters as api
    new, run = (lambda: api.create('isolated')), (lambda i, code: api.exec(i, code))
except ImportError:
    import _xxsubinterpreters as api
    new, run = (lambda: api.create(isolated=True)), api.run_string
body = '''
import os, time
class Shared:
    pass
Own%d = type('Own%d', (), {})
keep = [Own%d() for _ in range(1000 + %d)] + [Shared() for _ in range(10 + %d)] + [{1: str(n)} for n in range(100)]
if %d:
    os.write(%d, b'x')
    while True:
        time.sleep(1000)
'''
out, into = os.pipe()
for n in (1, 2):
    i = new()
    threading.Thread(target=run, args=(i, body % (n, n, n, n, n, n, into)), daemon=True).start()
    os.read(out, 1)
exec(body % (0, 0, 0, 0, 0, 0, into))
time.sleep(0.3)
print('READY', flush=True)
while True:
    time.sleep(1000)
"""


def subinterpreted():
    for version, exe in pyenv_pythons("3.12", "3.13"):
        yield f"pyenv {version}", exe, []
    for suite, minor, folder in root_pythons("3.13", "3.14", "3.15"):
        yield f"{suite} {minor}", f"/usr/bin/python{minor}", ["chroot", folder]


def test_subinterpreters(tap):
    found = 0
    for name, exe, prefix in subinterpreted():
        with start_python(SUBINTERPRETERS, exe=exe, prefix=prefix) as target:
            done = heapcensus("snapshot", target.pid, "-o", "-")
            snap = Snapshot(done.stdout)
            counts = sorted((t["name"], t["count"]) for t in snap["type"] if t["name"].startswith("__main__."))
            want = [(f"__main__.Own{n}", 1000 + n) for n in range(3)] + [("__main__.Shared", 10 + n) for n in range(3)]
            tap.ok(counts == want, f"{name}: the types of three interpreters", counts)
            share = snap.one("objects")
            lost = share["unowned_bytes"] - share["malloc_unowned_bytes"]
            used = snap.one("pymalloc")["bytes_used"]
            tap.ok(lost * 100 <= used, f"{name}: {100 * lost / used:.2f} % of used bytes unattributed", share)
        found += 1
    if not found:
        tap.skip("subinterpreters", "no interpreter that has them on this machine")


main(test_damage, test_subinterpreters)
