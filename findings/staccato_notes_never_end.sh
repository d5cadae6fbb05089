#!/usr/bin/env bash
# abcjs 6.7.2 writes staccato notes of ABC notation without an end into a MIDI file, at 100 and 120 quarters a minute.
# The gap after such a note grows with the square of the tempo. So its end comes before its beginning, and nothing ends the note.
# symusic reads the file without these notes. At 60 and 80 a staccato quarter has other lengths in ticks.
# A change of tempo is no event of the file: the notes after it become shorter, and bar lines no longer fit. A new meter is missing.
# This hurts whoever makes MIDI files of ABC tunes, tokenizes them or measures note values in them. The script needs node and npm.
# Expected output: 288 ticks at 60, 139 at 80, no note at 100 and 120. A bar at twice the tempo takes 960 ticks, and one of 3/4 then 720.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund --prefix "$folder" abcjs@6.7.2 >/dev/null
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check symusic==0.6.0 mido==1.3.3 2>/dev/null
cat > write.js <<'END_OF_JAVASCRIPT'
const abcjs = require("abcjs");
const fs = require("fs");
const write = (name, tempo, bars) => {
  const tune = `X:1\nT:a tune\nM:4/4\nL:1/4\nQ:1/4=${tempo}\nK:C\n${bars}\n`;
  fs.writeFileSync(name, abcjs.synth.getMidiFile(tune, { midiOutputType: "binary" })[0]);
};
for (const tempo of [60, 80, 100, 120]) write(`dots${tempo}.mid`, tempo, ".C .D E F|");
write("changes.mid", 60, "C4|[Q:1/4=120]D4|[M:3/4]E3|");
console.log("abcjs", require("abcjs/package.json").version);
END_OF_JAVASCRIPT
node write.js
venv/bin/python - <<'END_OF_PYTHON'
import importlib.metadata, sys
import mido, symusic

def events(name):
    """Beginnings and ends of pitches 60 and 62 in ticks, in the order of the file."""
    found, now = [], 0
    for message in mido.MidiFile(name).tracks[-1]:
        now += message.time
        if message.type in ("note_on", "note_off") and message.note in (60, 62):
            found.append((now, "begins" if message.type == "note_on" else "ends", message.note))
    return found

def notes(name):
    return [(note.time, note.duration, note.pitch) for note in symusic.Score(name).tracks[-1].notes]

read = {tempo: notes(f"dots{tempo}.mid") for tempo in (60, 80, 100, 120)}
fast = events("dots120.mid")
score = symusic.Score("changes.mid")
tempos = [(tempo.time, round(tempo.qpm)) for tempo in score.tempos]
meters = [(meter.time, meter.numerator, meter.denominator) for meter in score.time_signatures]
print("symusic", importlib.metadata.version("symusic"), "mido", importlib.metadata.version("mido"))
for tempo, found in read.items():
    print(f".C .D E F with {tempo} quarters a minute:", found)
print("in the file of 120:", fast)
print("4/4 at 60, 4/4 at 120, 3/4:", notes("changes.mid"), "tempi:", tempos, "meters:", meters)
plain = [(960, 480, 64), (1440, 480, 65)]
expected = {tempo: [(0, length, 60), (480, length, 62)] + plain for tempo, length in ((60, 288), (80, 139))}
squares = all(length == round(480 - 192 * (tempo / 60) ** 2) for tempo, length in ((60, 288), (80, 139)))
expected[100] = expected[120] = plain
ends_first = [(0, "ends", 60), (0, "begins", 60), (192, "ends", 62), (480, "begins", 62)]
changes = [(0, 1920, 60), (1920, 960, 62), (2880, 720, 64)], [(0, 60)], [(0, 4, 4)]
sys.exit(not squares or (read, fast) != (expected, ends_first) or (notes("changes.mid"), tempos, meters) != changes)
END_OF_PYTHON
