#!/usr/bin/env bash
# Runs the tests and adds up their TAP: run.sh [unit|FILE...]. Ends with `N passed, N failed, N skipped`.
set -u
cd "$(dirname "$0")/.."
BUILD=${BUILD:-build}
export BUILD
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

# name<TAB>seconds<TAB>command
list() {
    printf 'rooms\t300\ttests/check_rooms.sh\n'
    for t in "$BUILD"/san/unit/test_*; do
        [[ $t == *.d ]] || printf '%s\t180\t%s\n' "unit/${t##*/}" "$t"
    done
    for t in "$BUILD"/san/fuzz/fuzz_*; do
        [[ $t == *.d ]] || printf '%s\t180\ttests/lib/fuzz_smoke.sh %s\n' "fuzz/${t##*/}" "$t"
    done
    [ "${1:-}" = unit ] && return
    for t in tests/e2e/test_*.py; do
        printf '%s\t900\t/usr/bin/python3 %s\n' "e2e/${t##*/}" "$t"
    done
}

# One test file: its TAP to a file, then its sums.
run_one() {
    local name=$1 limit=$2 log=$3
    shift 3
    local begun=$SECONDS status
    timeout -k 10 "$limit" "$@" >"$log" 2>&1 </dev/null
    status=$?
    awk -v name="$name" -v status="$status" -v took=$((SECONDS - begun)) '
        /^ok .*# *[Ss][Kk][Ii][Pp]/ { skipped++; next }
        /^ok /     { passed++; next }
        /^not ok / { failed++; next }
        /^1\.\.[0-9]+/ { split($1, p, /\.\./); plan = p[2]; planned = 1 }
        END {
            passed += 0; failed += 0; skipped += 0
            if (!planned) { failed++; why = " (died without a plan, status " status ")" }
            else if (passed + failed + skipped != plan) { failed++; why = " (planned " plan ")" }
            else if (status != 0 && failed == 0) { failed++; why = " (status " status ")" }
            printf "%s %d %d %d\n", "sum", passed, failed, skipped
            printf "%-28s %5d passed %3d failed %3d skipped %4d s%s\n", name, passed, failed, skipped, took, why
        }' "$log" >"$log.sum"
    tail -n 1 "$log.sum"
    if grep -q '^sum [0-9]* [1-9]' "$log.sum"; then
        echo "---- $name"
        if grep -q '^not ok' "$log"; then
            grep -A 12 '^not ok' "$log" | head -n 120
        fi
        tail -n 30 "$log"
        echo "----"
    fi
}

if [ $# -gt 0 ] && [ "$1" != unit ]; then
    i=0
    for f in "$@"; do
        i=$((i + 1))
        case $f in
        *.py) run_one "$f" 1800 "$out/$i" /usr/bin/python3 "$f" ;;
        *) run_one "$f" 1800 "$out/$i" "$f" ;;
        esac
    done
else
    # C tests and checks two at a time; the end-to-end tests likewise, behind them.
    i=0
    while IFS=$'\t' read -r name limit command; do
        i=$((i + 1))
        # shellcheck disable=SC2086 # the command is words
        run_one "$name" "$limit" "$out/$i" $command &
        while [ "$(jobs -rp | wc -l)" -ge 2 ]; do wait -n; done
    done < <(list "${1:-}")
    wait
fi

grep -h '# *[Ss][Kk][Ii][Pp]' "$out"/* 2>/dev/null | sed 's/^ok [0-9]* *-* */skipped: /' | sort | uniq -c
read -r passed failed skipped < <(cat "$out"/*.sum | awk '/^sum/ { p += $2; f += $3; s += $4 } END { print p + 0, f + 0, s + 0 }')
# A skip is a failure in CI unless docs/HOWTO-TEST.md names its reason.
if [ -n "${CI:-}" ]; then
    while IFS= read -r reason; do
        [ -n "$reason" ] || continue
        if ! grep -qF "$reason" docs/HOWTO-TEST.md; then
            echo "a skip without a named reason: $reason"
            failed=$((failed + 1))
        fi
    done < <(grep -h '# *[Ss][Kk][Ii][Pp]' "$out"/* 2>/dev/null | sed 's/.*# *[Ss][Kk][Ii][Pp] *//; s/:.*//' | sort -u)
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
