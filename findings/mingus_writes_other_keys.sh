#!/usr/bin/env bash
# mingus 0.6.1 leaves sharps, flats and minor out of the key signatures of MIDI files: F# major becomes F, A minor becomes A major.
# The notes are right. So a reader that counts keys, or moves pieces to one key by them, gets other music.
# For an instrument it writes a bank as controller 1, the modulation wheel, and on another channel than the program.
# This hurts whoever makes exercises or training pieces with it and reads their keys back.
# Expected output: E, F, A and E for Eb major, F# major, A minor and Eb minor. The notes are 75, 78, 81 and 75.
# Controller 1 on channel 0, and program 73 on channel 1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check mingus==0.6.1 mido==1.3.3 2>/dev/null
cd "$folder"
venv/bin/python - <<'END'
import importlib.metadata, sys
import mido
from mingus.containers import Bar, MidiInstrument, Track
from mingus.midi import midi_file_out

def written(key, note, program=None):
    """The messages of the file of a whole note."""
    bar, track = Bar(key, (4, 4)), Track()
    assert bar.place_notes([note], 1)
    track.add_bar(bar)
    if program is not None:
        track.instrument = MidiInstrument("Flute")
        track.instrument.instrument_nr = program
    midi_file_out.write_Track("track.mid", track)
    return list(mido.MidiFile("track.mid").tracks[0])

keys = {}
for key, note in (("Eb", "Eb-5"), ("F#", "F#-5"), ("a", "A-5"), ("eb", "Eb-5")):
    messages = written(key, note)
    (name,) = [message.key for message in messages if message.type == "key_signature"]
    (pitch,) = [message.note for message in messages if message.type == "note_on"]
    keys[key] = name, pitch
flute = written("C", "C-5", 73)
banks = [(message.channel, message.control) for message in flute if message.type == "control_change"]
programs = [(message.channel, message.program) for message in flute if message.type == "program_change"]
print("mingus", importlib.metadata.version("mingus"), "mido", importlib.metadata.version("mido"))
print("keys as written, with the tonic as a note:", keys)
print("a flute: (channel, controller)", banks, "(channel, program)", programs)
sys.exit((keys, banks, programs) != ({"Eb": ("E", 75), "F#": ("F", 78), "a": ("A", 81), "eb": ("E", 75)}, [(0, 1)], [(1, 73)]))
END
