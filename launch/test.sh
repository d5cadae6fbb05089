#!/usr/bin/env bash
# From nothing to a test run: lint, types, then every test. With arguments it only runs pytest with them:
#   bash launch/test.sh -m "not process"               # the quick tests, which start no processes
#   bash launch/test.sh tests/music -k round_trip
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
install dev
if [ $# -eq 0 ]; then
  "$python" -m ruff check .
  "$python" -m pyright
fi
# Tests that share what they compile stay together, and the longest modules come first: see tests/conftest.py.
"$python" -m pytest -n 2 --dist loadscope --no-loadscope-reorder "$@"
