#!/usr/bin/env bash
# Long fuzzing with clang's libFuzzer: long.sh [SECONDS [FUZZER...]], 120 seconds for each.
#
# The corpus grows from run to run in build/libfuzzer/corpus/FUZZER. What crashes, leaks or takes
# longer than 10 seconds stays in build/libfuzzer/found; repeat it, under the sanitizers, with
#     build/san/fuzz/FUZZER FILE
set -u
cd "$(dirname "$0")/../.." || exit 1
seconds=${1:-120}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- $(basename -s .c tests/fuzz/fuzz_*.c)
dir=${BUILD:-build}/libfuzzer
clang=${CLANG:-clang}

if ! command -v "$clang" >/dev/null; then
    echo "long.sh: this needs clang (Debian: apt-get install clang)" >&2
    exit 1
fi
rooms="target walker cpython glibc walkcore formats base"
archives=
for room in $rooms; do archives+=" $dir/lib$room.a"; done
mkdir -p "$dir"
sanitize="-fsanitize=address,undefined -fno-sanitize-recover=undefined"

make -j"$(nproc)" --no-print-directory BUILD="$dir" CC="$clang" OPT='-O1 -g' \
    SAN="-fsanitize=fuzzer-no-link $sanitize" $archives >"$dir.log" 2>&1 || {
    tail -20 "$dir.log" >&2
    exit 1
}
mkdir -p "$dir/found"
failed=0
for fuzzer in "$@"; do
    mkdir -p "$dir/corpus/$fuzzer"
    # shellcheck disable=SC2046,SC2086 # words
    "$clang" -std=gnu11 -O1 -g -I. -pthread -fno-strict-aliasing -fsanitize=fuzzer $sanitize \
        -o "$dir/$fuzzer" "tests/fuzz/$fuzzer.c" $archives \
        $(pkg-config --cflags --libs libelf libdw jansson zlib libarchive) || exit 1
    echo "== $fuzzer for $seconds s"
    if ! "$dir/$fuzzer" -max_total_time="$seconds" -timeout=10 -max_len=65536 -rss_limit_mb=4096 \
        -artifact_prefix="$dir/found/$fuzzer-" -print_final_stats=1 "$dir/corpus/$fuzzer" \
        >"$dir/$fuzzer.log" 2>&1; then
        failed=1
        echo "   found something: see $dir/$fuzzer.log and $dir/found"
    fi
    grep -E '^stat::(number_of_executed_units|peak_rss_mb)|^SUMMARY' "$dir/$fuzzer.log" | sed 's/^/   /'
done
exit $failed
