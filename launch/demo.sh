#!/usr/bin/env bash
# From nothing to music: installs, and continues a piece in four ways, as MIDI, picture and recording in runs/demo/takes.
#   bash launch/demo.sh                   a held-out piece of third_party/midi, by the model that comes with the checkout
#   PROMPT=song.mid bash launch/demo.sh   your own piece
#   bash launch/demo.sh --train           by a small model that is first trained on the embedded corpus, for three to nine minutes
# A second run reuses what is there.
set -euo pipefail
if [ -n "${PROMPT:-}" ] && [ "${PROMPT:0:1}" != / ]; then
  PROMPT=$PWD/$PROMPT
fi
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
if [ $# -gt 1 ] || { [ $# = 1 ] && [ "$1" != --train ]; }; then
  echo "error: demo.sh takes --train or nothing, not $*; a piece of your own is PROMPT=song.mid bash launch/demo.sh" >&2
  exit 2
fi
install train plots audio

prompt=third_party/midi/freedoom/freedoom2_d_messag.mid  # of the test split of both models; tests/launch/test_demo.py checks this
if [ "${1:-}" = --train ]; then
  export GLIBC_TUNABLES=glibc.malloc.hugetlb=1  # on Linux: huge pages make a train step a quarter faster
  run=(--config=configs/sage.py:demo --workdir=runs/demo)
  "$python" -m launch.preprocess "${run[@]}"
  "$python" -m launch.train "${run[@]}"
  model=(--workdir=runs/demo)
else
  model=(--model=sage-20m)
fi
"$python" -m launch.sample "${model[@]}" --prompt="${PROMPT:-$prompt}" --output=runs/demo/takes
