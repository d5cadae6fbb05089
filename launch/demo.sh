#!/usr/bin/env bash
# From nothing to music: installs, prepares the embedded corpus, trains a small model on the CPU for three to nine minutes, and
# continues a piece of the test split in four ways, as MIDI, picture and recording. A second run reuses what is there.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
install train plots audio

export GLIBC_TUNABLES=glibc.malloc.hugetlb=1  # on Linux: huge pages make a train step a quarter faster
run=(--config=configs/sage.py:demo --workdir=runs/demo)
prompt=third_party/midi/freedoom/freedoom2_d_messag.mid  # of the test split; tests/launch/test_demo.py checks this
"$python" -m launch.preprocess "${run[@]}"
"$python" -m launch.train "${run[@]}"
"$python" -m launch.sample --workdir=runs/demo --prompt="$prompt"
