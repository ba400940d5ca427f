"""100 MiB of bytes, twice, then freed, with the size of the process beside it."""
import sys
import tracemalloc

import inside

EMPTY_BYTES_SIZE = sys.getsizeof(b"")


def allocate_bytes(size):
    bytes_len = size - EMPTY_BYTES_SIZE
    return b"x" * bytes_len


def main():
    tracemalloc.start(25)
    inside.tell()
    a = allocate_bytes(100 * 1024 * 1024)
    inside.tell()
    b = allocate_bytes(100 * 1024 * 1024)
    inside.tell()
    del a
    inside.tell()
    del b
    inside.tell()


main()
