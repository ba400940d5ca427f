"""What bounds the look at every block: the pause that is allowed, and whoever presses Ctrl-C."""
import json
import signal
import subprocess
import time

from lib import PROGRAM, describe, environment, heapcensus, main, start_python, survived, wait_for

HEAP = """
import gc, time
gc.disable()
class Node:
    def __init__(self, i): self.name, self.next = str(i), [i]
keep = [Node(i) for i in range(400000)]
print('READY', flush=True)
while True: time.sleep(0.02)
"""


def test_pause(tap):
    """Types are left out where copying what they need would take longer than the pause may, and where nobody asked."""
    with start_python(HEAP) as target:
        done = heapcensus(target.pid, "--json", "--max-pause", "20")
        doc = json.loads(done.stdout)
        tap.ok(any(n["what"] == "types.skipped" for n in doc["notes"]), "a short pause: said so", describe(done))
        tap.ok(doc["objects"] is None and doc["pymalloc"]["blocks_used"] > 1000000, "... no types, but all blocks",
               describe(done))
        done = heapcensus(target.pid, "--json", "--max-pause", "20", "--no-types")
        tap.ok(all(n["what"] != "types.skipped" for n in json.loads(done.stdout)["notes"]), "--no-types: nothing to say of them",
               describe(done))
        done = heapcensus("types", target.pid, "--json", "--max-pause", "20")
        doc = json.loads(done.stdout)
        nodes = [t for t in doc["types"] if t["name"] == "__main__.Node"]
        tap.ok(nodes and nodes[0]["count"] > 300000, "types: counted all the same", describe(done))
        done = heapcensus(target.pid, "--json")
        doc = json.loads(done.stdout)
        tap.ok(doc["objects"]["objects"] > 1200000 and not doc["notes"], "the usual pause: types", describe(done))
        tap.ok(wait_for(lambda: survived(target.pid)), "it lives on")


def test_interrupt(tap):
    """Ctrl-C during the passes over millions of blocks: an answer at once, and nothing printed."""
    with start_python(HEAP) as target:
        begun = time.monotonic()
        heapcensus("types", target.pid)
        whole = time.monotonic() - begun
        ends, codes = [], set()
        for k in range(1, 9):
            run = subprocess.Popen([PROGRAM, "types", str(target.pid)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   env=environment())
            time.sleep(whole * k / 10)
            begun = time.monotonic()
            run.send_signal(signal.SIGINT)
            out, _ = run.communicate(timeout=60)
            ends.append(time.monotonic() - begun)
            codes.add((run.returncode, out == b""))
        usual = sorted(ends)[len(ends) // 2]
        tap.say(f"whole run {whole * 1e3:.0f} ms, usual end {usual * 1e3:.0f} ms, slowest {max(ends) * 1e3:.0f} ms")
        tap.ok(codes <= {(130, True), (0, False), (-signal.SIGINT, True)}, "ends as interrupted, or was done", codes)
        tap.ok((130, True) in codes, "one at least was interrupted", codes)
        tap.ok(usual < max(0.25, whole / 2), "ends soon", ends)  # one may wait for the processor
        tap.ok(wait_for(lambda: survived(target.pid)), "it lives on")


if __name__ == "__main__":
    main(test_pause, test_interrupt)
