"""Every interpreter on the machine and in Debian's suites: counts equal the interpreter's own
(sys._debugmallocstats, getallocatedblocks), mallinfo2 equals glibc's, the ledger equals the kernel's
figures to the byte; read by copy, in windows and without a pause; the target is left as it was."""
import json
import re
import subprocess
import sys

from builds import TOOL, Running, all_builds, settings_of

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


def resident_by_mapping(pid):
    """(range and file) -> bytes of Rss and of huge pages; file is empty for memory of the process alone."""
    found, key = {}, None
    for line in open("/proc/%d/smaps" % pid):
        words = line.split()
        if re.match(r"[0-9a-f]+-[0-9a-f]+$", words[0]):
            key = (words[0], words[5] if len(words) > 5 and words[5].startswith("/") else "")
        elif words[0] == "Rss:":
            found[key] = int(words[1]) * 1024, 0
        elif words[0] == "AnonHugePages:":
            found[key] = found[key][0], int(words[1]) * 1024
    return found


def kernels_doing(before, after):
    """Whether all that differs was done by the kernel: pages of files taken back (reading can only raise Rss), or
    memory collapsed into huge pages (3.15 asks for them), which makes absent pages present."""
    if before.keys() != after.keys():
        return False
    return all(after[k] == b or (k[1] and after[k][0] < b[0]) or after[k][1] > b[1] for k, b in before.items())


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
    """One census, taken again (twice at most) where the kernel changed what is resident meanwhile."""
    name = "%s, %s, %s" % (build.name, allocator, way[-1].lstrip("-"))
    for _ in range(3):
        before = resident_by_mapping(target.pid)
        wrong = check_once(build, allocator, way, target)
        after = resident_by_mapping(target.pid)
        if before == after or not kernels_doing(before, after):
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
    for setting, allocator in settings_of(build):
        env = {"PYTHONMALLOC": setting} if setting else {}
        try:
            with Running(build, env) as target:
                for way in (["--read", "copy"], ["--read", "window"], ["--no-pause"]):
                    check_one(build, allocator, way, target)
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            ok(False, "%s, %s" % (build.name, allocator), error)


def main():
    wanted = sys.argv[1:]
    for build in all_builds(skip):
        if not wanted or any(w in build.name for w in wanted):
            check_build(build)
    print("1..%d" % count)


main()
