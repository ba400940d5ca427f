"""What is traced and what is not: before start(), a second start(), clear_traces(), stop()."""
import tracemalloc

import inside


def main():
    before = [20] * 3000
    tracemalloc.start(3)
    first = [20] * 5000
    tracemalloc.start(3)
    second = [30] * 7000
    one = bytes(5000)
    frame = tracemalloc.get_object_traceback(one)[-1]
    inside.tell(address=id(one), allocated=[frame.filename, frame.lineno])
    tracemalloc.clear_traces()
    third = [40] * 9000
    inside.tell()
    tracemalloc.reset_peak()
    inside.tell()
    tracemalloc.stop()
    print("TOLD {}", flush=True)
    input()
    return before, first, second, one, third


main()
