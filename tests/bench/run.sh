#!/bin/sh
# make bench
exec /usr/bin/env python3 "$(dirname "$0")/run.py" "$@"
