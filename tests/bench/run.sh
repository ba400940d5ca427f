#!/bin/sh
# make bench
here=$(dirname "$0")
python3 "$here/run.py" "$@" && python3 "$here/cores.py" && exec python3 "$here/types_bench.py"
