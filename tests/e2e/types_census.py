"""What test_types.py compares: the truth that types_target.py wrote, and a census with its blocks."""
import array
import bisect
import copy
import json
import os
import re
import struct

GC_TYPE, INLINE_VALUES, HEAP_TYPE = 1 << 14, 1 << 2, 1 << 9


def number(value):
    return int(value, 16) if isinstance(value, str) else value


class Truth:
    """types: id -> what types_target.py says of it; objects: id -> (type's id, getsizeof, tracked); population: id -> buffers"""

    def __init__(self, folder, minor):
        self.minor = minor
        with open(os.path.join(folder, "types"), encoding="utf-8") as file:
            self.types = {t["id"]: t for t in map(json.loads, file)}
        values = self.numbers(folder, "objects")
        rows = values[1:1 + 4 * values[0]]
        self.objects = dict(zip(rows[0::4], zip(rows[1::4], rows[2::4], rows[3::4])))
        values = self.numbers(folder, "population")
        self.population = dict(zip(values[1::2], values[2::2]))
        facts = self.numbers(folder, "gc")
        self.gc = {"enabled": bool(facts[0]), "frozen": facts[1], "garbage": facts[2],
                   "threshold": facts[3:6].tolist(), "count": facts[6:9].tolist()}
        self.names = {key: shown_name(t) for key, t in self.types.items()}

    @staticmethod
    def numbers(folder, name):
        with open(os.path.join(folder, name), "rb") as file:
            return array.array("q", file.read())

    def front(self, kind):
        """Bytes in front of an object of this type: the collector's head, managed words."""
        flags = self.types[kind]["flags"]
        managed = 0 if self.minor < 11 else 1 << 4 if self.minor == 11 else 3 << 3
        return (16 if flags & GC_TYPE else 0) + (16 if flags & managed else 0)


def shown_name(kind):
    """The name that a census must show, of a type as types_target.py tells it."""
    module = kind["module"]
    name = kind["name"] if module in (None, "", "builtins") else module + "." + kind["name"]
    return printable(name)


def printable(name):
    return "".join(c if c >= " " and c != "\x7f" else "\\x%02x" % ord(c) for c in name)


def told_name(name):
    """A name out of a snapshot, where \\xNN stands for a byte, as people see it."""
    return name if name is None else printable(re.sub(r"\\x([0-9a-f]{2})", lambda m: chr(int(m.group(1), 16)), name))


class Block:
    __slots__ = ("address", "size", "kind", "type", "owner")

    def __init__(self, address, size, kind, name, owner):
        self.address, self.size, self.kind, self.type, self.owner = address, size, kind, name, owner


def blocks_of(records):
    found = []
    for record in records:
        names = [told_name(n) for n in record["types"]]
        for address, size, kind, index, owner in zip(*(record[c] for c in ("address", "size", "kind", "type", "owner"))):
            found.append(Block(number(address), size, kind, None if index is None else names[index], number(owner or 0)))
    return found


class Census:
    """records: the lines of a snapshot by name of the record."""

    def __init__(self, records):
        self.header = records["header"][0]
        self.types = {number(t["address"]): dict(t, name=told_name(t["name"])) for t in records.get("type", [])}
        self.objects = records["objects"][0]
        self.gc = copy.deepcopy(records["gc"][0])
        self.used = sum(c["bytes"] for c in records["memory"][0]["categories"] if c["name"] == "python.blocks.used")
        rows = sorted(blocks_of(records.get("blocks", [])), key=lambda b: b.address)
        self.blocks = [b for b in rows if b.kind != "static"]
        self.statics = {b.address: b for b in rows if b.kind == "static"}
        self.starts = [b.address for b in self.blocks]
        allocator = self.header["python"]["allocator"]
        self.debug = 16 if allocator.endswith("_debug") else 0
        self.rounds_to_16 = not allocator.startswith("mimalloc")
        self.owned = {}
        for block in self.blocks:
            if block.owner:
                self.owned.setdefault(block.owner, []).append(block)

    def front(self, block, memory):
        """Bytes of the debug hooks in front of what the program has. What is too large for pymalloc it asks of the raw
        domain, which has hooks of its own: two headers, each of a size and the domain's letter before seven 0xfd."""
        if not self.debug:
            return 0
        words = memory.words(block.address, 4)
        letters = [chr(w & 0xff) if w >> 8 == 0xfdfdfdfdfdfdfd else "" for w in words[1::2]]
        return 2 * self.debug if letters[:1] == ["r"] and letters[1:] in (["m"], ["o"]) else self.debug

    def find(self, address):
        """The block that holds the address, or None."""
        at = bisect.bisect_right(self.starts, address) - 1
        if at >= 0 and address < self.blocks[at].address + self.blocks[at].size:
            return self.blocks[at]
        return None


def loaded(path):
    """(address, size) of each segment that the loader makes of an ELF file, .bss included; empty if it is none."""
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
    except OSError:
        return []
    if head[:5] != b"\x7fELF\x02":
        return []
    at, = struct.unpack_from("<Q", head, 32)
    size, number = struct.unpack_from("<HH", head, 54)
    segments = [struct.unpack_from("<IIQQQQQ", head, at + i * size) for i in range(number) if at + (i + 1) * size <= len(head)]
    return [(s[3], s[6]) for s in segments if s[0] == 1]  # PT_LOAD: p_vaddr, p_memsz


class Memory:
    """The target's memory, and which of it is the data of executables and libraries."""

    def __init__(self, pid):
        self.file = open("/proc/%d/mem" % pid, "rb", buffering=0)
        self.static, self.stacks = [], []
        with open("/proc/%d/maps" % pid) as maps:
            for line in maps:
                words = line.split(None, 5)
                if len(words) > 5 and words[5].startswith("[stack"):
                    self.stacks.append(tuple(int(x, 16) for x in words[0].split("-")))
                if len(words) > 5 and words[5].startswith("/") and int(words[2], 16) == 0:
                    # what lies in a chroot has its whole name here, in a container it has not
                    segments = loaded(words[5].rstrip("\n")) or loaded("/proc/%d/map_files/%s" % (pid, words[0]))
                    bias = int(words[0].split("-")[0], 16) - (segments[0][0] & ~4095 if segments else 0)
                    self.static += [(bias + start, bias + start + size) for start, size in segments]

    def close(self):
        self.file.close()

    def words(self, address, count):
        """As many of the words as there are up to the first page that is missing."""
        try:
            data = os.pread(self.file.fileno(), 8 * count, address)
        except OSError:
            data = b""
        return array.array("Q", data[:len(data) // 8 * 8])

    def word(self, address):
        found = self.words(address, 1)
        return found[0] if found else None

    def is_static(self, address):
        return any(start <= address < end for start, end in self.static)
