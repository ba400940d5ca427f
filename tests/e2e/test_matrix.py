"""Every interpreter on the machine and in Debian's suites: counts equal the interpreter's own
(sys._debugmallocstats, getallocatedblocks), mallinfo2 equals glibc's, the ledger equals the kernel's
figures to the byte; read by copy, in windows and without a pause; the target is left as it was."""
import array
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import time

TOP = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
BUILD = os.path.join(TOP, os.environ.get("BUILD", "build"))
TOOL = os.path.join(BUILD, "heapcensus")
TARGET = os.path.join(TOP, "tests", "e2e", "matrix_target.py")
FIELDS = "arena ordblks smblks hblks hblkhd fsmblks uordblks fordblks".split()
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


class Build:
    def __init__(self, name, command, root=None, env=None):
        self.name, self.command, self.root, self.env = name, command, root, env or {}


def pyenv_builds():
    builds = []
    for exe in sorted(glob.glob(os.path.expanduser("~/.pyenv/versions/3.*/bin/python3.*"))):
        match = re.search(r"/(3\.(\d+)\.\d+)/bin/python3\.(\d+)$", exe)
        if match and 8 <= int(match.group(2)) <= 15:
            builds.append(Build("pyenv " + match.group(1), [exe]))
            stripped = strip(exe, match.group(1))
            if stripped:
                builds.append(stripped)
    return builds


def strip(exe, version):
    """A copy of an interpreter and its library without any symbol table but .dynsym."""
    prefix = os.path.dirname(os.path.dirname(exe))
    folder = os.path.join(BUILD, "stripped", version)
    os.makedirs(folder, exist_ok=True)
    copy = os.path.join(folder, "app-%s" % version)  # renamed, too
    shutil.copy(exe, copy)
    files = [copy]
    for lib in glob.glob(prefix + "/lib/libpython3.*.so.1.0"):
        files.append(shutil.copy(lib, folder))
    for f in files:
        os.chmod(f, 0o755)
        if subprocess.run(["strip", "-s", f], capture_output=True).returncode != 0:
            return None
    return Build("stripped " + version, [copy], env={"LD_LIBRARY_PATH": folder, "PYTHONHOME": prefix})


def root_builds(suite):
    roots = os.environ.get("HEAPCENSUS_ROOTS", os.path.join(TOP, "build", "roots"))
    subprocess.run([TOP + "/tests/lib/roots.sh", suite], capture_output=True)
    root, why = os.path.join(roots, suite), os.path.join(roots, suite + ".why")
    if not glob.glob(root + "/usr/bin/python3.*"):
        reason = open(why).read().strip() if os.path.exists(why) else "roots.sh gave no reason"
        skip("Debian " + suite, "the suite could not be installed: " + reason)
        return []
    names = sorted(os.path.basename(p) for p in glob.glob(root + "/usr/bin/python3.*"))
    return [Build("%s %s" % (suite, n), ["/usr/bin/" + n], root) for n in names if re.match(r"python3\.\d+(-dbg)?$", n)]


class Running:
    """The target, started and idle, with its truth."""

    def __init__(self, build, env):
        self.outside = os.path.join(build.root or "", "tmp" if build.root else BUILD.lstrip("/"), "matrix")
        if not build.root:
            self.outside = os.path.join(BUILD, "matrix")
        inside = "/tmp/matrix" if build.root else self.outside
        os.makedirs(self.outside, exist_ok=True)
        self.files = [os.path.join(self.outside, n) for n in ("stats", "mallinfo", "blocks")]
        script = TARGET
        if build.root:
            shutil.copy(TARGET, self.outside)
            script = inside + "/matrix_target.py"
        command = build.command + [script] + [inside + "/" + n for n in ("stats", "mallinfo", "blocks")]
        if build.root:
            command = ["chroot", build.root] + command
        everything = dict(os.environ, **build.env)
        everything.update(env)
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=everything)
        self.pid = self.process.pid

    def __enter__(self):
        if self.process.stdout.read(1) != b"R":
            error = self.process.stderr.read().decode(errors="replace")
            self.process.wait()
            raise RuntimeError("the target did not start: " + error[-300:])
        return self

    def __exit__(self, *args):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()

    def stats(self):
        text = open(self.files[0], errors="replace").read()
        classes = {}
        for line in text.splitlines():
            numbers = re.match(r"\s*\d+\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s*$", line)
            if numbers:
                size, *rest = (int(n) for n in numbers.groups())
                classes[size] = rest
        arenas = re.search(r"# arenas allocated current\s*=\s*([\d,]+)", text)
        unused = re.search(r"([\d,]+) unused pools", text)
        number = lambda m: int(m.group(1).replace(",", "")) if m else 0
        return classes, number(arenas), number(unused)

    def mallinfo(self):
        raw = open(self.files[1], "rb").read()
        if not raw:
            return None, 0
        wide = len(raw) == 80
        values = array.array("Q" if wide else "I", raw)
        # arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost
        return [values[i] for i in (0, 1, 2, 3, 4, 6, 7, 8, 9)], 64 if wide else 32

    def blocks(self):
        return array.array("q", open(self.files[2], "rb").read())[0]

    def status(self):
        for _ in range(200):  # until it sleeps: on a busy machine that takes a moment
            if open("/proc/%d/stat" % self.pid).read().rsplit(")", 1)[1].split()[0] == "S":
                break
            time.sleep(0.01)
        lines = open("/proc/%d/status" % self.pid).read().splitlines()
        keep = ("State", "TracerPid", "Threads", "SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd", "VmPTE")
        return [line for line in lines if line.split(":")[0] in keep]


def resident_by_mapping(pid):
    """(range and file) -> bytes of Rss; file is empty for memory that only the process itself can have changed."""
    found, key = {}, None
    for line in open("/proc/%d/smaps" % pid):
        words = line.split()
        if re.match(r"[0-9a-f]+-[0-9a-f]+$", words[0]):
            key = (words[0], words[5] if len(words) > 5 and words[5].startswith("/") else "")
        elif words[0] == "Rss:":
            found[key] = int(words[1]) * 1024
    return found


def reclaimed(before, after):
    """Whether all that differs is pages of files which the kernel took back: reading can't do that, only raise Rss."""
    return before.keys() == after.keys() and all(after[k] == b or (k[1] and after[k] < b) for k, b in before.items())


def kernel_figures(pid):
    rss = [int(x.split()[1]) * 1024 for x in open("/proc/%d/smaps_rollup" % pid) if x.startswith("Rss:")][0]
    mapped = 0
    for line in open("/proc/%d/maps" % pid):
        start, end = (int(x, 16) for x in line.split()[0].split("-"))
        mapped += end - start
    return rss, mapped


def take(pid, *options):
    run = subprocess.run([TOOL, "snapshot", str(pid), "-o", "-", *options], capture_output=True, text=True, timeout=60)
    records = {}
    for line in run.stdout.splitlines():
        record = json.loads(line)
        records.setdefault(record["record"], []).append(record)
    return run, records


def check_pymalloc(records, truth):
    classes, arenas, unused = truth
    found = records.get("pymalloc", [{}])[0]
    got = {c["size"]: [c["pools"], c["blocks_used"], c["blocks_free"]] for c in found.get("size_classes", [])}
    wrong = ["class %d: %s, not %s" % (s, got.get(s), classes.get(s)) for s in set(got) | set(classes) if got.get(s) != classes.get(s)]
    if found.get("arenas", 0) != arenas or found.get("pools_free", 0) != unused:
        wrong.append("arenas %s of %s, unused pools %s of %s" % (found.get("arenas"), arenas, found.get("pools_free"), unused))
    return wrong


def check_mallinfo(records, truth, bits):
    got = records["malloc"][0]["mallinfo2"]
    names = "arena ordblks smblks hblks hblkhd fsmblks uordblks fordblks keepcost".split()
    return ["%s %d, not %d" % (n, got[n], t) for n, t in zip(names, truth) if got[n] % (1 << bits) != t % (1 << bits)]


def check_ledger(records, rss, mapped):
    memory = records["memory"][0]
    sums = [sum(c[k] for c in memory["categories"]) for k in ("resident_bytes", "bytes")]
    maps = [sum(m[k] for m in records["mapping"]) for k in ("resident_bytes", "bytes")]
    want = [rss, mapped]
    wrong = []
    for what, values in (("categories", sums), ("mappings", maps), ("memory", [memory["rss_bytes"], memory["mapped_bytes"]])):
        if values != want:
            wrong.append("%s sum to %s, the kernel says %s" % (what, values, want))
    unknown = [c for c in memory["categories"] if c["name"] == "unknown"][0]["resident_bytes"]
    if unknown > rss / 100:
        wrong.append("unknown is %d of %d bytes" % (unknown, rss))
    return wrong


def check_parts(records):
    """The records of parts sum to those of the whole, and both to the ledger's categories."""
    wrong = []

    def same(what, one, other):
        if one != other:
            wrong.append("%s: %s and %s" % (what, one, other))

    bytes_of = {c["name"]: c["bytes"] for c in records["memory"][0]["categories"]}
    for p in records.get("pymalloc", []):
        for field in ("blocks_used", "bytes_used", "pools_free"):
            same("arenas' " + field, sum(a[field] for a in records.get("arena", [])), p[field])
        same("used blocks", bytes_of["python.blocks.used"], p["bytes_used"])
    for m in records["malloc"]:
        for field in ("used_chunks", "used_bytes", "cached_bytes", "free_chunks", "free_bytes", "top_bytes", "system_bytes"):
            same("malloc arenas' " + field, sum(a[field] for a in records["malloc_arena"]), m[field])
        for name, field in (("used", "used_bytes"), ("cached", "cached_bytes"), ("free", "free_bytes"), ("top", "top_bytes"), ("mmapped", "mmapped_bytes")):
            same("malloc." + name, bytes_of["malloc." + name], m[field])
    return wrong


def check_one(build, allocator, way, target):
    """One census, taken again (twice at most) where the kernel reclaimed pages of the target's files meanwhile."""
    name = "%s, %s, %s" % (build.name, allocator, way[-1].lstrip("-"))
    for _ in range(3):
        before = resident_by_mapping(target.pid)
        wrong = check_once(build, allocator, way, target)
        after = resident_by_mapping(target.pid)
        if before == after or not reclaimed(before, after):
            break
    changed = ["%s: %s -> %s" % (k, before.get(k), after.get(k)) for k in {**before, **after} if before.get(k) != after.get(k)]
    ok(not wrong + changed, name, "\n".join(wrong + changed))


def check_once(build, allocator, way, target):
    before, (rss, mapped) = target.status(), kernel_figures(target.pid)
    run, records = take(target.pid, *way)
    if run.returncode != 0 or "memory" not in records:
        return ["exit %d\n%s" % (run.returncode, run.stderr)]
    wrong = check_ledger(records, rss, mapped) + check_parts(records)
    if allocator.startswith("mimalloc"):
        used = [c for c in records["memory"][0]["categories"] if c["name"] == "python.mimalloc"][0]["count"]
        if used != target.blocks():
            wrong.append("mimalloc blocks %d, not %d" % (used, target.blocks()))
    else:
        wrong += check_pymalloc(records, target.stats())
    truth, bits = target.mallinfo()
    if truth:
        wrong += check_mallinfo(records, truth, bits)
    python = records["header"][0]["python"]
    if python["allocator"] != allocator:
        wrong.append("allocator %s" % python["allocator"])
    if python["debug"] != build.name.endswith("-dbg"):
        wrong.append("debug %s" % python["debug"])
    if kernel_figures(target.pid) != (rss, mapped):
        wrong.append("the target's Rss or mappings changed: %s -> %s" % ((rss, mapped), kernel_figures(target.pid)))
    if target.status() != before:
        wrong.append("the target changed: %s -> %s" % (before, target.status()))
    if target.process.poll() is not None:
        wrong.append("the target died")
    return wrong


def check_build(build):
    debug = build.name.endswith("-dbg")
    minor = int(re.search(r"3\.(\d+)", build.name).group(1))
    settings = [("", "pymalloc_debug" if debug else "pymalloc"), ("debug", "pymalloc_debug"), ("malloc", "malloc")]
    if minor >= 13:
        settings.append(("mimalloc", "mimalloc"))
    for setting, allocator in settings:
        env = {"PYTHONMALLOC": setting} if setting else {}
        try:
            with Running(build, env) as target:
                for way in (["--read", "copy"], ["--read", "window"], ["--no-pause"]):
                    check_one(build, allocator, way, target)
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            ok(False, "%s, %s" % (build.name, allocator), error)


def main():
    builds = [Build("system " + os.path.basename(os.path.realpath("/usr/bin/python3")), ["/usr/bin/python3"])]
    pyenv = pyenv_builds()
    if not pyenv:
        skip("pyenv", "no interpreters of pyenv on this machine")
    builds += pyenv
    for suite in ("bullseye", "trixie", "sid"):
        builds += root_builds(suite)
    wanted = sys.argv[1:]
    for build in builds:
        if not wanted or any(w in build.name for w in wanted):
            check_build(build)
    print("1..%d" % count)


main()
