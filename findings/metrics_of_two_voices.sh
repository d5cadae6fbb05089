#!/usr/bin/env bash
# Three metrics of muspy 0.5.0 contradict their documentation in plain cases. Nothing warns. Such metrics compare generated music.
# The rate of polyphony, "where multiple pitches are on", counts from three pitches, as its threshold of 2 must be exceeded.
# The groove consistency of equal measures is below 1. Notes that end at a bar line add an empty measure, which differs.
# The pitch range of drums alone is -127, where 0 is documented.
# Expected output: 0.0 for two voices, 0.875 for two equal measures, -127 for a drum.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check muspy==0.5.0 2>/dev/null
"$folder/venv/bin/python" -W ignore - <<'END'
import importlib.metadata, sys
import muspy

def music(notes, is_drum=False):
    """One track of (begin, pitch), each of 4 steps, 4 steps in a quarter."""
    track = muspy.Track(is_drum=is_drum, notes=[muspy.Note(begin, pitch, 4) for begin, pitch in notes])
    return muspy.Music(resolution=4, tracks=[track])

two = muspy.polyphony_rate(music([(begin, pitch) for begin in range(0, 32, 4) for pitch in (60, 64)]))
equal = muspy.groove_consistency(music([(begin, 60) for begin in range(0, 32, 4)]), measure_resolution=16)
drum = muspy.pitch_range(music([(0, 36)], is_drum=True))
print("muspy", importlib.metadata.version("muspy"))
print("polyphony_rate of two voices:", two, "groove_consistency of two equal measures:", equal, "pitch_range of a drum:", drum)
sys.exit((two, equal, drum) != (0.0, 0.875, -127))
END
