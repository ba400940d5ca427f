#!/usr/bin/env bash
# Runs one test file and keeps what it said: tap_one.sh DIR NAME SECONDS COMMAND...
# DIR/NAME.tap is its stdout, .err its stderr, .rc its exit status, .sec how long it took.
# A file that hangs is ended after SECONDS, with everything that it started in its process group.
dir=$1 name=$2 seconds=$3
shift 3
start=$(date +%s)
timeout -k 10 "$seconds" "$@" >"$dir/$name.tap" 2>"$dir/$name.err" </dev/null
rc=$?
echo $rc >"$dir/$name.rc"
echo $(($(date +%s) - start)) >"$dir/$name.sec"
printf '%-32s %s (%s s)\n' "$name" "$([ $rc = 0 ] && echo done || echo "exit $rc")" \
    "$(cat "$dir/$name.sec")"
exit 0
