#!/usr/bin/env bash
# partitura 1.9.0 gives tracks of a performance other names and programs when it saves what load_performance_midi has read.
# It numbers the parts without the first track of tempo changes, and the names of tracks with it. So each name moves to the next track.
# The last name lies on a track without notes. A program change is written after the first note of its tick, which is too late for it.
# Expected output: the flute's name is on the track of the violin, and the program change follows the first note of either.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check partitura==1.9.0 mido==1.3.3 2>/dev/null
cd "$folder"
venv/bin/python -W ignore - <<'END_OF_PYTHON'
import importlib.metadata, sys
import mido, partitura

file = mido.MidiFile(ticks_per_beat=480)
file.add_track().append(mido.MetaMessage("set_tempo", tempo=500000))
for channel, (name, program, note) in enumerate([("Flute", 73, 72), ("Violin", 40, 60)]):
    file.add_track(name).extend([
        mido.Message("program_change", channel=channel, program=program),
        mido.Message("note_on", channel=channel, note=note, velocity=80),
        mido.Message("note_off", channel=channel, note=note, time=480),
    ])
file.save("read.mid")
partitura.save_performance_midi(partitura.load_performance_midi("read.mid"), "saved.mid")

def summary(path):
    """Name, first note and order of note and program change in each track."""
    found = []
    for track in mido.MidiFile(path).tracks:
        kinds = [message.type for message in track if message.type in ("note_on", "program_change")]
        found.append((track.name, next((message.note for message in track if message.type == "note_on"), None), kinds))
    return found

both = ["program_change", "note_on"]
read, saved = summary("read.mid"), summary("saved.mid")
print("partitura", importlib.metadata.version("partitura"))
print("read: ", read)
print("saved:", saved)
expected = [("", 72, both[::-1]), ("Flute", 60, both[::-1]), ("Violin", None, [])]
sys.exit((read, saved) != ([("", None, []), ("Flute", 72, both), ("Violin", 60, both)], expected))
END_OF_PYTHON
