"""The target and the reader of test_export_formats.py, as text for `python -c`: both run on any Python from 3.8 on."""

# Names that files, types and formats can stumble over; the last two are no UTF-8 and beyond the BMP.
NAMES = ["/srv/shop/app/db.py", "/srv/shop/lib/db.py", "/srv/<module>", "/srv/a;b c.py", '/srv/quo"te,comma.py',
         "/srv/new\nline\tand\x1bescape\x85.py", "/srv/back\\x41slash.py", "=SUM(A1:A9)", "-minus.py", "@at", "+plus",
         "/srv/caf\xe9.py", "/srv/\u4e2d\u6587.py", "/srv/undecodable\udcff\udc80.py", "/srv/\U0001f40d.py"]

# Allocates at known lines of these names, dumps what tracemalloc knows of itself, then waits.
TARGET = r"""
import gc, sys, tracemalloc
NAMES = %r
TRUTH = %r
gc.disable()
class Session:
    pass
kept = []
def fill(name, make, where):
    code = "\n" * where + "kept.append(" + make + ")\nkept.append([" + make + " for i in range(9)])"
    exec(compile(code, name, "exec"), globals())
for at, name in enumerate(NAMES):
    fill(name, "bytes(1000 + at + len(kept))", at)
    fill(name, "Session()", at + 5)
fill("/srv/large.py", "bytearray(3 << 20)", 0)
fill("/srv/many.py", "[bytearray(i) for i in range(1, 100)]", 70000)
try:
    import _testcapi
    track = getattr(_testcapi, "tracemalloc_track")
    for domain in (7, 389047):
        track(domain, 0x10000 + domain, 5 << 30)
except (ImportError, AttributeError):
    pass
tracemalloc.take_snapshot().dump(TRUTH)
print("READY", flush=True)
sys.stdin.readline()
"""

# Loads our file with the interpreter's own code and compares it with what the target dumped of itself.
READER = r"""
import collections, sys, tracemalloc
ours, truth = (tracemalloc.Snapshot.load(p) for p in sys.argv[1:3])
names = [tracemalloc.Filter(True, p) for p in ("/srv/*", "=SUM*", "-minus.py", "@at", "+plus")]
a, b = ours.filter_traces(names), truth.filter_traces(names)
count = lambda s: collections.Counter(t._trace for t in s.traces)
wrong = [t for t in (count(a) - count(b)) + (count(b) - count(a))]
print("records", len(b.traces), len(wrong), ours.traceback_limit == truth.traceback_limit)
for t in wrong[:5]:
    print("wrong", ascii(t))
for key in ("filename", "lineno", "traceback"):
    one, two = a.statistics(key), b.statistics(key)
    print("statistics", key, one == two and [str(s) for s in one] == [str(s) for s in two], len(one))
    print("compare", key, all(d.size_diff == d.count_diff == 0 for d in a.compare_to(b, key)))
    if key != "traceback":
        print("cumulative", key, a.statistics(key, True) == b.statistics(key, True))
print("domains", sorted({t.domain for t in ours.traces}) == sorted({t.domain for t in truth.traces}))
large = ours.filter_traces([tracemalloc.Filter(True, "/srv/large.py")])
print("large", sum(t.size for t in large.traces) >= 10 * (3 << 20), large.statistics("traceback")[0].traceback.format()[0])
print("total", sum(s.size for s in ours.statistics("filename")), len(ours.traces))
with open(sys.argv[3], "w", encoding="utf-8", errors="surrogatepass") as f:
    for s in ours.statistics("lineno"):
        f.write("%s\n" % s)
"""
