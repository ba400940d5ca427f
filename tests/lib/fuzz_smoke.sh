#!/bin/sh
# A fuzzer's deterministic smoke as TAP: fuzz_smoke.sh BINARY
name=$(basename "$1")
if timeout 120 "$1" "${FUZZ_ITERATIONS:-3000}" 1 >"${TMPDIR:-/tmp}/$name.$$" 2>&1; then
    echo "ok 1 - $name: ${FUZZ_ITERATIONS:-3000} mutations"
else
    echo "not ok 1 - $name"
    tail -n 40 "${TMPDIR:-/tmp}/$name.$$" | sed 's/^/# /'
fi
rm -f "${TMPDIR:-/tmp}/$name.$$"
echo 1..1
