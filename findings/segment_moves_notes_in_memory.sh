#!/usr/bin/env bash
# miditoolkit 1.0.1: MidiFile.dump(segment=(begin, end)) writes a part of a piece. It also cuts and shifts those notes of the object
# in memory, in place, and nothing says so. A guess is that saving changes nothing.
# A loop that cuts a piece into overlapping windows then loses notes, and a later dump of the whole piece has notes at wrong times.
# Here: four quarter notes, windows of a half note every quarter. Expected output when the file is loaded for each window:
# [60, 62], [62, 64], [64, 65]. From one object: [60, 62], [62, 64], [65], and three of its four notes are moved.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check miditoolkit==1.0.1 mido==1.3.3 2>/dev/null
"$folder/venv/bin/python" -W ignore - "$folder/piece.mid" "$folder/part.mid" <<'END'
import importlib.metadata, sys
import miditoolkit

piece, part = sys.argv[1:]
made = miditoolkit.MidiFile(ticks_per_beat=480)
made.instruments = [miditoolkit.Instrument(program=0)]
made.instruments[0].notes = [miditoolkit.Note(80, pitch, 480 * i, 480 * i + 480) for i, pitch in enumerate((60, 62, 64, 65))]
made.dump(piece)

def written(midi, begin):
    """The pitches in the file that a dump of a half note leaves."""
    midi.dump(part, segment=(begin, begin + 960))
    return [note.pitch for track in miditoolkit.MidiFile(part).instruments for note in track.notes]

again = [written(miditoolkit.MidiFile(piece), begin) for begin in (0, 480, 960)]
one = miditoolkit.MidiFile(piece)
once = [written(one, begin) for begin in (0, 480, 960)]
begins = {note.pitch: note.start for note in one.instruments[0].notes}
print("miditoolkit", importlib.metadata.version("miditoolkit"))
print("loaded for each window:", again, "loaded once:", once, "ticks of the notes in memory:", begins)
sys.exit(again != [[60, 62], [62, 64], [64, 65]] or once != [[60, 62], [62, 64], [65]] or begins == {60: 0, 62: 480, 64: 960, 65: 1440})
END
