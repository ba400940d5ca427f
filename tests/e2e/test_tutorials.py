"""The programs of tracemalloc's tutorials, with tracemalloc inside and heapcensus outside at the same moment: the same
lines with the same sizes and counts, in the same words. And the recipes of docs/recipes, which docs/TRACEMALLOC.md
quotes: a program that takes the census of itself, its context manager, decorator, checkpoints, unittest mixin, and the
endpoints of a FastAPI service."""
import contextlib
import importlib.util
import json
import os
import re
import tempfile
import urllib.request

from lib import PROGRAM, PYTHON, ROOT, describe, heapcensus, main, rollup, run, start, survived

TUTORIALS = os.path.join(ROOT, "tests", "e2e", "tutorials")
RECIPES = os.path.join(ROOT, "docs", "recipes")
ONES = 10000 * 8
NUMPY = "389047"  # numpy's domain


def missing(*packages):
    """The first Debian package that is not there, as a reason to skip."""
    for package in packages:
        if not importlib.util.find_spec(package):
            return f"python3-{package} is not installed"
    return None


@contextlib.contextmanager
def tutorial(name, *args):
    env = {"PYTHONPATH": RECIPES, "PYTHONDONTWRITEBYTECODE": "1", "HEAPCENSUS": PROGRAM}
    with start([PYTHON, os.path.join(TUTORIALS, name), *args], env) as target:
        yield target


class Steps:
    """A program that tells step by step (tutorials/inside.py), with a snapshot from outside at each."""

    def __init__(self, tap, name, target, folder):
        self.tap, self.name, self.target, self.folder = tap, name, target, folder
        self.file = os.path.join(TUTORIALS, name)
        self.told, self.paths, self.rss = [], [], []

    def step(self, *options):
        """The next thing told; a snapshot is taken, then the program goes on."""
        self.target.wait_ready("TOLD")
        self.told.append(json.loads(self.target.ready))
        path = os.path.join(self.folder, f"{len(self.told)}.jsonl")
        done = heapcensus("snapshot", "-p", self.target.pid, "-q", "-o", path, *options)
        if done.returncode != 0:
            self.tap.ok(False, f"{self.name}: snapshot {len(self.told)}", describe(done))
        self.paths.append(path)
        self.rss.append(rollup(self.target.pid)["Rss"])
        self.target.send("go on")
        return self.told[-1]

    def theirs(self, lines):
        """Of lines of statistics, those that are not about telling or tracemalloc itself."""
        return [line for line in lines if not re.match(r".*/(inside|tracemalloc|linecache|abc|json/\w+|tokenize)\.py:|<frozen ", line)]

    def same(self, what, inside, done):
        """Every line of the program's own that tracemalloc prints inside is printed outside."""
        outside = done.stdout.splitlines()
        want = self.theirs(inside)
        gone = [line for line in want if line not in outside]
        self.tap.ok(done.returncode == 0 and want and not gone, f"{self.name}: {what}",
                    "\n".join([*gone, "inside:", *want, "outside:", *outside[:8], done.stderr]))


@contextlib.contextmanager
def steps(tap, name):
    with tempfile.TemporaryDirectory(prefix="heapcensus-test.") as folder, tutorial(name) as target:
        yield Steps(tap, name, target, folder)


def sites(path, *options):
    return heapcensus("sites", path, "-q", "--format=tracemalloc", *options)


def diff(old, new, *options):
    return heapcensus("diff", old, new, "-q", "--format=tracemalloc", *options)


def tracing(path):
    return json.loads(heapcensus("sites", path, "--json").stdout)["tracing"]


# ---- texts 4 and 1: growth step by step, and its traceback ----

def test_memleak(tap):
    reason = missing("numpy")
    if reason:
        return tap.skip("five steps of np.ones(10000)", reason)
    with steps(tap, "memleak.py") as s:
        for number in range(5):
            told = s.step()
            numpy = [line for line in told["growth"] if "numpy" in line]
            file = [line for line in told["files"] if "numpy" in line]
            s.same(f"step {number + 1}: statistics by file", file, sites(s.paths[-1], "--by", "file", "--top", "0"))
            s.same(f"step {number + 1}: since the first", numpy, diff(s.paths[0], s.paths[-1], "--top", "0"))
        grown = [data_growth(s.paths[0], path) for path in s.paths[1:]]
        tap.ok(grown == [ONES * n for n in range(1, 5)], "memleak.py: the arrays' data grow by 80,000 bytes at each step", grown)
        step = diff(s.paths[3], s.paths[4], "--domain", NUMPY)
        tap.ok(re.search(r"numeric\.py:\d+: size=391 KiB \(\+78\.1 KiB\), count=5 \(\+1\), average=78\.1 KiB$", step.stdout, re.M),
               "memleak.py: +78.1 KiB, as the tutorial says", describe(step))
        largest = sites(s.paths[-1], "--by", "traceback", "--limit", "10", "--top", "1",
                        "--exclude", "<frozen importlib._bootstrap>", "--exclude", "<unknown>")
        want = s.told[-1]["largest"]
        tap.ok(want and all(line in largest.stdout.splitlines() for line in want),
               "memleak.py: the traceback of the largest block", "\n".join(want) + "\n" + describe(largest))
        trend = heapcensus("trend", "-q", "--by", "line", *s.paths)
        first = [line for line in trend.stdout.splitlines() if "numeric.py" in line]
        tap.ok(trend.returncode == 0 and first, "memleak.py: the line is in the trend", describe(trend))
        types = heapcensus("sites", s.paths[-1], "--by", "line", "--type", "numpy.ndarray", "--json")
        tap.ok(types.returncode == 0 and any(site["traceback"][0]["file"].endswith("numeric.py")
                                             for site in json.loads(types.stdout)["sites"]),
               "memleak.py: the type of the blocks of that line", describe(types))


def data_growth(old, new):
    """Of the memory that numpy tracks as its own, at its one line."""
    done = heapcensus("diff", old, new, "--by", "line", "--domain", NUMPY, "--json")
    return sum(row["bytes_diff"] for row in json.loads(done.stdout)["rows"])


# ---- text 2: before and after, and exercise 3 ----

def test_cache(tap):
    with steps(tap, "cache.py") as s:
        s.step()
        told = s.step()
        s.same("the cache of 10,000 strings", told["growth"], diff(s.paths[0], s.paths[1], "--top", "0"))
        tap.ok(any(re.search(r"cache\.py:10: size=10\.2 MiB \(\+10\.2 MiB\), count=1000\d \(\+1000\d\), average=1\d\d\d B", line)
                   for line in told["growth"]), "cache.py: a line as in the tutorial", told["growth"])
        for what in ("growth", "reclamation"):
            told = s.step()
            s.same(f"{what} of a list of 200,000", told["step"], diff(s.paths[-2], s.paths[-1], "--top", "0"))
        gate = heapcensus("diff", s.paths[0], s.paths[1], "--fail-if", "total>+10MiB")
        tap.ok(gate.returncode == 1, "cache.py: a gate of 10 MiB trips", describe(gate))
        gate = heapcensus("diff", s.paths[0], s.paths[1], "--fail-if", "total>+20MiB")
        tap.ok(gate.returncode == 0, "cache.py: a gate of 20 MiB does not", describe(gate))


# ---- text 3: 100 MiB and the size of the process ----

def test_monitor(tap):
    with steps(tap, "monitor.py") as s:
        for number, mebibytes in enumerate((0, 100, 200, 100, 0)):
            told = s.step()
            if mebibytes:
                s.same(f"step {number + 1}, {mebibytes} MiB: the top line", told["lines"][:1], sites(s.paths[-1], "--top", "1"))
            traced = tracing(s.paths[-1])
            tap.ok(told["memory"][0] <= traced["traced_bytes"] + 4096 and traced["peak_bytes"] >= told["memory"][1]
                   and abs(traced["traced_bytes"] - mebibytes * 2**20) < 2**20,
                   f"monitor.py, step {number + 1}: traced memory and its peak", f"{told['memory']}\n{traced}")
            shown = json.loads(heapcensus("summary", s.paths[-1], "--json").stdout)["memory"]["rss_bytes"]
            tap.ok(abs(shown - told["rss"]) < 2**20, f"monitor.py, step {number + 1}: the size of the process",
                   f"{told['rss']} inside, {shown} outside")
        top = sites(s.paths[1], "--top", "1")
        tap.ok(re.search(r"^\d+ other: [\d.]+ KiB$", top.stdout, re.M) and
               re.search(r"^Total allocated size: 1024\d\d\.\d KiB$", top.stdout, re.M),
               "monitor.py: the lines of display_top", describe(top))
        top = run([PYTHON, os.path.join(RECIPES, "display_top.py"), s.paths[2], "1"], env=dict(os.environ, HEAPCENSUS=PROGRAM))
        lines = top.stdout.splitlines()
        tap.ok(top.returncode == 0 and lines[:3] == ["Top 1 lines", "#1: tutorials/monitor.py:12: 204800.0 KiB",
                                                     '    return b"x" * bytes_len']
               and re.fullmatch(r"\d+ other: [\d.]+ KiB", lines[3]) and re.fullmatch(r"Total allocated size: 2048\d\d\.\d KiB", lines[4]),
               "display_top.py: as the tutorial prints it", describe(top))
        found = sites(s.paths[2], "--by", "traceback", "--top", "1").stdout.splitlines()
        tap.ok(all(line in found for line in s.told[2]["largest"]), "monitor.py: the traceback of the biggest block",
               "\n".join(s.told[2]["largest"] + found))


# ---- text 1: the scope of tracing ----

def lists_at(path, file):
    """Of the lists' buffers of a program, bytes by line."""
    done = heapcensus("sites", path, "--json", "--top", "0", "--include", file)
    return {site["traceback"][0]["line"]: site["bytes"] for site in json.loads(done.stdout)["sites"]}


def test_scope(tap):
    with steps(tap, "scope.py") as s:
        told = s.step("--blocks")
        lines = lists_at(s.paths[0], s.file)
        tap.ok([lines.get(n) for n in (7, 8, 10, 12)] == [None, None, 5000 * 8, 7000 * 8],
               "scope.py: from start(), and a second start() changes nothing", lines)
        tap.ok(tracing(s.paths[0])["frames_limit"] == 3, "scope.py: the limit is the first one's")
        untraced = [size for record in records(s.paths[0], "blocks") for size, site in zip(record["size"], record["site"])
                    if site is None and 24000 <= size < 24064]
        found = site_of(s.paths[0], told["address"])
        tap.ok(found == told["allocated"] == [s.file, 13], "scope.py: get_object_traceback() of an address", (found, told["allocated"]))
        tap.ok(untraced, "scope.py: what was there before is a block without a site", told["lines"])
        s.step()
        lines = lists_at(s.paths[1], s.file)
        tap.ok(lines == {17: 9000 * 8}, "scope.py: after clear_traces() only what is new", lines)
        peak = tracing(s.paths[1])["peak_bytes"]
        s.step()
        tap.ok(tracing(s.paths[2])["peak_bytes"] < peak or tracing(s.paths[2])["peak_bytes"] >= s.told[2]["memory"][1],
               "scope.py: reset_peak()", (peak, tracing(s.paths[2])))
        s.target.wait_ready("TOLD")
        done = heapcensus("sites", s.target.pid)
        tap.ok("PYTHONTRACEMALLOC" in done.stdout + done.stderr, "scope.py: after stop() it says how to start", describe(done))
        tap.ok(survived(s.target.pid), "scope.py: lives on")


def site_of(path, address):
    """File and line that allocated the object at an address: its block begins there or just before."""
    rows = [row for r in records(path, "blocks") for row in zip(r["address"], r["size"], r["site"])]
    begin, size, site = max(row for row in rows if row[0] <= address)
    if address >= begin + size or site is None:
        return None
    traceback = records(path, "traceback")[records(path, "site")[site]["traceback"]]
    frame = records(path, "frame")[traceback["frames"][0]]
    return [frame["file"], frame["line"]]


def records(path, name):
    with open(path, encoding="utf-8") as f:
        return [r for r in map(json.loads, f) if r["record"] == name]


# ---- the recipes ----

def test_recipes(tap):
    with tutorial("recipes.py") as target:
        lines = []
        for line in target.popen.stdout:
            lines.append(line.rstrip("\n"))
        status = target.popen.wait()
    tap.ok(status == 0 and lines and lines[-1].startswith("TOLD "), "recipes.py: ran to its end", "\n".join(lines[-5:]))
    if status != 0:
        return
    inside = json.loads(lines[-1][5:])
    tap.ok(inside["context"] in lines, "recipes.py: the context manager has the line of tracemalloc",
           "\n".join([inside["context"], *lines[:8]]))
    total = [float(line.split()[2]) for line in lines if line.startswith("Total change: ")]
    tap.ok(total and 2000 * 1033 / 1024 * 0.9 < total[0] < 4000, "recipes.py: the total of the context manager", total)
    profile = [re.match(r"\[build_dict\] Current: ([\d.]+) KB, Peak: ([\d.]+) KB", line) for line in lines]
    figures = [tuple(map(float, m.groups())) for m in profile if m]
    tap.ok(figures and abs(figures[0][0] - inside["memory"][0] / 1024) < 200 and figures[0][0] <= figures[0][1],
           "recipes.py: the decorator's current and peak", (figures, inside["memory"]))
    at = lines.index("=== start -> after ===") if "=== start -> after ===" in lines else -2
    tap.ok("count=2300 (+300)" in lines[at + 1] or "(+300)" in lines[at + 1], "recipes.py: checkpoints", "\n".join(lines[at:at + 4]))
    tap.ok(any(re.match(r".*/recipes\.py:0: size=[\d.]+ [KM]iB, count=\d+, average=", line) for line in lines),
           "recipes.py: statistics by file", "\n".join(lines[-6:]))


def test_unittest_limit(tap):
    env = {"PYTHONPATH": RECIPES, "PYTHONDONTWRITEBYTECODE": "1", "HEAPCENSUS": PROGRAM, "PYTHONTRACEMALLOC": "1"}
    done = run([PYTHON, os.path.join(TUTORIALS, "limit_case.py"), "-v"], env=dict(os.environ, **env))
    failed = re.findall(r"^(test_\w+) .*\.\.\. (\w+)", done.stderr, re.M)
    tap.ok(dict(failed) == {"test_leaks": "FAIL", "test_frees": "ok", "test_small": "ok"}, "the mixin: only the leak fails",
           failed or done.stderr[-1500:])
    tap.ok(re.search(r"\+3\.0 MiB .*limit_case\.py:13$", done.stderr, re.M), "the mixin: the failure names the line", done.stderr[-1500:])


def test_periodic(tap):
    with start([PYTHON, "-c", "import sys,time,tracemalloc\ntracemalloc.start()\nkeep=[]\nprint('READY', flush=True)\n"
                              "while True:\n keep.append(bytes(50000))\n time.sleep(0.02)"]) as target, \
            tempfile.TemporaryDirectory(prefix="heapcensus-test.") as folder:
        target.wait_ready()
        done = run(["sh", os.path.join(RECIPES, "periodic.sh"), target.pid, folder, "0.3", "4"],
                   env=dict(os.environ, HEAPCENSUS=PROGRAM))
        tap.ok(done.returncode == 0 and "<string>:6" in done.stdout and len(os.listdir(folder)) == 4,
               "periodic.sh: the line that keeps growing", describe(done))
        tap.ok(survived(target.pid), "periodic.sh: the process lives on")


def request(port, path, method="GET"):
    call = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(call, timeout=120) as answer:
        return answer.read().decode()


def test_fastapi(tap):
    reason = missing("fastapi", "uvicorn")
    if reason:
        return tap.skip("a FastAPI endpoint that leaks", reason)
    env = {"PYTHONPATH": RECIPES, "PYTHONDONTWRITEBYTECODE": "1", "HEAPCENSUS": PROGRAM}
    with start([PYTHON, os.path.join(TUTORIALS, "fastapi_leak.py")], env) as target:
        target.wait_ready()
        port = int(target.ready.split()[0])
        for _ in range(20):
            request(port, "/some/operation")
        request(port, "/inside/base", "POST")
        request(port, "/memory/base", "POST")
        for _ in range(200):
            request(port, "/some/operation")
        outside = request(port, "/memory/growth?top=0").splitlines()
        inside = [line for line in json.loads(request(port, "/inside/growth")) if "/fastapi_leak.py:" in line]
        leak = [line for line in inside if "(+200)" in line]
        tap.ok(len(leak) == 1 and leak[0] in outside, "fastapi: the endpoint says the line that leaks, as tracemalloc does",
               "\n".join([*inside, "outside:", *outside[:8]]))
        files = request(port, "/memory/growth?by=file&top=3").splitlines()
        tap.ok(any("/fastapi_leak.py:0: size=" in line for line in files[:3]), "fastapi: by file", "\n".join(files[:5]))
        tap.ok(json.loads(request(port, "/some/operation"))["sessions"] == 221, "fastapi: answers afterwards")


# ---- the documentation ----

def test_quotes(tap):
    """What docs/TRACEMALLOC.md quotes are the recipes that ran here; what it calls a command is one."""
    with open(os.path.join(ROOT, "docs", "TRACEMALLOC.md"), encoding="utf-8") as f:
        text = f.read()
    quoted = re.findall(r"^`(docs/recipes/[\w.]+)`[^\n]*\n\n```\w*\n(.*?)^```$", text, re.M | re.S)
    tap.ok(sorted(path for path, _ in quoted) == sorted("docs/recipes/" + n for n in os.listdir(RECIPES) if n[0] not in "._"),
           "the documentation quotes every recipe", [path for path, _ in quoted])
    for path, code in quoted:
        with open(os.path.join(ROOT, path), encoding="utf-8") as f:
            tap.ok(f.read() == code, f"{path} is quoted as it is")
    usage = heapcensus("--help").stdout
    with open(os.path.join(ROOT, "docs", "man", "heapcensus.1"), encoding="utf-8") as f:
        manual = f.read().replace("\\-", "-")
    options = sorted(set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - {"--cap-add"})
    unknown = [o for o in options if o not in usage and o not in manual]
    tap.ok(options and not unknown, "the documentation's options exist", unknown)


if __name__ == "__main__":
    main(test_memleak, test_cache, test_monitor, test_scope, test_recipes, test_unittest_limit, test_periodic, test_fastapi,
         test_quotes)
