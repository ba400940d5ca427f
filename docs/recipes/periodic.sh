#!/bin/sh
# Snapshots of a process from time to time, then what keeps growing: periodic.sh PID FOLDER [SECONDS] [TIMES]
set -eu
pid=$1 folder=$2 seconds=${3:-60} times=${4:-5}
heapcensus=${HEAPCENSUS:-heapcensus}
n=0
while [ "$n" -lt "$times" ]; do
    [ "$n" = 0 ] || sleep "$seconds"
    n=$((n + 1))
    "$heapcensus" snapshot "$pid" -q -o "$folder/$(printf %04d "$n").jsonl.gz"
done
"$heapcensus" trend --by line "$folder"/*.jsonl.gz
