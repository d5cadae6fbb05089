#!/usr/bin/env bash
# symusic 0.6.0 reads ABC notation as a performance. Every note begins one tick late, at 480 ticks per quarter.
# The notes of a chord begin ten ticks after each other, in the order in which they are written.
# So no note is on its beat and no chord is one. A tokenizer with exact onsets sees three onsets instead of one.
# music21 10.5.1 reads the same text with onsets 0 and 2, for all notes of each chord.
# Expected output: onsets 1, 11, 21 and 961, 971, 981 in symusic, where 0 and 960 are written.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check symusic==0.6.0 music21==10.5.1 2>/dev/null
cd "$folder"
printf 'X:1\nT:two chords\nM:4/4\nL:1/4\nK:C\n[CEG]2 [CEG]2|\n' >chords.abc
venv/bin/python -W ignore - <<'END'
import importlib.metadata, sys
import music21, symusic

score = symusic.Score("chords.abc", fmt="abc")
ticks = [note.start for track in score.tracks for note in track.notes]
quarters = [float(chord.offset) for chord in music21.converter.parse("chords.abc", format="abc").flatten().notes]
for name in ("symusic", "music21"):
    print(name, importlib.metadata.version(name))
print("ticks per quarter:", score.tpq, "onsets in symusic:", ticks, "quarters of the chords in music21:", quarters)
sys.exit((score.tpq, ticks, quarters) != (480, [1, 11, 21, 961, 971, 981], [0.0, 2.0]))
END
