#!/usr/bin/env bash
# A few thousand inputs through every fuzzer, or those named, as TAP: fuzz_smoke.sh [BINARY...]
# The seed is fixed, so that a failure can be repeated; FUZZ_SEED and FUZZ_ITERATIONS change what is
# run. Long runs: make fuzz.
cd "$(dirname "$0")/../.." || exit 1
iterations=${FUZZ_ITERATIONS:-3000}
seed=${FUZZ_SEED:-1}
n=0
failed=0
[ $# -gt 0 ] || set -- "${BUILD:-build}"/san/fuzz/fuzz_*
for fuzzer in "$@"; do
    case $fuzzer in
    *.d | *'*') continue ;;
    esac
    n=$((n + 1))
    if out=$(timeout -k 5 90 "$fuzzer" "$iterations" "$seed" 2>&1); then
        echo "ok $n - $(basename "$fuzzer"): $iterations inputs, seed $seed"
    else
        rc=$?
        failed=1
        echo "not ok $n - $(basename "$fuzzer"): $iterations inputs, seed $seed: exit $rc"
        tail -40 <<<"$out" | sed 's/^/# /'
    fi
done
echo "1..$n"
exit $failed
