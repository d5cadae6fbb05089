#!/usr/bin/env bash
# verovio 6.4.1 reads ABC notation. After a tune with a change of key inside a line, [K:D], later tunes of the process are in D.
# They say K:C themselves, and a new toolkit does not help. Whoever converts a folder gets other notes in another order of files.
# It also plays a triplet, (3CDE, as three plain quarter notes, so that its bar has five quarters. It warns of neither.
# Expected output: F C D E is 65 60 62 64 before the change of key and 66 61 62 64 after it, in a new toolkit too; a bar with a triplet has onsets 0 1 2 3 5.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check verovio==6.4.1 mido==1.3.3 2>/dev/null
"$folder/venv/bin/python" - <<'END_OF_PYTHON'
import base64, importlib.metadata, io, sys
import mido, verovio

def notes(toolkit, body):
    """Onset in quarters and MIDI pitch of each note of a tune in C major, as played."""
    toolkit.setInputFrom("abc")
    toolkit.loadData(f"X:1\nT:a tune\nM:4/4\nL:1/4\nK:C\n{body}\n")
    file = mido.MidiFile(file=io.BytesIO(base64.b64decode(toolkit.renderToMIDI())))
    found = []
    for track in file.tracks:
        now = 0
        for message in track:
            now += message.time
            if message.type == "note_on" and message.velocity:
                found.append((now / file.ticks_per_beat, message.note))
    return found

toolkit = verovio.toolkit()
before = notes(toolkit, "F C D E|")
notes(toolkit, "F C D E|[K:D] F C D E|")
after = notes(toolkit, "F C D E|")
anew = notes(verovio.toolkit(), "F C D E|")
triplet = [onset for onset, _ in notes(verovio.toolkit(), "(3CDE F2 G|")]
pitches = [[pitch for _, pitch in tune] for tune in (before, after, anew)]
print("verovio", importlib.metadata.version("verovio"))
print("before:", pitches[0], "after a tune with [K:D]:", pitches[1], "in a new toolkit:", pitches[2], "| onsets of (3CDE F2 G:", triplet)
plain, other = [65, 60, 62, 64], [66, 61, 62, 64]
sys.exit((pitches, triplet) != ([plain, other, other], [0.0, 1.0, 2.0, 3.0, 5.0]))
END_OF_PYTHON
