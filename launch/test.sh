#!/usr/bin/env bash
# From nothing to a test run. Arguments go to pytest: bash launch/test.sh tests/music -k round_trip
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
install test audio music21
# A module's tests share what they compile: they stay together. The longest modules come first, as tests/conftest.py sorts them.
"$python" -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
