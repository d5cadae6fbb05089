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
# A module's tests share what they compile: they stay together. The longest modules come first, as tests/conftest.py sorts them.
"$python" -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
