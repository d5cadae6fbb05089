#!/usr/bin/env bash
# Live play, from nothing: installs what it needs into .venv, and opens a page at 127.0.0.1 on which you play with sage-20m.
#   bash launch/live.sh                       the page; the browser opens it where there is one
#   bash launch/live.sh --sessions=2          flags go to launch.live; see its --help
# A second run reuses what is there.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
install train plots audio live
exec "$python" -m launch.live --open "$@"
