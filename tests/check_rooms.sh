#!/usr/bin/env bash
# The house's rules that a machine can check: the dependency law over #include lines and archives,
# headers that compile alone, what each room must never call, sizes, format. TAP.
set -u
cd "$(dirname "$0")/.."
BUILD=${BUILD:-build}
n=0
say() { # say OK NAME [DETAILS]
    n=$((n + 1))
    if [ "$1" = 1 ]; then
        echo "ok $n - $2"
    else
        echo "not ok $n - $2"
        printf '%s\n' "${3:-}" | head -n 20 | sed 's/^/# /'
    fi
}
none() { # none NAME OUTPUT: passes when there is no output
    if [ -z "$2" ]; then say 1 "$1"; else say 0 "$1" "$2"; fi
}
files() { git ls-files -c -o --exclude-standard -- "$@"; }
# Our own includes of some files that match none of the allowed patterns.
includes() { # includes ALLOWED FILES...
    local allowed=$1
    shift
    [ $# -gt 0 ] || return 0
    grep -HnE '^#include "' "$@" | grep -vE "#include \"($allowed)"
}

none "formats/base includes nothing of ours but itself" "$(includes 'formats/base/' $(files 'formats/base/*.[ch]'))"
none "formats includes formats only" "$(includes 'formats/' $(files 'formats/*.[ch]'))"
none "walker includes walker, formats/snapshot.h and base" \
    "$(includes 'walker/|formats/snapshot\.h|formats/base/' $(files 'walker/*.[ch]'))"
none "walker/cpython does not include walker/glibc" "$(includes 'walker/[a-z_]+\.h|walker/cpython/|formats/snapshot\.h|formats/base/' $(files 'walker/cpython/*.[ch]'))"
none "walker/glibc does not include walker/cpython" "$(includes 'walker/[a-z_]+\.h|walker/glibc/|formats/snapshot\.h|formats/base/' $(files 'walker/glibc/*.[ch]'))"
none "inspector/target includes mem.h, vma.h, layouts, base and itself" \
    "$(includes 'walker/mem\.h|walker/vma\.h|walker/[a-z]+/(layout\.h|fields\.def)|formats/base/|inspector/target/' $(files 'inspector/target/*.[ch]'))"
none "nobody includes the commands" "$(grep -HnE '#include "inspector/(cmd|census|census_core|coredump|doctor|hold|journal|plan|modules|progress|pause_guard)' $(files 'formats/*.[ch]' 'walker/*.[ch]' 'inspector/target/*.[ch]'))"
none "jansson only in formats/json_*.c" "$(grep -lE '#include <jansson.h>' $(files '*.[ch]') | grep -vE '^(formats/json_[a-z]+\.[ch]|tests/)')"
none "libarchive only in inspector/target/unpack.c" "$(grep -lE '#include <archive' $(files '*.[ch]') | grep -vE '^(inspector/target/unpack\.c|tests/)')"
none "libelf and libdw only in inspector" "$(grep -lE '#include <(elfutils/|libelf|gelf|dwarf)' $(files '*.[ch]') | grep -vE '^(inspector/|tests/)')"

code() { # the files' code without comments and strings, file:line:text
    for f in "$@"; do
        gcc -fpreprocessed -dD -E -P -x c "$f" 2>/dev/null | sed -E 's/"([^"\\]|\\.)*"/""/g' | sed "s|^|$f: |"
    done
}
none "the walker opens, prints and exits nothing" \
    "$(code $(files 'walker/*.c') | grep -E '\b(open|openat|fopen|printf|fprintf|puts|exit|_exit|abort|perror|ptrace|system|popen)\(')"
none "nothing in the product runs a program" \
    "$(code $(files 'formats/*.c' 'walker/*.c' 'inspector/*.c') | grep -E '\b(system|popen|fork|vfork|execv|execve|execvp|execl|execlp|posix_spawn[p]?)\(')"
none "no way to stop or read a target that could harm it" \
    "$(code $(files 'formats/*.[ch]' 'walker/*.[ch]' 'inspector/*.[ch]') | grep -E 'SIGSTOP\b|PTRACE_ATTACH|process_vm_readv|process_vm_writev|PTRACE_SINGLESTEP|PTRACE_O_EXITKILL|PTRACE_POKE|PTRACE_SETREG|PTRACE_SETFPREG|PTRACE_POKEUSER' | grep -vE 'stop\.c.*(==|!=|case) *SIGSTOP|group')"
# What is opened for writing is made by us at that moment.
none "/proc/PID/mem is never opened for writing" "$(code $(files 'inspector/*.c') | grep -E '\bO_(RDWR|WRONLY)\b' | grep -vE 'O_TMPFILE|O_CREAT *\| *O_EXCL')"
none "only main.c prints errors and exits" \
    "$(code $(files 'formats/*.c' 'walker/*.c' 'inspector/*.c') | grep -vE '^inspector/(main|layoutgen)\.c' | grep -E '\b(exit|_exit|abort)\(')"

bad=""
for h in $(files 'formats/*.h' 'walker/*.h' 'inspector/*.h' 'tests/*.h' | grep -vE 'layouts/|tables\.h|tests/(unit|fuzz)/'); do
    gcc -std=gnu11 -Wall -I. -fsyntax-only -x c "$h" -include stddef.h 2>"$BUILD/header.log" || bad="$bad$h
$(head -n 3 "$BUILD/header.log")
"
done
rm -f "$BUILD/header.log"
none "every header compiles alone" "$bad"

# Archives from the user to the used: what one leaves undefined must come from those behind it, from
# the C library or from the packages that its room may use.
rooms="target walker cpython glibc walkcore formats base"
declare -A libs=([target]='elf_|elfw?|gelf_|dwarf_|dwfl_' [formats]='json_|deflate|inflate|gz|crc32|adler|compress' )
ours=$(for r in $rooms; do nm -g --defined-only "$BUILD/lib$r.a" 2>/dev/null | awk 'NF == 3 { print $3 }'; done | sort -u)
seen=""
bad=""
for r in $rooms; do
    mine=$(nm -g --defined-only "$BUILD/lib$r.a" 2>/dev/null | awk 'NF == 3 { print $3 }' | sort -u)
    for s in $(nm -u "$BUILD/lib$r.a" 2>/dev/null | awk 'NF == 2 { print $2 }' | sort -u); do
        if grep -qx -- "$s" <<<"$seen"; then bad="$bad $r needs $s, which lies before it
"; fi
    done
    seen="$seen
$mine"
done
none "each archive needs only what lies behind it" "$bad"
bad=""
for r in cpython; do
    theirs=$(nm -g --defined-only "$BUILD/libglibc.a" | awk 'NF == 3 { print $3 }')
    for s in $(nm -u "$BUILD/lib$r.a" | awk 'NF == 2 { print $2 }' | sort -u); do
        if grep -qx -- "$s" <<<"$theirs"; then bad="$bad $r needs glibc's $s
"; fi
    done
done
none "walker/cpython and walker/glibc do not call each other" "$bad"

none "no file over 800 lines" "$(files '*.c' '*.h' '*.sh' '*.py' | grep -v 'cpython/layouts/' | xargs wc -l | awk '$2 != "total" && $1 > 800')"
none "the Makefile has at most 250 lines" "$(wc -l <Makefile | awk '$1 > 250')"
long=$(awk '
    FNR == 1 { open = 0 }
    /^[a-zA-Z].*\)$/ || /^ .*\)$/ { head = $0 }
    /^\{$/ { open = FNR; name = head }
    /^\}$/ { if (open && FNR - open > 100) printf "%s:%d: %s (%d lines)\n", FILENAME, open, name, FNR - open; open = 0 }
' $(files '*.c' | grep -v 'cpython/layouts/'))
none "no function over 100 lines" "$long"
if command -v clang-format >/dev/null; then
    none "clang-format has nothing to change" "$(clang-format -n --Werror $(files '*.c' '*.h' | grep -v 'cpython/layouts/') 2>&1 | grep -E 'error:|warning:' | head -n 10)"
else
    n=$((n + 1)); echo "ok $n - clang-format # SKIP clang-format is not installed"
fi
if command -v mandoc >/dev/null; then
    none "the man pages pass mandoc's lint" "$(mandoc -T lint -W warning docs/man/*.[0-9] 2>&1)"
else
    n=$((n + 1)); echo "ok $n - man pages # SKIP mandoc is not installed"
fi
echo "1..$n"
