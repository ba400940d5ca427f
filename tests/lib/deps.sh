#!/bin/sh
# Installs the Debian packages that are missing: deps.sh [check]. Quick and offline when all are there.
set -eu
need="gcc make pkg-config libelf-dev libdw-dev libunwind-dev libjansson-dev zlib1g-dev python3"
if [ "${1:-}" = check ]; then
    need="$need debootstrap python3-jsonschema clang-format mandoc gdb procps util-linux jq
          python3-numpy python3-pandas python3-django python3-fastapi python3-uvicorn
          libjemalloc2 libtcmalloc-minimal4 libmimalloc2.0"
fi
missing=""
for p in $need; do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null || true)
    [ "$state" = installed ] || missing="$missing $p"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ]; then
    root=""
elif command -v sudo >/dev/null 2>&1; then
    root=sudo
else
    echo "these Debian packages are missing:$missing" >&2
    echo "install them as root: apt-get install$missing" >&2
    exit 1
fi
echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
$root apt-get update -qq
# A package that this release does not have must not keep the others away: tests name what they miss.
if ! $root apt-get install -y -qq --no-install-recommends $missing >/dev/null; then
    for p in $missing; do
        $root apt-get install -y -qq --no-install-recommends "$p" >/dev/null ||
            echo "not installed: $p" >&2
    done
fi
