#!/usr/bin/env bash
# A MIDI file can count time in frames of a second (SMPTE) instead of quarters. mido 1.3.3 and what is built on it do not refuse one:
# they read the header's two bytes as one number, so that a file of 25 frames with 40 ticks each has -6360 ticks per quarter.
# mido gives it a length of less than 0 seconds, and miditoolkit 1.0.1 reads the same number and goes on.
# pretty_midi 0.2.11 fails at the first note, for an end before its start. symusic 0.6.0 names the cause.
# Expected output: -6360 twice, a length of -0.236 s where 3 s are right, and an error of pretty_midi about the end of a note.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  mido==1.3.3 miditoolkit==1.0.1 pretty_midi==0.2.11 symusic==0.6.0 'setuptools<81' 2>/dev/null
cd "$folder"
venv/bin/python -W ignore - <<'END'
import importlib.metadata, struct, sys
import mido, miditoolkit, pretty_midi, symusic

# Two notes of two seconds and of one: ticks of a thousandth, two bytes for each of the longer waits.
notes = b"\x00\x90\x3c\x40" b"\x8f\x50\x80\x3c\x00" b"\x00\x90\x40\x40" b"\x87\x68\x80\x40\x00" b"\x00\xff\x2f\x00"
header = b"MThd" + struct.pack(">IHHbB", 6, 0, 1, -25, 40)
with open("smpte.mid", "wb") as file:
    file.write(header + b"MTrk" + struct.pack(">I", len(notes)) + notes)

read = mido.MidiFile("smpte.mid")
ticks = miditoolkit.MidiFile("smpte.mid").ticks_per_beat
errors = []
for reader in (pretty_midi.PrettyMIDI, symusic.Score):
    try:
        reader("smpte.mid")
        errors.append("none")
    except Exception as error:
        errors.append(str(error))
for name in ("mido", "miditoolkit", "pretty_midi", "symusic"):
    print(name, importlib.metadata.version(name))
print("ticks per quarter in mido and miditoolkit:", read.ticks_per_beat, ticks, "seconds in mido:", round(read.length, 3))
print("pretty_midi:", errors[0], "| symusic:", errors[1])
expected = read.ticks_per_beat == ticks == -6360 and round(read.length, 3) == -0.236
sys.exit(not (expected and "end time" in errors[0] and "ticks per quarter" in errors[1]))
END
