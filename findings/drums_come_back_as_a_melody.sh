#!/usr/bin/env bash
# AMADS 1.4.0 reads a MIDI file and writes it again, with its own default reader and writer, as other music.
# Drums move from channel 10 to the first free one, where their notes are pitches of a melodic instrument. Other programs are gone as well.
# A change from 4/4 to 6/8 is written as one to 3/4. Its reader by way of music21 leaves drums out. Notes keep their times, pitches and velocities.
# Expected output: channels 0 and 9 become 0 and 1, the programs 40 and 0 become none, 6/8 becomes 3/4, and music21 reads 0 of 14 drums.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check amads==1.4.0 mido==1.3.3 2>/dev/null
cd "$folder"
venv/bin/python -W ignore - <<'END_OF_PYTHON'
import contextlib, importlib.metadata, io, sys
import mido
from amads.core.basics import Note
from amads.io import readscore, writescore

file = mido.MidiFile(ticks_per_beat=480)
file.add_track().extend([
    mido.MetaMessage("time_signature", numerator=4, denominator=4),
    mido.MetaMessage("time_signature", numerator=6, denominator=8, time=4 * 480),
])
for channel, (program, name) in {0: (40, "Violin"), 9: (0, "Kit")}.items():
    track = file.add_track(name)
    track.append(mido.Message("program_change", channel=channel, program=program))
    for number in range(14):
        track.append(mido.Message("note_on", channel=channel, note=36 + number, velocity=80))
        track.append(mido.Message("note_off", channel=channel, note=36 + number, time=240))
file.save("read.mid")

def read(reader):
    readscore.set_preferred_midi_reader(reader)
    with contextlib.redirect_stdout(io.StringIO()):
        return readscore.read_score("read.mid")

def summary(path):
    """The channels of notes, the programs, the time signatures, and the notes as (seconds, pitch, velocity)."""
    messages, at, notes = list(mido.MidiFile(path)), 0.0, []
    for message in messages:
        at += message.time
        if message.type == "note_on" and message.velocity:
            notes.append((round(at, 3), message.note, message.velocity))
    channels = sorted({message.channel for message in messages if message.type == "note_on"})
    programs = sorted(message.program for message in messages if message.type == "program_change")
    signatures = [(message.numerator, message.denominator) for message in messages if message.type == "time_signature"]
    return channels, programs, signatures, sorted(notes)

default = readscore.preferred_midi_reader
with contextlib.redirect_stdout(io.StringIO()):
    writescore.write_score(readscore.read_score("read.mid"), "written.mid")
before, after = summary("read.mid"), summary("written.mid")
drums = {reader: len(list(list(read(reader).content)[1].find_all(Note))) for reader in ("music21", "mido")}
print("AMADS", importlib.metadata.version("amads"), "reads with", default)
print("read:   ", *before[:3])
print("written:", *after[:3], "with the same notes" if before[3] == after[3] else f"with other notes {after[3]}")
print("drums that each reader finds:", drums)
expected = ([0, 9], [0, 40], [(4, 4), (6, 8)]), ([0, 1], [], [(4, 4), (3, 4)]), {"music21": 0, "mido": 14}
sys.exit((before[:3], after[:3], drums) != expected or before[3] != after[3])
END_OF_PYTHON
