"""The population of types_target.py: objects of every kind that the census knows, in THINGS, and how many buffers each
of them owns, in WANTS (-1: not judged). Runs on Python 3.8 and newer; nothing here may be random."""
import _codecs
import array
import collections
import functools
import os
import sys
import types
import weakref

NEW_INSTANCES = sys.version_info >= (3, 11)  # values of an instance live in a buffer or in the instance
INLINE_VALUES = sys.version_info >= (3, 13)
NEW_DICT = 0 if sys.version_info >= (3, 10) else 1  # buffers of what dict() returns
THINGS, WANTS = [], []


def put(thing, buffers=-1):
    THINGS.append(thing)
    WANTS.append(buffers)
    return thing


class Plain:
    def __init__(self, n):
        self.number, self.text, self.items = n, "plain %d" % n, [n]


class Wide:
    """More attributes than fit into shared keys."""

    def __init__(self):
        for i in range(60):
            setattr(self, "attribute_%d" % i, i)


class Slots:
    __slots__ = ("one", "two")

    def __init__(self, n):
        self.one, self.two = n, None


class NoSlots:
    __slots__ = ()  # no member at all: not of the collector


class SlotsWeak:
    __slots__ = ("one", "__weakref__")


class SlotsDict(Slots):
    __slots__ = ("three", "__dict__")


class Empty:
    pass


class MyDict(dict):
    pass


class MyList(list):
    pass


class SlotList(list):
    __slots__ = ()


class MyStr(str):
    pass


class MyInt(int):
    pass


class MyFloat(float):
    pass


class MyComplex(complex):
    pass


class MyTuple(tuple):
    pass


class MySet(set):
    pass


class MyFrozen(frozenset):
    pass


class MyBytes(bytes):
    pass


class MyBytearray(bytearray):
    pass


class MyArray(array.array):
    pass


class MyDeque(collections.deque):
    pass


class MyOrdered(collections.OrderedDict):
    pass


class MyModule(types.ModuleType):
    pass


class MyError(Exception):
    def __init__(self, n):
        super().__init__("error %d" % n)
        self.n = n


class Outer:
    class Inner:
        class Deepest:
            pass


class Meta(type):
    pass


class MetaMeta(type):
    pass


class DeepMeta(type, metaclass=MetaMeta):
    pass


class WithMeta(metaclass=Meta):
    pass


class WithDeepMeta(metaclass=DeepMeta):
    pass


def local_class():
    class Local:
        pass

    return Local


Pair = collections.namedtuple("Pair", "left right")

# name, __module__ (None: as it comes), instances: their names are odd, not their layout
ODD_NAMES = [("Überklasse", None), ("类", None), ("😀", None), ("bad\nname\x1b[31m", None), ("with space", None),
             ("N" * 300, None), ("OddModule", 5), ("NoneModule", ()), ("DottedModule", "app.models"),
             ("ForeignModule", "пакет.модуль"), ("EmptyModule", ""), ("a.dot", "app")]


def odd_classes():
    made = []
    for number, (name, module) in enumerate(ODD_NAMES):
        cls = type(name, (), {} if module is None else {"__module__": module})
        made.append(cls)
        for _ in range(number + 3):
            put(cls())
    return made


def instances():
    for n in range(50):
        # up to 3.10 a dict of its own holds the values, later a buffer, and from 3.13 on the instance
        put(Plain(n), 1 if NEW_INSTANCES and not INLINE_VALUES else 0)
    for n in range(20):
        thing = put(Plain(n), 0)
        thing.__dict__["number"] = n  # the dict exists from here on, and what it has is its own
        put(thing.__dict__, 0 if INLINE_VALUES else 1)
    for _ in range(7):
        put(Wide())
        put(Empty())
    for n in range(30):
        put(Slots(n), 0)
        put(NoSlots(), 0)
        put(weakref.ref(put(SlotsWeak(), 0)), 0)
        put(SlotsDict(n))
    for cls in (Outer, Outer.Inner, Outer.Inner.Deepest, WithMeta, WithDeepMeta, local_class(), local_class()):
        put(cls)
        for _ in range(11):
            put(cls())


def subclasses():
    for n in range(12):
        put(MyDict(), -1)
        put(MyDict({i: i for i in range(n + 1)}))
        put(MyList(range(n)))
        put(SlotList(range(n)), 1 if n else 0)
        put(MyStr("text %d" % n))
        put(MyStr("täxt %d €" % n))
        put(MyInt(10 ** (n * 5)))
        put(MyFloat(n))
        put(MyComplex(n, 1))
        put(MyTuple(range(n)))
        put(MySet(range(n * 2)))
        put(MyFrozen(range(n * 2)))
        put(MyBytes(b"x" * n * 30))
        put(MyBytearray(b"y" * n))
        put(MyArray("d", range(n)))
        put(MyDeque(range(n * 20)))
        put(MyOrdered((i, i) for i in range(n)))
        put(MyModule("module_%d" % n))
        put(MyError(n))
        put(Pair(n, -n), 0)


def lists_and_tuples():
    for n in list(range(20)) + [63, 64, 65, 1000, 9000]:
        put(list(range(n)), 1 if n else 0)
        grown = put([], 1 if n else 0)
        for i in range(n):
            grown.append(i)
        put(tuple(range(n)), 0)
    emptied = put([1, 2, 3], 0)
    emptied.clear()
    shrunk = put(list(range(1000)), 1)
    del shrunk[3:]


def dicts():
    for n in list(range(1, 13)) + [21, 22, 43, 85, 86, 170, 171, 300, 5000]:
        put({"key %d" % i: i for i in range(n)}, 1)
        put({i: i for i in range(n)}, 1)
        mixed = put({i: None for i in range(n)}, 1)
        mixed["text"] = 1.5
    for _ in range(9):
        put({}, 0)
        put(dict(), NEW_DICT)
    holes = put({i: str(i) for i in range(2000)}, 1)
    for i in range(0, 2000, 3):
        del holes[i]
    cleared = put({i: i for i in range(100)}, 0)
    cleared.clear()
    popped = put({i: i for i in range(100)}, 1)
    while popped:
        popped.popitem()
    put(dict.fromkeys(range(200)), 1)
    put(put({1: 2, 3: 4}, 1).copy(), 1)
    put(collections.defaultdict(list, {1: [2]}), 1)
    put(collections.Counter("abracadabra"))
    for n in (0, 1, 5, 100, 1000):
        put(collections.OrderedDict((i, i) for i in range(n)), n + 2 if n else NEW_DICT)
    rolled = put(collections.OrderedDict((i, i) for i in range(10)), 12)
    rolled.move_to_end(0)


def sets():
    for n in (0, 1, 4):
        put(set(range(n)), 0)
    for n in (30, 1000, 12000):
        put(set(range(n)), 1)
        put(frozenset(range(n)), 1)
    emptied = put(set(range(1000)), 1)
    for i in range(1000):
        emptied.discard(i)
    cleared = put(set(range(1000)), 0)
    cleared.clear()


def bytes_and_arrays():
    own = 0 if sys.version_info >= (3, 15) else 1  # 3.15: it holds a bytes object in place of a buffer
    for n in (0, 1, 15, 100, 480, 511, 512, 513, 4000, 20000):
        put(b"b" * n if n else bytes(0), 0)
        put(bytearray(b"c" * n), own if n else 0)
        put(array.array("q", [0]) * n, 1 if n else 0)
        put(array.array("b", bytes(n)), 1 if n else 0)
    grown = put(bytearray(), own)
    for _ in range(3000):
        grown += b"z"
    front = put(bytearray(b"0123456789" * 100), own)
    del front[:333]
    view = put(memoryview(put(bytearray(b"viewed" * 10), own)))
    put(view[3:9])
    put(memoryview(put(array.array("d", range(50)), 1)))


def deques():
    for n in (0, 1, 64, 65, 1000):
        put(collections.deque(range(n)), (1 + n + 63) // 64)
    put(collections.deque(range(1000), maxlen=10))
    turned = put(collections.deque(range(1000)))
    turned.rotate(333)
    popped = put(collections.deque(range(1000)))
    for _ in range(700):
        popped.popleft()


def numbers_and_texts():
    for n in range(3, 101, 3):
        put(10 ** n + n, 0)
        put(-(10 ** n), 0)
        put(n / 7, 0)
        put(complex(n, 0.5), 0)
    for n in (2, 3, 30, 200, 470, 5000):
        put(("ascii %d " % n) * n, 0)
        put(("é%d" % n) * n, 0)
        put(("€%d" % n) * n, 0)
        put(("😀%d" % n) * n, 0)
        for letter in "é€😀":
            cached = put((letter + " cached %d" % n) * n, 1)
            try:
                _codecs.lookup_error(cached)  # asks for UTF-8, which the str keeps from then on
            except LookupError:
                pass
    put(sys.intern("interned %d" % len(THINGS)), 0)


def generator(n):
    mine = [n]
    received = yield mine
    yield received


async def coroutine():
    await types.coroutine(lambda: (yield))()


async def async_generator():
    yield 1


def closure(n):
    def inner(a=1, *, b=[]):
        return n, a, b

    return inner


def functions():
    for n in range(10):
        suspended = put(generator(n))
        next(suspended)
        put(generator(n))
        put(closure(n), 0)
        put(lambda: n)
        put(closure(n).__closure__[0], 0)
        waiting = put(coroutine())
        waiting.send(None)
        put(async_generator())
        put(functools.partial(print, n))
        put(Plain(n).__init__)
        put([].append)
        put(compile("def f%d(a, b): return [a + b, 'text', %d]" % (n, n), "<made %d>" % n, "exec"))
        put(compile("x = 1\n" * 500, "<long>", "exec"))
    finished = put(generator(1))
    list(finished)
    read = put(compile("y = 2", "<read>", "exec"))
    read.co_code


def rest():
    for n in range(10):
        put(types.ModuleType("made_%d" % n))
        put(types.SimpleNamespace(n=n))
        put(ValueError("value %d" % n))
        put(OSError(n, "text", "file %d" % n))
        put(weakref.ref(THINGS[0], print))
        put(weakref.proxy(THINGS[0]))
        put(range(n, n + 1000), 0)
        put(slice(n, None), 0)
        put(enumerate([n]))
        put(iter([n]), 0)
        put(iter({n: n}.items()))
        put(map(str, [n]))
        put(zip([n], [n]))
        put(property(print))
        put(staticmethod(print))
        put(object(), 0)
        ring = put([n], 1)
        ring.append(ring)
        one, other = put(Plain(n)), put(Plain(n))
        one.items, other.items = other, one
    put(bytearray(300000), 0 if sys.version_info >= (3, 15) else 1)
    put({}.keys(), 0)
    put(types.MappingProxyType({1: 2}))
    put(open(os.devnull, "rb"))
    put(open(os.devnull))
    try:
        raise MyError(99)
    except MyError as error:
        put(error)
        put(error.__traceback__)


def populate():
    instances()
    subclasses()
    lists_and_tuples()
    dicts()
    sets()
    bytes_and_arrays()
    deques()
    numbers_and_texts()
    functions()
    rest()
    return odd_classes()
