"""Programs that nobody wrote for us: Debian's fastapi under uvicorn, django, numpy with pandas."""
import os
import socket
import sys
import time
import urllib.request

import lib

APPS = os.path.join(lib.ROOT, "tests", "e2e", "apps")


def has(tap, name, *modules):
    for module in modules:
        if lib.run([lib.PYTHON, "-c", "import " + module]).returncode != 0:
            tap.skip(name, "python3-%s is not installed" % module)
            return False
    return True


def visit(port, times):
    for i in range(times):
        urllib.request.urlopen("http://127.0.0.1:%d/keep/word%d" % (port, i), timeout=10).read()


def mapped_bytes(pid):
    total = 0
    with open("/proc/%d/maps" % pid) as f:
        for line in f:
            start, end = (int(x, 16) for x in line.split()[0].split("-"))
            total += end - start
    return total


def check(tap, name, pid):
    """The sums, the unknown part, and that nothing was left out."""
    time.sleep(0.3)
    rss, mapped = lib.rollup(pid)["Rss"], mapped_bytes(pid)
    snap = lib.snapshot(pid)
    memory = snap.one("memory")
    tap.ok(snap.done.returncode == 0 and snap.header["complete"], name + ": complete", snap["note"])
    sums = {k: sum(c[k] for c in memory["categories"]) for k in ("bytes", "resident_bytes")}
    tap.ok(sums["resident_bytes"] == memory["rss_bytes"] == rss, name + ": resident bytes sum to the kernel's Rss", (sums, rss))
    tap.ok(sums["bytes"] == memory["mapped_bytes"] == mapped, name + ": bytes sum to the mappings", (sums, mapped))
    unknown = next(c for c in memory["categories"] if c["name"] == "unknown")["resident_bytes"]
    tap.ok(unknown * 100 < rss, name + ": unknown is under 1 % of the resident set", (unknown, rss))
    tap.say("%s: %d of %d bytes unknown (%.3f %%)" % (name, unknown, rss, 100 * unknown / rss))
    tap.ok(lib.survived(pid), name + ": it runs on")


def test_fastapi(tap):
    if not has(tap, "fastapi under uvicorn", "fastapi", "uvicorn"):
        return
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [lib.PYTHON, "-m", "uvicorn", "--app-dir", APPS, "fastapi_app:app", "--port", port, "--log-level", "critical"]
    with lib.start(command) as target:
        lib.wait_for(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, 20)
        visit(port, 200)
        check(tap, "fastapi", target.pid)


def test_django(tap):
    if not has(tap, "django", "django"):
        return
    with lib.start([lib.PYTHON, APPS + "/django_app.py"]) as target:
        target.wait_ready()
        visit(int(target.ready), 100)
        check(tap, "django", target.pid)


def test_numpy(tap):
    if not has(tap, "numpy", "numpy"):
        return
    with lib.start([lib.PYTHON, APPS + "/numpy_app.py"]) as target:
        target.wait_ready()
        check(tap, "numpy and pandas", target.pid)


sys.exit(lib.Tap().run(test_fastapi, test_django, test_numpy))
