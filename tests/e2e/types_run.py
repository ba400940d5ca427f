"""Starts types_target.py on an interpreter of the matrix and takes its census."""
import json
import os
import re
import shutil
import subprocess
import sys

from builds import BUILD, TOOL
from types_census import Census, Memory, Truth

HERE = os.path.dirname(os.path.abspath(__file__))
SCRIPTS = ("types_target.py", "types_population.py")
MINE = os.path.splitext(os.path.basename(sys.argv[0]))[0]


def minor_of(build):
    return int(re.search(r"3\.(\d+)", build.name).group(1))


class TypesTarget:
    """The target, started and idle, with its truth."""

    def __init__(self, build, setting, collecting=True):
        folder = "types." + MINE
        self.folder = os.path.join(build.root, "tmp", folder) if build.root else os.path.join(BUILD, folder)
        inside = "/tmp/" + folder if build.root else self.folder
        os.makedirs(self.folder, exist_ok=True)
        for script in SCRIPTS:
            shutil.copy(os.path.join(HERE, script), self.folder)
        command = build.command + ["-B", inside + "/types_target.py", inside, "enabled" if collecting else "disabled"]
        if build.root:
            command = ["chroot", build.root] + command
        env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        env.update(build.env, LC_ALL="C.UTF-8", **({"PYTHONMALLOC": setting} if setting else {}))
        self.minor = minor_of(build)
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, cwd=self.folder)
        self.pid = self.process.pid

    def __enter__(self):
        if self.process.stdout.read(1) != b"R":
            error = self.process.stderr.read().decode(errors="replace")
            self.process.wait()
            raise RuntimeError("the target did not start: " + error[-600:])
        self.truth = Truth(self.folder, self.minor)
        self.memory = Memory(self.pid)
        return self

    def __exit__(self, *args):
        if hasattr(self, "memory"):
            self.memory.close()
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()


def take(pid, *options):
    """The records of a snapshot with its blocks, by name; RuntimeError if the census failed."""
    run = subprocess.run([TOOL, "snapshot", str(pid), "--blocks", "-o", "-", *options], capture_output=True, timeout=60)
    records = {}
    for line in run.stdout.decode().splitlines():
        record = json.loads(line)
        records.setdefault(record["record"], []).append(record)
    missing = [r for r in ("header", "objects", "gc", "type", "blocks") if r not in records]
    if run.returncode != 0 or missing:
        raise RuntimeError("exit %d, without records of %s\n%s" % (run.returncode, missing, run.stderr.decode(errors="replace")))
    return records


def census_of(pid, *options):
    return Census(take(pid, *options))
