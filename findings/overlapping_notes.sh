#!/usr/bin/env bash
# One pitch that begins again while it sounds: pretty_midi 0.2.11.post0 ends both notes at the first note-off and drops the second
# note-off; symusic 0.6.0 pairs them first in, first out. Neither says so.
# Seen, (begin, end) in quarters: pretty_midi (0, 2), (1, 2); symusic (0, 2), (1, 4). Transcribed piano has thousands of such notes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pretty_midi==0.2.11.post0 symusic==0.6.0 2>/dev/null
"$folder/venv/bin/python" -W ignore - "$folder/overlap.mid" <<'END'
import importlib.metadata, struct, sys
import pretty_midi, symusic
events = [(0, 0x90, 60, 80), (1, 0x90, 60, 80), (1, 0x80, 60, 64), (2, 0x80, 60, 64)]  # quarters since the event before
track = b"".join(bytes([96 * wait // 128 | 128, 96 * wait % 128, *event]) for wait, *event in events) + b"\0\xff\x2f\0"
with open(sys.argv[1], "wb") as file:
    file.write(b"MThd" + struct.pack(">IHHH", 6, 0, 1, 96) + b"MTrk" + struct.pack(">I", len(track)) + track)
theirs = sorted((float(round(2 * note.start, 3)), float(round(2 * note.end, 3))) for each in pretty_midi.PrettyMIDI(sys.argv[1]).instruments for note in each.notes)
others = sorted((note.time / 96, note.end / 96) for each in symusic.Score(sys.argv[1]).tracks for note in each.notes)
for name, notes in (("pretty_midi", theirs), ("symusic", others)):
    print(name, importlib.metadata.version(name), "(begin, end) in quarters:", notes)
sys.exit(theirs != [(0, 2), (1, 2)] or others != [(0, 2), (1, 4)])
END
