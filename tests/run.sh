#!/usr/bin/env bash
# Runs the tests and adds up: tests/run.sh [unit] [FILE|NAME...]
#
#   unit      only what needs no other process: unit tests, fuzz smokes, the rooms
#   FILE...   only these test files
#   NAME...   only the test files whose name contains one of these
#
# The last line is `N passed, N failed, N skipped`; the exit status is 0 iff nothing failed. With CI
# set in the environment a skip whose reason docs/HOWTO-TEST.md does not name is a failure.
# HEAPCENSUS_JOBS (2) test files run at once; their output is kept in $BUILD/tap.
set -u
cd "$(dirname "$0")/.." || exit 1

jobs=${HEAPCENSUS_JOBS:-2}
export BUILD=${BUILD:-build}
dir=$PWD/$BUILD/tap
only=()
unit=no
for word in "$@"; do
    case $word in
    unit) unit=yes ;;
    */*) # a file: known by its name
        word=$(basename "$word")
        only+=("=${word%.*}")
        ;;
    *) only+=("$word") ;;
    esac
done
rm -rf "$dir"
mkdir -p "$dir" || exit 1
list=$dir/list
: >"$list"

# add NAME SECONDS COMMAND: commands are words of ours, without blanks in them
add() {
    local name=$1 word
    if [ ${#only[@]} -gt 0 ]; then
        for word in "${only[@]}"; do
            if [ "=$name" = "$word" ] || [[ $name == *"$word"* ]]; then
                echo "$*" >>"$list"
                return
            fi
        done
        return
    fi
    echo "$*" >>"$list"
}

# The long ones first, so that the two lanes end together.
if [ $unit = no ]; then
    for t in tests/e2e/test_matrix.py tests/e2e/test_*.py; do
        grep -q " $t\$" "$list" || add "$(basename "$t" .py)" 900 /usr/bin/python3 "$t"
    done
    for t in tests/e2e/test_*.sh; do
        [ -e "$t" ] && add "$(basename "$t" .sh)" 900 bash "$t"
    done
fi
add rooms 300 bash tests/check_rooms.sh
add fuzz_smoke 600 bash tests/lib/fuzz_smoke.sh
for t in tests/unit/test_*.c; do
    add "$(basename "$t" .c)" 300 "$BUILD/san/unit/$(basename "$t" .c)"
done

# The results lie under the test's name.
twice=$(awk '{ print $1 }' "$list" | sort | uniq -d)
if [ -n "$twice" ]; then
    echo "run.sh: two tests have one name:" $twice >&2
    exit 2
fi

export ASAN_OPTIONS=${ASAN_OPTIONS:-abort_on_error=0:detect_leaks=1}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
# The roots are made before the clocks of the test files start.
if grep -qE 'test_(matrix|malloc|subinterpreters|cores|types|tracemalloc)' "$list"; then
    bash tests/lib/roots.sh
fi
xargs -P "$jobs" -d '\n' -I LINE bash -c 'exec bash tests/lib/tap_one.sh "$0" $1' "$dir" LINE <"$list"

named_skips() {
    sed -n '/^## Named skips/,/^## /s/^- `\([^`]*\)`.*/\1/p' docs/HOWTO-TEST.md 2>/dev/null
}
mapfile -t named < <(named_skips)

is_named() {
    local n
    for n in "${named[@]}"; do
        [[ $1 == *"$n"* ]] && return 0
    done
    return 1
}

if [ ! -s "$list" ]; then
    echo "run.sh: no test file is called like that: $*" >&2
    exit 2
fi

passed=0 failed=0 skipped=0
while read -r name _; do
    rc=$(cat "$dir/$name.rc" 2>/dev/null || echo 127)
    sum=$(awk -v RC="$rc" -f tests/lib/tap_sum.awk "$dir/$name.tap" 2>/dev/null) || sum="0 1 0"
    read -r p f s <<<"$sum"
    if [ "$f" != 0 ]; then
        echo
        echo "== $name failed =="
        sed -n 's/^bad /it is wrong as a test: /p' <<<"$sum"
        # The failed lines with the comments behind them, and the end of stderr.
        awk '/^not ok/ {show = 1} /^ok/ {show = 0} show' "$dir/$name.tap" | head -200
        tail -60 "$dir/$name.err"
    fi
    while read -r _ reason; do
        echo "skipped in $name: $reason"
        if [ -n "${CI:-}" ] && ! is_named "$reason"; then
            echo "  not named in docs/HOWTO-TEST.md, so it counts as a failure (CI is set)"
            f=$((f + 1)) s=$((s - 1))
        fi
    done < <(sed -n 's/^skip /skip /p' <<<"$sum")
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
done <"$list"

echo
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
