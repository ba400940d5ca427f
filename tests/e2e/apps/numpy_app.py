"""Arrays of all sizes, a matrix product (BLAS starts its threads), and a data frame of a million rows if pandas is there."""
import time

import numpy as np

small = [np.ones(10000) for _ in range(200)]
sparse = np.zeros(20_000_000)
sparse[:2_000_000] = 1
product = np.random.rand(500, 500) @ np.random.rand(500, 500)
try:
    import pandas as pd

    frame = pd.DataFrame({"a": np.arange(1_000_000), "b": ["s%d" % (i % 1000) for i in range(1_000_000)]})
    sums = frame.groupby("b").a.sum()
except ImportError:
    pass
print("READY 0", flush=True)
time.sleep(100000)
