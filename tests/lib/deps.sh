#!/usr/bin/env bash
# Installs the Debian packages that are missing: those for building, and with `check` those for the
# tests. Fast, quiet and offline when everything is there. As root, or with sudo when there is one.
set -eu

build="gcc libc6-dev make pkg-config libelf-dev libdw-dev libjansson-dev zlib1g-dev
       libarchive-dev
       python3"
check="perl binutils strace debootstrap python3-jsonschema clang-format mandoc gdb jq procps util-linux
       gzip mount zstd lz4 xz-utils elfutils"
# Not in every release, and each is a named skip where it is missing: docs/HOWTO-TEST.md.
optional="libjemalloc2 libtcmalloc-minimal4 libtcmalloc-minimal4t64 libmimalloc2.0 libmimalloc3
          gcc-multilib golang-go python3-fastapi python3-uvicorn python3-django python3-numpy python3-pandas"

want_check=no
case "${1:-}" in
'') ;;
check) want_check=yes ;;
*)
    echo "usage: deps.sh [check]" >&2
    exit 2
    ;;
esac

if ! command -v dpkg-query >/dev/null; then
    echo "deps.sh: this is no Debian; install what corresponds to:" $build >&2
    exit 0
fi

# Installed packages, one a line; those that another package provides (pkgconf for pkg-config) too.
installed=$(dpkg-query -W -f '${db:Status-Abbrev}${Package} ${Provides}\n' |
    sed -n 's/^ii *//p' | sed 's/([^)]*)//g; s/[, ]\+/\n/g')

missing_of() {
    local p
    for p in "$@"; do
        grep -qxF -- "$p" <<<"$installed" || printf '%s ' "$p"
    done
}

missing=$(missing_of $build)
wished=
if [ $want_check = yes ]; then
    missing+=$(missing_of $check)
    # A release lacks some for ever: ask once a day at most.
    stamp=build/.deps-optional
    if [ -z "$(find "$stamp" -mmin -1440 2>/dev/null)" ]; then
        wished=$(missing_of $optional)
        mkdir -p build
    fi
fi
if [ -z "$missing$wished" ]; then
    exit 0
fi

as_root=
if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        as_root="sudo"
    elif command -v sudo >/dev/null && [ -t 0 ] && [ -n "$missing" ]; then
        as_root="sudo"
    elif [ -n "$missing" ]; then
        echo "deps.sh: these packages are missing, and only root can install them:" >&2
        echo "    apt-get install $missing" >&2
        exit 1
    else
        exit 0 # the optional ones are skipped by the tests, by name
    fi
fi

apt() {
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q "$@" </dev/null
}

echo "deps.sh: installing $missing$wished" >&2
if ! apt update >/dev/null; then
    echo "deps.sh: apt-get update failed; trying with the lists that are there" >&2
fi
if [ -n "$missing" ]; then
    apt install -y --no-install-recommends $missing >&2
fi
for p in $wished; do
    if apt-cache show "$p" >/dev/null 2>&1 && ! apt install -y --no-install-recommends "$p" \
        >/dev/null 2>&1; then
        echo "deps.sh: $p cannot be installed; its tests are skipped" >&2
    fi
done
if [ $want_check = yes ]; then
    touch build/.deps-optional 2>/dev/null || true
fi
