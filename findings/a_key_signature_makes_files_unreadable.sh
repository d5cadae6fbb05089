#!/usr/bin/env bash
# @tonejs/midi 2.0.28 reads a MIDI file with a key signature, even of C major, and writes it as one that mido can't open.
# Each key gets 14 sharps too many.
# A file without a key is read, but as other music. Pitch bends vanish, since they are written as numbers between -1 and 1.
# Two programs that follow each other on a channel are both written at the beginning. So the notes of the flute sound as those of a violin.
# The example in its documentation adds a pedal with the value 127. The file has the value 1, which lifts the pedal.
# This hurts whoever edits or cleans MIDI files in JavaScript and reads them in Python. The script needs node and npm.
# Expected output: C, Eb and Cm are written with 14, 11 and 11 sharps. Bends of -8192 and 4096 become -1 and 0.
# The programs of the ticks 0 and 480 are both at 0, and the pedal is 1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund --prefix "$folder" @tonejs/midi@2.0.28 >/dev/null
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check mido==1.3.3 2>/dev/null
cat > make.py <<'END_OF_PYTHON'
import mido

def note(pitch):
    return [mido.Message("note_on", note=pitch, velocity=80), mido.Message("note_off", note=pitch, time=480)]

for key in ("C", "Eb", "Cm"):
    file = mido.MidiFile(ticks_per_beat=480)
    file.add_track().append(mido.MetaMessage("key_signature", key=key))
    file.add_track().extend(note(60))
    file.save(f"{key}.read.mid")
file = mido.MidiFile(ticks_per_beat=480)
track = file.add_track()
track.extend([mido.Message("program_change", program=73), *note(72)])
track.extend([mido.Message("program_change", program=40), mido.Message("pitchwheel", pitch=-8192), *note(60)])
track.append(mido.Message("pitchwheel", pitch=4096))
file.save("plain.read.mid")
END_OF_PYTHON
cat > rewrite.js <<'END_OF_JAVASCRIPT'
const { Midi } = require("@tonejs/midi");
const fs = require("fs");
for (const name of ["C", "Eb", "Cm", "plain"]) {
  const midi = new Midi(fs.readFileSync(`${name}.read.mid`));
  fs.writeFileSync(`${name}.written.mid`, midi.toArray());
}
const midi = new Midi();
midi.addTrack().addNote({ midi: 60, time: 0, duration: 1 }).addCC({ number: 64, value: 127, time: 0 });
fs.writeFileSync("pedal.mid", midi.toArray());
console.log("@tonejs/midi", JSON.parse(fs.readFileSync("node_modules/@tonejs/midi/package.json")).version);
END_OF_JAVASCRIPT
venv/bin/python make.py
node rewrite.js
venv/bin/python - <<'END_OF_PYTHON'
import importlib.metadata, sys
from pathlib import Path
import mido
from mido.midifiles.meta import KeySignatureError

def sharps(name):
    """The byte of sharps in the key signature, and whether mido opens the file."""
    data = Path(name).read_bytes()
    at = data.index(bytes([0xFF, 0x59, 2])) + 3
    try:
        mido.MidiFile(name)
    except KeySignatureError:
        return int.from_bytes(data[at:at + 1], "big", signed=True), False
    return int.from_bytes(data[at:at + 1], "big", signed=True), True

def summary(name):
    """Pitch bends, and (tick, channel, program) of program changes."""
    bends, programs = [], []
    for track in mido.MidiFile(name).tracks:
        now = 0
        for message in track:
            now += message.time
            if message.type == "pitchwheel":
                bends.append(message.pitch)
            if message.type == "program_change":
                programs.append((now, message.channel, message.program))
    return bends, programs

keys = {key: (sharps(f"{key}.read.mid"), sharps(f"{key}.written.mid")) for key in ("C", "Eb", "Cm")}
read, written = summary("plain.read.mid"), summary("plain.written.mid")
pedal = [message.value for message in mido.MidiFile("pedal.mid") if message.type == "control_change"]
print("mido", importlib.metadata.version("mido"))
for key, (before, after) in keys.items():
    print(f"{key}: sharps and whether mido opens it:", before, "read,", after, "written")
print("bends and programs, read:", read)
print("bends and programs, written:", written)
print("pedal of 127 as written:", pedal)
expected_keys = {"C": ((0, True), (14, False)), "Eb": ((-3, True), (11, False)), "Cm": ((-3, True), (11, False))}
expected = ([-8192, 4096], [(0, 0, 73), (480, 0, 40)]), ([-1, 0], [(0, 0, 73), (0, 0, 40)]), [1]
sys.exit(keys != expected_keys or (read, written, pedal) != expected)
END_OF_PYTHON
