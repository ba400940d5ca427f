"""The display_top() of tracemalloc's documentation for a PID, a core or a snapshot: display_top.py TARGET [LIMIT]"""
import json
import linecache
import os
import subprocess
import sys


def display_top(target, limit=10):
    heapcensus = os.environ.get("HEAPCENSUS", "heapcensus")
    run = subprocess.run([heapcensus, "sites", target, "-q", "--json", "--top", "0", "--exclude", "<unknown>",
                          "--exclude", "<frozen importlib._bootstrap>"], stdout=subprocess.PIPE, check=True)
    sites = json.loads(run.stdout)["sites"]
    print(f"Top {limit} lines")
    for index, site in enumerate(sites[:limit], 1):
        file, line = site["traceback"][0]["file"], site["traceback"][0]["line"]
        print(f"#{index}: {os.sep.join(file.split(os.sep)[-2:])}:{line}: {site['bytes'] / 1024:.1f} KiB")
        source = linecache.getline(file, line).strip()
        if source:
            print("    " + source)
    other = sites[limit:]
    if other:
        print(f"{len(other)} other: {sum(site['bytes'] for site in other) / 1024:.1f} KiB")
    print(f"Total allocated size: {sum(site['bytes'] for site in sites) / 1024:.1f} KiB")


if __name__ == "__main__":
    display_top(sys.argv[1], *map(int, sys.argv[2:3]))
