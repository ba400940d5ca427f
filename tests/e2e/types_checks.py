"""The comparisons of test_types.py. Each returns a list of what is wrong, in words."""
import bisect
import collections

from types_census import GC_TYPE, INLINE_VALUES

# Where an object keeps the pointer to its buffer: the same in 3.8 to 3.15.
POINTERS = {"list": 24, "dict": 32, "array.array": 24, "bytearray": 32, "set": 40, "frozenset": 40,
            "collections.deque": 24, "collections.OrderedDict": 32, "collections.defaultdict": 32}
# Of these, getsizeof() is the object and its only buffer.
ONE_BUFFER = ("list", "dict", "array.array", "bytearray", "set", "frozenset")


def shorten(wrong, what):
    """At most five lines, and how many there were."""
    return wrong if len(wrong) <= 5 else wrong[:5] + ["... %d %s in all" % (len(wrong), what)]


def check_objects(truth, census, memory):
    """Every object that the interpreter knows is where it is, with its type."""
    wrong = []
    for address, (kind, _, _) in truth.objects.items():
        block, name = census.find(address), truth.names.get(kind)
        if name is None:
            wrong.append("0x%x: a type that came late" % address)
        elif block is None:
            static = census.statics.get(address)
            if static is None or static.type != name[:512] or not memory.is_static(address):
                wrong.append("0x%x (%s): in no block, and static is %s" % (address, name, static and static.type))
        elif address in census.statics:
            wrong.append("0x%x (%s): in a block, and static" % (address, name))
        elif (block.kind, block.type) != ("object", name[:512]):
            wrong.append("0x%x (%s): %s %s in a block of %d" % (address, name, block.kind, block.type, block.size))
        elif address - block.address != census.front(block, memory) + truth.front(kind):
            wrong.append("0x%x (%s): %d bytes into its block" % (address, name, address - block.address))
    return shorten(wrong, "objects")


def object_in(truth, census, memory, block):
    """Address and type of the object that a block of kind object must hold by its own words, or None."""
    start = block.address + census.front(block, memory)
    for front in (0, 16, 32):
        kind = memory.word(start + front + 8)
        if kind in truth.types and truth.front(kind) == front and truth.names[kind] == block.type:
            return start + front, kind
    return None


def check_extra(truth, census, memory):
    """What the census has beyond the truth must be objects by their own words, and none that the collector tracks. Also
    returns it: type's id -> blocks."""
    wrong, extra = [], collections.defaultdict(list)
    known = {census.find(a).address for a in truth.objects if census.find(a)}
    for block in census.blocks:
        if block.kind != "object" or block.address in known:
            continue
        found = object_in(truth, census, memory, block)
        if found is None:
            wrong.append("0x%x: no %s by its words" % (block.address, block.type))
        elif truth.types[found[1]]["flags"] & GC_TYPE and memory.word(found[0] - 16):
            wrong.append("0x%x (%s): tracked, but unknown to the collector" % (found[0], block.type))
        else:
            extra[found[1]].append(block)
    return shorten(wrong, "objects"), extra


def check_records(truth, census, extra):
    """Counts and sizes of the type records; of the objects beyond the truth only the blocks tell a size."""
    wrong, count, size = [], collections.Counter(), collections.Counter()
    for address, (kind, bytes_, _) in truth.objects.items():
        if census.find(address):
            count[kind] += 1
            size[kind] += bytes_
    for kind in truth.types:
        record, name = census.types.get(kind), truth.names[kind]
        if record is None:
            if count[kind]:
                wrong.append("%s: no record, %d objects" % (name, count[kind]))
            continue
        if record["name"] != name[:512]:
            wrong.append("%s is called %s" % (name, record["name"]))
        more = extra.get(kind, [])
        if record["count"] != count[kind] + len(more):
            wrong.append("%s: %d objects, not %d" % (name, record["count"], count[kind] + len(more)))
        most = sum(b.size + sum(o.size for o in census.owned.get(b.address, [])) for b in more)
        beyond = record["size_bytes"] - size[kind]
        if is_sized(truth, kind) and not most * 0.6 <= beyond <= most:  # debug hooks take 24 bytes of each
            wrong.append("%s: %d bytes in %d objects, not %d and up to %d" % (name, record["size_bytes"], count[kind], size[kind], most))
    return shorten(wrong, "differences") + check_sums(census)


# What nobody can reach and the interpreter does not name: strings and such that the build froze, definitions of modules.
FROZEN = ("str", "bytes", "tuple", "code", "int", "moduledef")
COUNT_3_11 = 999999999  # of what 3.11 freezes


def proper_count(truth, count, name):
    """Whether a static object that nobody reaches may have this reference count."""
    if truth.minor >= 14:
        return bool(count >> 31 & 1) and count >> 56 == 0
    if truth.minor >= 12:
        return bool(count >> 31 & 1) and count >> 32 == 0 or (name in ("type", "moduledef") and 0 < count < 1 << 31)
    return abs(count - COUNT_3_11) < 1 << 20 if name in FROZEN and name != "moduledef" else 0 < count < 1 << 31


def static_fault(truth, memory, block):
    """What is wrong with a static object by its own words, or None. In the order of a header: count, type, length."""
    words = memory.words(block.address, max(block.size // 8, 6))
    if not memory.is_static(block.address) or not memory.is_static(block.address + block.size - 1):
        return "not in the data of a file"
    name = truth.names.get(words[1])
    # a type that nobody reaches has no name in the truth: its own words must be those of a type
    if name is None and memory.word(words[1] + 8) not in truth.types:
        return "its type is none"
    if name is not None and name[:512] != block.type:
        return "its type is %s" % name
    if block.address in truth.objects:
        return None
    if not proper_count(truth, words[0], block.type):
        return "%d references" % words[0]
    if truth.minor < 12 and block.type not in FROZEN + ("type",):
        return "no such object is static"
    return static_content_fault(truth, memory, block, words)


def static_content_fault(truth, memory, block, words):
    head = 40 if truth.minor >= 12 else 48
    if block.type == "str":
        state = words[4] if truth.minor < 14 else words[4] & 0xffffffff
        ascii_, kind = (state >> 6 & 1, state >> 2 & 7) if truth.minor < 14 else (None, None)
        length = words[2]
        if ascii_ and block.size != head + length + 1 or not length < block.size:
            return "%d characters in %d bytes of kind %s" % (length, block.size, kind)
    elif block.type == "bytes" and block.size != 33 + words[2]:
        return "%d bytes in %d" % (words[2], block.size)
    elif block.type == "tuple":
        first = 4 if truth.minor >= 14 else 3
        if block.size != 8 * (first + words[2]):
            return "%d items in %d bytes" % (words[2], block.size)
        known = [memory.word(w + 8) in truth.types for w in words[first:first + words[2]]]
        if not all(known):
            return "its items are no objects"
    elif block.type == "type" and not 400 <= block.size <= 448:
        return "a type of %d bytes" % block.size
    return None


def check_statics(truth, census, memory):
    """What the census calls static: by its own words, of right sizes, clear of each other and of blocks, and summed up."""
    wrong, end = [], 0
    for address in sorted(census.statics):
        block = census.statics[address]
        fault = static_fault(truth, memory, block)
        if fault is None and (address < end or census.find(address)):
            fault = "within another"
        end = max(end, address + block.size)
        if fault:
            wrong.append("0x%x: no static %s: %s" % (address, block.type, fault))
    return shorten(wrong, "objects") + check_static_sums(truth, census, memory)


def check_static_sums(truth, census, memory):
    wrong, count, size = [], collections.Counter(), collections.Counter()
    for address, block in census.statics.items():
        kind = memory.word(address + 8)
        count[kind] += 1
        if address in truth.objects:
            size[kind] += truth.objects[address][1]
        elif kind in truth.types:  # of static types only 3.11 and 3.12 count a collector's head
            size[kind] += block.size + (0 if block.type == "type" and truth.minor not in (11, 12) else truth.front(kind))
    if [sum(count.values()), sum(t["static_bytes"] for t in census.types.values())] != \
            [census.objects["statics"], census.objects["static_bytes"]]:
        wrong.append("static: %d rows, totals %s" % (sum(count.values()), census.objects))
    for kind, t in census.types.items():
        if t["statics"] != count[kind]:
            wrong.append("%s: %d static objects, not %d" % (t["name"], t["statics"], count[kind]))
        beyond = t["static_bytes"] - size[kind]
        # caches, of UTF-8 for example, count in: of what cannot be reached only the census knows them
        cached = t["name"] in ("code", "str")
        if kind in truth.types and not 0 <= beyond <= (t["static_bytes"] // 10 if cached else 0):
            wrong.append("%s: %d static bytes, not %d" % (t["name"], t["static_bytes"], size[kind]))
    return shorten(wrong, "differences")


def is_sized(truth, kind):
    return truth.types[kind]["own"] or truth.names[kind] in POINTERS or truth.names[kind] in ("str", "bytes")


def check_sums(census):
    """The block rows, the type records and the totals say the same."""
    wrong = []
    for kind, counts, bytes_ in (("object", "count", "bytes"), ("buffer", "buffers", "buffer_bytes"),
                                 ("inferred", "inferred", "inferred_bytes"), ("dead", "dead", "dead_bytes"),
                                 ("runtime", None, None), ("unowned", None, None)):
        rows = [b for b in census.blocks if b.kind == kind]
        plural = {"object": "objects", "buffer": "buffers"}.get(kind, kind)
        totals = [census.objects[plural], census.objects[kind + "_bytes"]]
        sums = [len(rows), sum(b.size for b in rows)]
        if sums != totals:
            wrong.append("%s: rows %s, totals %s" % (kind, sums, totals))
        if counts:
            records = [sum(t[counts] for t in census.types.values()), sum(t[bytes_] for t in census.types.values())]
            typed = [b for b in rows if b.type is not None or kind != "dead"]  # freelists keep keys of dicts, too
            if records != [len(typed), sum(b.size for b in typed)]:
                wrong.append("%s: type records %s, totals %s" % (kind, records, totals))
    return wrong


def fits(census, have, need):
    """Whether an allocator gives a block of this size to who needs that much (or shrank to it)."""
    chunk = have > 512 or have % 16 == 8
    need += (48 if chunk else 24) if census.debug else 0
    if have < need - (24 if chunk and census.debug else 0):
        return False
    if not census.rounds_to_16:
        return True
    if chunk:
        return have <= max(need, 24) + 40 or (need > 100000 and have <= need + 4200)
    return have == (need + 15) // 16 * 16 or 4 * need > 3 * have


def check_population(truth, census, memory):
    """How many buffers each object has, where its own pointer says, and the sizes."""
    wrong = []
    for address, want in truth.population.items():
        block = census.find(address)
        if block is not None and address in truth.objects:
            kind, size, _ = truth.objects[address]
            wrong += ["0x%x (%s): %s" % (address, truth.names[kind], why)
                      for why in check_thing(truth, census, memory, (address, kind, size, block, want))]
    return shorten(wrong, "faults")


def check_thing(truth, census, memory, thing):
    address, kind, size, block, want = thing
    name, facts, buffers = truth.names[kind], truth.types[kind], census.owned.get(block.address, [])
    own = facts["basicsize"] + truth.front(kind)
    if want >= 0 and len(buffers) != want:
        return ["owns %d buffers, not %d" % (len(buffers), want)]
    # not judged: objects with values in them, of which no size tells, and ints, which are made longer than they are
    exact = want == 0 and size >= 0 and not facts["flags"] & INLINE_VALUES and name != "int"
    if exact and (name not in ONE_BUFFER or size == own) and not fits(census, block.size, size):
        return ["%d bytes in a block of %d" % (size, block.size)]
    if want > 0 and name in POINTERS:
        pointer = memory.word(address + POINTERS[name])
        found = [b for b in buffers if b.address + census.front(b, memory) == pointer]
        if not found and name == "dict":  # its keys are the type's: it has values, with a prefix in 3.11 and 3.12
            pointer = memory.word(address + POINTERS[name] + 8)
            found = [b for b in buffers if b.address <= pointer < b.address + b.size]
        if not found:
            return ["its buffer is at 0x%x, not at %s" % (pointer, ", ".join(hex(b.address) for b in buffers))]
        shared = name == "dict" and memory.word(address + 40)
        if name in ONE_BUFFER and not shared and want == 1 and size > own and not fits(census, found[0].size, size - own):
            return ["needs a buffer of %d, has one of %d" % (size - own, found[0].size)]
    return []


def check_owners(census, memory):
    """Each buffer's owner, or another buffer of the same owner, has a pointer into it; and the owner is an object."""
    wrong = []
    for owner, buffers in census.owned.items():
        block = census.find(owner)
        if block is None or block.address != owner or block.kind != "object":
            wrong.append("0x%x owns 0x%x, but is no object" % (owner, buffers[0].address))
            continue
        wrong += ["0x%x (%s) has no pointer to its buffer 0x%x" % (owner, block.type, b.address)
                  for b in unreachable(memory, block, buffers)]
        wrong += ["0x%x: a buffer of %s, owned by %s" % (b.address, b.type, block.type) for b in buffers if b.type != block.type]
    return shorten(wrong, "buffers")


def unreachable(memory, block, buffers):
    left, todo = list(buffers), [block]
    while todo and left:
        here = todo.pop()
        words = memory.words(here.address, here.size // 8)
        for buffer in list(left):
            end = buffer.address + buffer.size
            if any(buffer.address <= w < end for w in words):
                left.remove(buffer)
                todo.append(buffer)
    return left


def check_runtime(census, memory):
    """The interpreter's own blocks can be reached from data of files, stacks and each other."""
    left = [b for b in census.blocks if b.kind == "runtime"]
    starts, known = [b.address for b in left], set()
    low, high = (starts[0], starts[-1] + left[-1].size) if left else (0, 0)
    places = [(s, e - s) for s, e in memory.static + memory.stacks] + [(b.address, b.size) for b in left]
    for start, size in places:
        for word in memory.words(start, size // 8):
            if low <= word < high:
                at = bisect.bisect_right(starts, word) - 1
                if word < starts[at] + left[at].size:
                    known.add(starts[at])
    return shorten(["0x%x: %d bytes of the interpreter, but it has no pointer to them" % (b.address, b.size)
                    for b in left if b.address not in known], "blocks")


def check_gc(truth, census):
    wrong = []
    for name, value in truth.gc.items():
        got = census.gc[name][:3] if isinstance(value, list) else census.gc[name]
        if got != value:
            wrong.append("gc %s: %s, not %s" % (name, got, value))
    tracked = sum(t for _, _, t in truth.objects.values()) - truth.gc["frozen"]
    if sum(census.gc["tracked"]) != tracked:
        wrong.append("gc tracked: %s, not %d in all" % (census.gc["tracked"], tracked))
    if census.gc["collecting"]:
        wrong.append("gc: collecting")
    return wrong


def unattributed(census):
    """The share of the bytes in used pymalloc blocks that is nobody's."""
    lost = census.objects["unowned_bytes"] - census.objects["malloc_unowned_bytes"]
    return lost / census.used if census.used else 0.0
