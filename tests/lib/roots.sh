#!/usr/bin/env bash
# Debian of other days under build/roots/SUITE, for their interpreters and their glibc:
#
#     roots.sh [SUITE...]      default: bullseye trixie sid
#
# Each is made once (the stamp is its last step) by debootstrap from the mirror that this machine's
# own apt uses, and made anew when it is broken. A suite that cannot be installed leaves the reason
# in build/roots/SUITE.why, and its tests are skipped by that name.
# HEAPCENSUS_ROOTS names another folder, with roots that are made already or are to be made there.
set -u
cd "$(dirname "$0")/../.." || exit 1
roots=${HEAPCENSUS_ROOTS:-build/roots}
suites=("$@")
[ ${#suites[@]} -gt 0 ] || suites=(bullseye trixie sid)

# The URI of Debian's main archive in apt's sources, of either form; not its security archive.
mirror() {
    {
        sed -n 's/^deb\(-src\)\? \+\(\[[^]]*\] *\)\?\([^ ]*\) .*/\3/p' \
            /etc/apt/sources.list /etc/apt/sources.list.d/*.list
        sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/*.sources | tr ' ' '\n'
    } 2>/dev/null | grep -E '/debian/?$' | grep -v security | head -1
}

is_whole() {
    [ -x "$1/bin/sh" ] && ls "$1"/usr/bin/python3.[0-9]* >/dev/null 2>&1
}

is_ready() {
    is_whole "$1" && { [ -e "$1/.heapcensus-root" ] || [ -n "${HEAPCENSUS_ROOTS:-}" ]; }
}

why() {
    echo "$2" >"$roots/$1.why"
    echo "roots.sh: $1: $2" >&2
}

# The names of the python3.N packages of a root's own apt lists, whatever they are that day.
pythons_of() {
    chroot "$1" apt-cache pkgnames python3. 2>/dev/null | grep -xE 'python3\.[0-9]+' | sort -V
}

install_pythons() {
    local root=$1 suite=$2 p want=()
    if [ "$suite" = sid ]; then # all that are there; elsewhere the release has one
        chroot "$root" apt-get -q update
    fi
    for p in $(pythons_of "$root"); do
        want+=("$p" "$p-dbg")
        [ "$suite" = sid ] && want+=("lib$p-dev")
    done
    [ ${#want[@]} -gt 0 ] || return 1
    chroot "$root" env DEBIAN_FRONTEND=noninteractive \
        apt-get -q -y --no-install-recommends install "${want[@]}"
}

make_root() {
    local suite=$1 root=$2 uri=$3 log=$roots/$1.log
    rm -rf --one-file-system "$root"
    mkdir -p "$root"
    if ! debootstrap --variant=minbase "$suite" "$root" "$uri" >"$log" 2>&1; then
        why "$suite" "debootstrap of $suite failed: $(tail -1 "$log" | sed "s|$uri|the mirror|g")"
        return 1
    fi
    # Services must not start in there, and apt needs the network's names.
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
    chmod +x "$root/usr/sbin/policy-rc.d"
    cp /etc/resolv.conf "$root/etc/resolv.conf" 2>/dev/null
    if ! install_pythons "$root" "$suite" >>"$log" 2>&1; then
        why "$suite" "no Python could be installed into $suite"
        return 1
    fi
    chroot "$root" apt-get clean
    touch "$root/.heapcensus-root"
    rm -f "$roots/$suite.why"
}

ensure() {
    local suite=$1 root=$roots/$1 uri
    is_ready "$root" && return 0
    # A failed attempt is not repeated within the hour.
    if [ -n "$(find "$roots/$suite.why" -mmin -60 2>/dev/null)" ]; then
        return 0
    fi
    if [ "$(id -u)" != 0 ]; then
        why "$suite" "debootstrap needs root"
        rm -rf "$root" 2>/dev/null
        return 0
    fi
    if ! command -v debootstrap >/dev/null; then
        why "$suite" "debootstrap is not installed"
        return 0
    fi
    uri=$(mirror)
    if [ -z "$uri" ]; then
        why "$suite" "apt's sources name no Debian mirror"
        return 0
    fi
    echo "roots.sh: installing Debian $suite into $root (once)" >&2
    make_root "$suite" "$root" "$uri" || rm -rf --one-file-system "$root"
}

mkdir -p "$roots" || exit 1
for suite in "${suites[@]}"; do
    is_ready "$roots/$suite" && continue
    # Two test files may ask for the same root at once: the second waits for the first.
    (
        flock 9
        ensure "$suite"
    ) 9>"$roots/$suite.lock"
done
exit 0
