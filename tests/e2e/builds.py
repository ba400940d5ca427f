"""The interpreters of the matrix: the system's, pyenv's (whole and stripped), Debian's suites; and the
target that runs on each of them."""
import array
import glob
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
# Two test files may run at the same time: each has folders of its own.
MINE = os.path.splitext(os.path.basename(sys.argv[0]))[0]


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
    folder = os.path.join(BUILD, "stripped", MINE, version)
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


def root_builds(suite, skip):
    roots = os.environ.get("HEAPCENSUS_ROOTS", os.path.join(TOP, "build", "roots"))
    subprocess.run([TOP + "/tests/lib/roots.sh", suite], capture_output=True)
    root, why = os.path.realpath(os.path.join(roots, suite)), os.path.join(roots, suite + ".why")
    if not glob.glob(root + "/usr/bin/python3.*"):
        reason = open(why).read().strip() if os.path.exists(why) else "roots.sh gave no reason"
        skip("Debian " + suite, "the suite could not be installed: " + reason)
        return []
    names = sorted(os.path.basename(p) for p in glob.glob(root + "/usr/bin/python3.*"))
    return [Build("%s %s" % (suite, n), ["/usr/bin/" + n], root) for n in names if re.match(r"python3\.\d+(-dbg)?$", n)]


class Running:
    """The target, started and idle, with its truth."""

    def __init__(self, build, env, preexec_fn=None):
        folder = "matrix." + MINE
        self.outside = os.path.join(build.root, "tmp", folder) if build.root else os.path.join(BUILD, folder)
        inside = "/tmp/" + folder if build.root else self.outside
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
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=everything,
                                        cwd=self.outside, preexec_fn=preexec_fn)
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


def all_builds(skip):
    """Every build there is; skip(name, reason) for the rest."""
    builds = [Build("system " + os.path.basename(os.path.realpath("/usr/bin/python3")), ["/usr/bin/python3"])]
    pyenv = pyenv_builds()
    if not pyenv:
        skip("pyenv", "no interpreters of pyenv on this machine")
    builds += pyenv
    for suite in ("bullseye", "trixie", "sid"):
        builds += root_builds(suite, skip)
    return builds


def settings_of(build):
    """The allocators that a build knows: pairs of PYTHONMALLOC and the name in the census."""
    settings = [("", "pymalloc_debug" if build.name.endswith("-dbg") else "pymalloc"), ("debug", "pymalloc_debug"),
                ("malloc", "malloc")]
    if int(re.search(r"3\.(\d+)", build.name).group(1)) >= 13:
        settings.append(("mimalloc", "mimalloc"))
    return settings
