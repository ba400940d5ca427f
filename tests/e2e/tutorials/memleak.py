"""Five steps of np.ones(10000) appended: each 78.1 KiB at one line of numpy."""
import gc
import tracemalloc

import numpy as np

import inside

arr = []


def mem_leaker():
    """Appends to a global array in order to simulate a memory leak."""
    arr.append(np.ones(10000, dtype=np.int64))


if __name__ == "__main__":
    tracemalloc.start(10)
    for _ in range(5):
        mem_leaker()
        gc.collect()
        inside.tell()
