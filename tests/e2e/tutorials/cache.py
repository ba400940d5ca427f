"""Before and after: a cache of 10,000 strings; then a list of 200,000 integers that comes and goes."""
import gc
import tracemalloc

import inside


def fill(cache):
    for i in range(10000):
        cache[i] = f"value_{i}" * 100


def main():
    tracemalloc.start()
    inside.tell()
    cache = {}
    fill(cache)
    inside.tell()
    data = list(range(200_000))
    inside.tell()
    del data
    gc.collect()
    inside.tell()


main()
