#!/bin/sh
# make bench
here=$(dirname "$0")
python3 "$here/run.py" "$@" && exec python3 "$here/cores.py"
