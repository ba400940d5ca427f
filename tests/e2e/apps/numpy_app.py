"""numpy, and pandas if it is there: arrays kept and freed, a frame of a million rows, a grouping of it."""
import sys

import numpy

rng = numpy.random.default_rng(1)
kept = [rng.random(size) for size in (10, 1000, 100_000, 3_000_000)]
small = [numpy.full(i % 60 + 1, i) for i in range(20_000)]
del small[::2]
product = kept[2][:40_000].reshape(200, 200) @ kept[2][40_000:80_000].reshape(200, 200)
rows = 0
if "pandas" in sys.argv:
    import pandas

    ROWS = 1_000_000
    frame = pandas.DataFrame({"number": numpy.arange(ROWS), "value": rng.random(ROWS),
                              "name": [f"name{i % 1000}" for i in range(ROWS)]})
    sums = frame.groupby("name")["value"].agg(["sum", "mean", "count"])
    rows = int(sums["count"].sum())
trace = float(product.trace())
print("READY", rows, flush=True)
for line in sys.stdin:
    print("echo", float((product * 1.0).trace()) == trace, len(small), flush=True)
