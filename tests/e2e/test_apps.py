"""Real programs at work: FastAPI under uvicorn, Django's own server, numpy, and pandas with a million rows.

All of the resident set must be accounted for, less than one percent of it as unknown, and the program must work on."""
import importlib.util
import json
import os
import urllib.request

from lib import (PYTHON, describe, main, proc_status, rollup, snapshot, start, survived, wait_for)

APPS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "apps")
UNKNOWN_LIMIT = 0.01


def missing(*packages):
    """The first Debian package that is not there, as a reason to skip."""
    for package in packages:
        if not importlib.util.find_spec(package):
            return f"python3-{package} is not installed"
    return None


def app(name, *args):
    target = start([PYTHON, os.path.join(APPS, name), *args])
    try:
        return target.wait_ready()
    except RuntimeError:
        target.kill()
        raise


def request(port, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    call = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"},
                                  method="GET" if body is None else "PUT")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(call, timeout=20) as answer:
        return answer.status, answer.read().decode()


def settled(pid):
    """Wait until the resident set has stayed the same for a moment: threads of a server end behind their answers."""
    def same():
        before = rollup(pid)["Rss"]
        wait_for(lambda: False, 0.2)
        return rollup(pid)["Rss"] == before
    wait_for(same)


def check_census(tap, name, pid, *options):
    """All that is promised of one census; its Snapshot."""
    settled(pid)
    before = rollup(pid)["Rss"]
    shot = snapshot(pid, *options)
    after = rollup(pid)["Rss"]
    memory = shot.one("memory")
    rows = memory["categories"]
    tap.ok(shot.done.returncode == 0, f"{name}: exit 0", describe(shot.done) + str(shot["note"][:10]))
    tap.ok(sum(c["bytes"] for c in rows) == memory["mapped_bytes"], f"{name}: categories add up to the mappings")
    tap.ok(sum(c["resident_bytes"] for c in rows) == memory["rss_bytes"], f"{name}: categories add up to the Rss")
    tap.ok(memory["rss_bytes"] in (before, after), f"{name}: the Rss of smaps_rollup",
           f"{before} before, {memory['rss_bytes']} counted, {after} after")
    unknown = sum(c["resident_bytes"] for c in rows if c["name"] == "unknown")
    paused = (shot.header["source"]["paused_ns"] or 0) / 1e6
    tap.say(f"{name}: {memory['rss_bytes'] / 2**20:.1f} MiB resident, unknown {100 * unknown / memory['rss_bytes']:.2f} %, "
            f"paused {paused:.1f} ms, {len(shot['note'])} notes")
    tap.ok(unknown < UNKNOWN_LIMIT * memory["rss_bytes"], f"{name}: less than 1 % is unknown",
           [m for m in shot["mapping"] if any(c["name"] == "unknown" for c in m["categories"])])
    tap.ok(wait_for(lambda: survived(pid)), f"{name}: lives on", proc_status(pid))
    check_objects(tap, name, shot)
    return shot


def check_objects(tap, name, shot):
    """How much of the blocks in use is nobody's: of Python's heap and of malloc's."""
    o = shot.one("objects")
    parts = [k for k in o if k.startswith("malloc_") and k.endswith("_bytes")]
    in_malloc = sum(o[k] for k in parts)
    in_python = sum(v for k, v in o.items() if k.endswith("_bytes") and k not in parts) - in_malloc
    python = (o["unowned_bytes"] - o["malloc_unowned_bytes"]) / in_python
    malloc, inferred = o["malloc_unowned_bytes"] / in_malloc, o["inferred_bytes"] / (in_python + in_malloc)
    tap.say(f"{name}: {o['objects']} objects of {len(shot['type'])} types; unowned: {100 * python:.2f} % of Python's blocks, "
            f"{100 * malloc:.1f} % of malloc ({o['malloc_unowned_bytes'] / 2**20:.1f} of {in_malloc / 2**20:.1f} MiB); "
            f"inferred {100 * inferred:.1f} %")
    tap.ok(python <= 0.01, f"{name}: at most 1 % of Python's blocks are nobody's", o)
    if "pandas" in name:  # elsewhere C libraries (sqlite, OpenSSL) keep what no Python object points to
        tap.ok(malloc <= 0.10, f"{name}: at most 10 % of malloc in use are nobody's", o)
    tap.ok(sum(t["count"] for t in shot["type"]) == o["objects"], f"{name}: the types add up to the objects")


def test_fastapi(tap):
    reason = missing("fastapi", "uvicorn")
    if reason:
        return tap.skip("fastapi under uvicorn", reason)
    with app("fastapi_app.py") as target:
        port = int(target.ready)
        for i in range(200):
            request(port, f"/orders/{i}", {"customer": f"c{i}", "items": ["tea"] * (i % 20), "total": i * 1.5})
        shot = check_census(tap, "fastapi", target.pid)
        tap.ok(shot.one("pymalloc")["blocks_used"] > 50000, "fastapi: Python's blocks", shot["pymalloc"])
        status, text = request(port, "/orders/7")
        tap.ok(status == 200 and json.loads(text)["customer"] == "c7", "fastapi: answers afterwards", text)


def test_django(tap):
    reason = missing("django")
    if reason:
        return tap.skip("django", reason)
    with app("django_app.py") as target:
        port = int(target.ready)
        for i in range(30):
            request(port, f"/add/{i}")
            request(port, "/users")
        check_census(tap, "django", target.pid)
        status, text = request(port, "/users")
        tap.ok(status == 200 and "user29@example.org" in text, "django: answers afterwards", text)


def mmapped(shot):
    return sum(c["resident_bytes"] for c in shot.one("memory")["categories"] if c["name"] == "malloc.mmapped")


def test_numpy(tap):
    reason = missing("numpy")
    if reason:
        return tap.skip("numpy", reason)
    with app("numpy_app.py") as target:
        shot = check_census(tap, "numpy", target.pid)
        dtypes = [t for t in shot["type"] if t["name"].startswith("numpy.dtype[") and t["statics"]]
        tap.ok(len(dtypes) >= 20 and all(t["statics"] == 1 for t in dtypes), "numpy: its static dtypes, one of each", dtypes)
        tap.ok(mmapped(shot) >= 24_000_000, "numpy: the large arrays are mmapped chunks", shot.one("memory"))
        target.send("go on")
        tap.ok(target.line() == "echo True 10000", "numpy: works on")


def test_pandas(tap):
    reason = missing("numpy", "pandas")
    if reason:
        return tap.skip("pandas", reason)
    with app("numpy_app.py", "pandas") as target:
        tap.ok(target.ready == "1000000", "pandas: the test itself", target.ready)
        for way in ("copy", "window"):
            check_census(tap, f"pandas, --read {way}", target.pid, "--read", way)
        target.send("go on")
        tap.ok(target.line() == "echo True 10000", "pandas: works on")


if __name__ == "__main__":
    main(test_fastapi, test_django, test_numpy, test_pandas)
