"""The same census on cores: every interpreter of the matrix, live, from `heapcensus core`, from gcore and from
the kernel's core of the same process, aborted; with other coredump filters, compressed, cut short, and where no
file of the target can be found.

What a core cannot tell, by who wrote it, and what is therefore not compared (FORGETS):
- the kernel and gdb: which pages of files were resident, whether a mapping of a file is shared, swap, and names
  that the process gave to anonymous memory;
- gdb: mappings that it does not dump (vvar, vsyscall), and untouched pages from pages of zeros.
heapcensus core keeps all of it: nothing but time and source is left out of the comparison."""
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

from builds import BUILD, TOOL, Running, all_builds, settings_of
from lib import no_huge_pages

SCRATCH = os.path.join(BUILD, "cores")
FILTERS = (0x33, 0x3F, 0x7)
count = failed = 0


def ok(good, name, detail=""):
    global count, failed
    count += 1
    failed += not good
    print("%s %d - %s" % ("ok" if good else "not ok", count, name), flush=True)
    if not good:
        print("\n".join("# " + line for line in str(detail)[:4000].splitlines()[:40]), flush=True)


def skip(name, reason):
    global count
    count += 1
    print("ok %d - %s # SKIP %s" % (count, name, reason), flush=True)


def in_target():
    no_huge_pages()
    resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def census(*args, prefix=(TOOL,)):
    """The snapshot's records by name, in order; and the finished run."""
    run = subprocess.run([*prefix, "snapshot", *[str(a) for a in args], "-o", "-"], capture_output=True, text=True,
                         timeout=120, errors="surrogateescape")
    records = {}
    for line in run.stdout.splitlines():
        record = json.loads(line)
        records.setdefault(record["record"], []).append(record)
    return run, records


# ---- comparing two snapshots ----

def header_facts(header):
    return {k: header[k] for k in ("python", "libc", "redacted")}


def plain(records):
    """Everything but time and source: also not the notes about the source itself."""
    kept = {name: rows for name, rows in records.items() if name not in ("header", "end")}
    kept["note"] = [n for n in kept.get("note", []) if not re.match(r"(core|modules?|source)\.", n["what"])]
    kept["header"] = [header_facts(records["header"][0])]
    return kept


def own_memory(mapping):
    return mapping["kind"] in ("anonymous", "heap", "stack")


def named(mapping):
    return (mapping["path"] or "").startswith("[anon")


def forget(records, gdb, root="", dontdump=(), resident=True):
    """What a core of the kernel (or gdb) cannot tell, taken out of a snapshot. Paths in a core are those of the
    target's own root; nobody tells of pages that the program keeps out (MADV_DONTDUMP), gdb not of the mapping."""
    kept = plain(records)
    kept.pop("note", None)
    rows, bytes_of = [], {}
    for m in kept["mapping"]:
        if gdb and (m["kind"] == "kernel" or m["address"] in dontdump):
            continue
        row = {k: m[k] for k in ("address", "bytes", "offset", "kind", "path")}
        row["perms"] = m["perms"][:3]
        if named(m):
            row["path"] = None
        elif root and (m["path"] or "").startswith(root + "/"):
            row["path"] = m["path"][len(root):]
        tally = m["categories"]
        row["categories"] = [[c["name"], c["bytes"], c["count"]] for c in tally]
        if gdb and m["kind"] == "file" and row["perms"][1] != "w":
            row["perms"] = ""
        if own_memory(m) and not gdb and resident and m["address"] not in dontdump:
            row["resident_bytes"] = m["resident_bytes"]
            row["resident"] = [[c["name"], c["resident_bytes"]] for c in tally]
        rows.append(row)
        for c in tally:
            bytes_of[c["name"]] = bytes_of.get(c["name"], 0) + c["bytes"]
    kept["mapping"] = rows
    kept["memory"] = [bytes_of]
    if gdb or not resident:
        kept["arena"] = [{k: v for k, v in a.items() if k != "resident_bytes"} for a in kept.get("arena", [])]
    return kept


def heaps(records):
    """What can be counted without a file of the target: not the frame stacks of 3.11 and 3.12, whose runtime
    only a symbol tells; they are unknown then."""
    kept = {}
    for name in ("pymalloc", "arena", "malloc", "malloc_arena"):
        rows = [{k: v for k, v in r.items() if not k.startswith(("top_", "resident"))} for r in records.get(name, [])]
        for row in rows:  # nor the names of types
            if "size_classes" in row:
                row["size_classes"] = [{k: v for k, v in c.items() if not k.startswith("top_")} for c in row["size_classes"]]
        kept[name] = rows
    return kept


def differences(one, other):
    """Records of which the two snapshots do not have the same, named."""
    found = []
    for name in sorted(one.keys() | other.keys()):
        a, b = one.get(name, []), other.get(name, [])
        if len(a) != len(b):
            found.append("%s: %d and %d records" % (name, len(a), len(b)))
        for x, y in zip(a, b):
            if x != y:
                parts = ["%s: %s, %s" % (k, x.get(k), y.get(k)) for k in sorted(set(x) | set(y)) if x.get(k) != y.get(k)]
                found.append("%s %s: %s" % (name, x.get("address", ""), "; ".join(parts)))
    return found


def check_sums(records):
    memory = records["memory"][0]
    wrong = []
    for key, total in (("bytes", "mapped_bytes"), ("resident_bytes", "rss_bytes")):
        sums = (sum(c[key] for c in memory["categories"]), sum(m[key] for m in records["mapping"]))
        if sums != (memory[total], memory[total]):
            wrong.append("%s: categories and mappings sum to %s, not %d" % (key, sums, memory[total]))
    return wrong


def dontdump_of(pid):
    """Addresses of the mappings with the flag dd (MADV_DONTDUMP)."""
    found, address = set(), None
    for line in open("/proc/%d/smaps" % pid):
        words = line.split()
        if re.match(r"[0-9a-f]+-[0-9a-f]+$", words[0]):
            address = "0x%x" % int(words[0].split("-")[0], 16)
        elif words[0] == "VmFlags:" and "dd" in words:
            found.add(address)
    return found


def compare(name, live, run, records, gdb=False, exact=False, bare=False, root="", dontdump=(), resident=True):
    """One core's snapshot against the live one; True when nothing differs."""
    if run.returncode != 0 or "memory" not in records:
        ok(False, name, "exit %d\n%s" % (run.returncode, run.stderr))
        return
    if exact:
        wrong = differences(plain(live), plain(records))
    elif bare:
        wrong = differences(heaps(live), heaps(records))
    else:
        wrong = differences(*(forget(r, gdb, root or "", dontdump, resident) for r in (live, records)))
    ok(not wrong, name, "\n".join(wrong + check_sums(records)))


# ---- the cores of one target ----

def sysroot(build):
    return ["--sysroot", build.root] if build.root else []


def own_core(target, build, live, name):
    core = os.path.join(SCRATCH, "own.core")
    run = subprocess.run([TOOL, "core", str(target.pid), "-f", "-o", core], capture_output=True, text=True, timeout=120)
    if run.returncode != 0:
        ok(False, name + ", heapcensus core", "exit %d\n%s" % (run.returncode, run.stderr))
        return
    run, records = census(core, *sysroot(build))
    compare(name + ", heapcensus core", live, run, records, exact=True)
    os.unlink(core)


def gdb_core(target, build, live, name):
    core = os.path.join(SCRATCH, "gdb")
    dontdump = dontdump_of(target.pid)
    subprocess.run(["gcore", "-o", core, str(target.pid)], capture_output=True, timeout=120)
    core += ".%d" % target.pid
    run, records = census(core, *sysroot(build))
    compare(name + ", gcore", live, run, records, gdb=True, root=build.root, dontdump=dontdump)
    check_cut(core, live, name + ", gcore", 60)  # its notes, at its end, are lost
    os.unlink(core)


def kernel_core(target, build, filter_bits):
    """Abort the target and fetch its core; None when the kernel wrote none."""
    with open("/proc/%d/coredump_filter" % target.pid, "w") as f:
        f.write(hex(filter_bits))
    os.kill(target.pid, signal.SIGABRT)
    target.process.wait()
    core = os.path.join(build.root or target.outside, "core")
    return core if os.path.exists(core) else None


def check_kernel_core(target, build, live, name, filter_bits):
    dontdump = dontdump_of(target.pid)
    core = kernel_core(target, build, filter_bits)
    if not core:
        ok(False, name, "the kernel wrote no core")
        return
    kept = os.path.join(SCRATCH, "kernel.core")
    os.rename(core, kept)
    run, records = census(kept, *sysroot(build))
    exact = bracketed(kept, live, records, build, dontdump) if run.returncode == 0 else True
    compare("%s, kernel 0x%x" % (name, filter_bits), live, run, records, root=build.root, dontdump=dontdump,
            resident=exact)
    return kept


def own_resident(records, dontdump):
    return {m["address"]: m["resident_bytes"] for m in records["mapping"]
            if own_memory(m) and m["address"] not in dontdump}


def bracketed(core, live, records, build, dontdump):
    """Whether the resident bytes can be compared exactly. Now and then (ext4, large folios) the file system calls
    absent pages next to data data, too: then what the live census said must lie between that and a copy of the core in
    which every page of zeros is a hole."""
    before, after = own_resident(live, dontdump), own_resident(records, dontdump)
    if before == after or before.keys() != after.keys():
        return True
    sparse = core + ".sparse"
    subprocess.run(["cp", "--sparse=always", core, sparse], check=True)
    least = own_resident(census(sparse, *sysroot(build))[1], dontdump)
    os.unlink(sparse)
    print("# the file system's holes are not the kernel's: compared in a bracket", flush=True)
    return not all(least[a] <= before[a] <= after[a] for a in before)


# ---- without the target's files ----

def bare_root():
    """A folder for chroot with nothing but heapcensus and its libraries, all under /hc."""
    root = os.path.join(SCRATCH, "bare")
    home = os.path.join(root, "hc")
    shutil.rmtree(root, ignore_errors=True)
    os.makedirs(home)
    shutil.copy(TOOL, home)
    listed = subprocess.run(["ldd", TOOL], capture_output=True, text=True, check=True).stdout
    for path in re.findall(r"(/\S+) \(0x", listed):
        shutil.copy(path, home)
    os.makedirs(os.path.join(root, "proc"))
    return root


def bare_census(root, core):
    inside = os.path.join(root, "core")
    if os.path.exists(inside):
        os.unlink(inside)
    os.link(core, inside)
    loader = ["chroot", root, "/hc/ld-linux-x86-64.so.2", "--library-path", "/hc", "/hc/heapcensus"]
    found = census("/core", prefix=loader)
    os.unlink(inside)
    return found


# ---- cut short, compressed ----

def check_cut(core, live, name, percent):
    size = os.path.getsize(core)
    cut = os.path.join(SCRATCH, "cut.core")
    with open(core, "rb") as f:
        data = f.read(size * percent // 100)
    with open(cut, "wb") as f:
        f.write(data)
    run, records = census(cut)
    wrong = []
    if run.returncode != 6 or "memory" not in records:
        wrong.append("exit %d\n%s" % (run.returncode, run.stderr))
    else:
        wrong += check_sums(records)
        notes = [n for n in records.get("note", []) if n["what"] == "core.truncated"]
        if not notes or "%" not in notes[0]["why"]:
            wrong.append("no note about the coverage: %s" % records.get("note"))
        dump = records["header"][0]["source"]["dump"]
        if not 0 < dump["missing_bytes"] < dump["dumped_bytes"]:
            wrong.append("coverage %s" % dump)
        # what is cached in a list that is cut off looks used
        for name_of, keys in (("pymalloc", ("blocks_used",)), ("malloc", ("used_bytes", "cached_bytes"))):
            have, all_of = (sum(r.get(name_of, [{}])[0].get(k, 0) for k in keys) for r in (records, live))
            if have > all_of:
                wrong.append("%s %d, more than the %d that there are" % (name_of, have, all_of))
        text = subprocess.run([TOOL, cut], capture_output=True, text=True, timeout=60)
        if text.returncode != 6 or "of it is here" not in text.stdout:
            wrong.append("summary: exit %d\n%s" % (text.returncode, text.stdout[:300]))
    ok(not wrong, "%s, cut to %d %%" % (name, percent), "\n".join(wrong))
    os.unlink(cut)
    return records


def check_packed(core, live, name, build):
    plain_run, whole = census(core, *sysroot(build))
    for command, ending in ((["zstd", "-q", "-1"], ".zst"), (["lz4", "-q"], ".lz4"), (["xz", "-0", "-k"], ".xz"),
                            (["gzip", "-1", "-k"], ".gz")):
        packed = core + ending
        if os.path.exists(packed):
            os.unlink(packed)
        subprocess.run([*command, core] + ([packed] if ending == ".lz4" else []), check=True, timeout=120,
                       stdout=subprocess.DEVNULL)
        before = set(os.listdir(SCRATCH))
        run = subprocess.run([TOOL, "snapshot", packed, *sysroot(build), "-o", "-"], capture_output=True, text=True,
                             timeout=120, env=dict(os.environ, TMPDIR=SCRATCH))
        records = {}
        for line in run.stdout.splitlines():
            record = json.loads(line)
            records.setdefault(record["record"], []).append(record)
        wrong = [] if run.returncode == 0 else ["exit %d\n%s" % (run.returncode, run.stderr)]
        if not wrong:
            wrong = differences(forget(whole, True), forget(records, True)) + check_sums(records)
            if records["header"][0]["source"]["dump"]["packed"] is None:
                wrong.append("not told as compressed")
        if set(os.listdir(SCRATCH)) != before:
            wrong.append("left behind: %s" % (set(os.listdir(SCRATCH)) - before))
        ok(not wrong, "%s, %s" % (name, ending), "\n".join(wrong))
        os.unlink(packed)


# ---- ----

def check_build(build, bare):
    for i, (setting, allocator) in enumerate(settings_of(build)):
        env = {"PYTHONMALLOC": setting} if setting else {}
        name = "%s, %s" % (build.name, allocator)
        for filter_bits in FILTERS if i == 0 else FILTERS[:1]:
            with Running(build, env, in_target) as target:
                target.status()
                run, live = census(target.pid)
                if run.returncode != 0:
                    ok(False, name, "exit %d\n%s" % (run.returncode, run.stderr))
                    continue
                if filter_bits == FILTERS[0]:
                    own_core(target, build, live, name)
                    if i == 0:
                        gdb_core(target, build, live, name)
                core = check_kernel_core(target, build, live, name, filter_bits)
                if core and filter_bits == FILTERS[0]:
                    run, records = bare_census(bare, core)
                    compare(name + ", without the files", live, run, records, bare=True)
                    if i == 0:
                        for percent in (90, 50, 10):
                            check_cut(core, live, name, percent)
                    if i == 0 and build.name.startswith("system"):
                        check_packed(core, live, name, build)
                if core:
                    os.unlink(core)


def main():
    wanted = sys.argv[1:]
    os.makedirs(SCRATCH, exist_ok=True)
    with open("/proc/sys/kernel/core_pattern") as f:
        pattern = f.read().strip()
    if pattern != "core":
        skip("cores of the kernel", "core_pattern sends cores elsewhere")
        print("1..%d" % count)
        return
    bare = bare_root()
    for build in all_builds(skip):
        if wanted and not any(w in build.name for w in wanted):
            continue
        try:
            check_build(build, bare)
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            ok(False, build.name, "%s: %s" % (type(error).__name__, error))
    shutil.rmtree(SCRATCH, ignore_errors=True)
    print("1..%d" % count)


main()
