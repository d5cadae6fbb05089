#!/usr/bin/env bash
# From nothing to a test run. Arguments go to pytest: bash launch/test.sh tests/music -k round_trip
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
install test audio music21
"$python" -m pytest -n 2 "$@"
