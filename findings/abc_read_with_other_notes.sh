#!/usr/bin/env bash
# music21 10.5.1 reads ABC notation with other notes than are written, and warns of nothing.
# An accidental lasts for one note, not to the bar line, unless the text begins with a version such as %abc-2.1. Few files do.
# A key in the middle of a line, [K:D], is ignored with and without it. The rests of whole bars, Z2, take no time.
# Expected output: the second F is natural without a version; F and C stay natural after [K:D]; E begins at 4 after a bar of C and two rests.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check music21==10.5.1 2>/dev/null
"$folder/venv/bin/python" -W ignore - <<'END'
import importlib.metadata, sys
import music21

def notes(body, version=""):
    """Onset in quarters and MIDI pitch of each note."""
    text = f"{version}X:1\nT:a tune\nM:4/4\nL:1/4\nK:C\n{body}\n"
    return [(float(note.offset), note.pitch.midi) for note in music21.converter.parse(text, format="abc").flatten().notes]

VERSION = "%abc-2.1\n"
sharp = [[pitch for _, pitch in notes("^F F G F|", version)] for version in ("", VERSION)]
key = [[pitch for _, pitch in notes("F C D E|[K:D] F C D E|", version)][4:] for version in ("", VERSION)]
onset = [notes("C4|Z2|E4|", version)[-1][0] for version in ("", VERSION)]
print("music21", importlib.metadata.version("music21"))
print("^F F G F:", sharp[0], "with a version:", sharp[1], "| F C D E after [K:D]:", key, "| E after a bar and two of rest:", onset)
sys.exit((sharp, key, onset) != ([[66, 65, 67, 65], [66, 66, 67, 66]], [[65, 60, 62, 64]] * 2, [4.0, 4.0]))
END
