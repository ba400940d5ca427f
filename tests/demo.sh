#!/usr/bin/env bash
# make demo: a census, a snapshot and a comparison of a small leaking Python service.
set -eu
cd "$(dirname "$0")/.."
tmp=$(mktemp -d)
cleanup() {
    [ -n "${service:-}" ] && kill "$service" 2>/dev/null
    rm -rf "$tmp"
}
trap cleanup EXIT
mkfifo "$tmp/in" "$tmp/out"
/usr/bin/env python3 tests/e2e/apps/leaky.py <"$tmp/in" >"$tmp/out" &
service=$!
exec 3>"$tmp/in" 4<"$tmp/out"
read -r -u 4 _ port
hit() { echo "hit $1" >&3; read -r -u 4 _ sessions; }
show() { printf '\n\033[1m$ %s\033[0m\n' "$*"; "$@" || { s=$?; [ $s = 6 ] || exit $s; }; }

echo "A Python service that leaks is running: pid $service, port $port."
hit 20
show build/heapcensus "$service"
show build/heapcensus snapshot "$service" -o "$tmp/before.jsonl.gz"
hit 100
echo
echo "100 requests later ($sessions sessions are kept):"
show build/heapcensus snapshot "$service" -o "$tmp/after.jsonl.gz"
printf '\n\033[1mWhat grew between the two snapshots\033[0m\n'
/usr/bin/env python3 - "$tmp/before.jsonl.gz" "$tmp/after.jsonl.gz" <<'PY'
import gzip, json, sys

def categories(path):
    for line in gzip.open(path, "rt"):
        record = json.loads(line)
        if record["record"] == "memory":
            rows = {c["name"]: (c["resident_bytes"], c["count"]) for c in record["categories"]}
            rows["total"] = (record["rss_bytes"], 0)
            return rows

old, new = (categories(p) for p in sys.argv[1:])
print("%12s %12s  %s" % ("bytes", "count", "category"))
for name in sorted(new, key=lambda n: old[n][0] - new[n][0]):
    grown = new[name][0] - old[name][0]
    if grown and name != "total":
        print("%+12d %+12d  %s" % (grown, new[name][1] - old[name][1], name))
print("%+12d %12s  %s" % (new["total"][0] - old["total"][0], "", "total"))
PY
/usr/bin/env python3 - "$tmp/before.jsonl.gz" "$tmp/after.jsonl.gz" <<'PY'
import gzip, json, sys

def types(path):
    rows = {}
    for record in map(json.loads, gzip.open(path, "rt")):
        if record["record"] == "type":
            count, size = rows.get(record["name"], (0, 0))
            rows[record["name"]] = (count + record["count"], size + record["bytes"] + record["buffer_bytes"])
    return rows

old, new = (types(p) for p in sys.argv[1:])
grown = {n: (new[n][1] - old.get(n, (0, 0))[1], new[n][0] - old.get(n, (0, 0))[0]) for n in new}
print("\n%12s %12s  %s" % ("bytes", "objects", "type (with the buffers that it owns)"))
for name in sorted(grown, key=grown.get, reverse=True)[:5]:
    print("%+12d %+12d  %s" % (*grown[name], name))
PY
echo
echo "The service ran on all the time. Now try: sudo build/heapcensus PID on a program of your own."
