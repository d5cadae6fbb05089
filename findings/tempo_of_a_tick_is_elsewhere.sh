#!/usr/bin/env bash
# midi-writer-js 3.2.1 writes a change of tempo, which its documentation gives a tick, at other ticks.
# Among notes without ticks it lies at 0, or after the last note if it is added last. Among notes with ticks it lies at the note before.
# There it moves notes as well: those of later ticks are a quarter early, or the first ones a quarter late.
# A controller with a delta moves the notes after it, also those with a tick of their own. A grace note is written nowhere.
# This hurts whoever makes MIDI files for tests, training or playing in JavaScript. The script needs node and npm.
# Expected output: the tempo of tick 512 at 0, 1024, 384 and 384. Two or three of the quarters at 384 in the last two of these files.
# A note of tick 256 is at 320 after a controller with a delta of 64. A note with a grace note is one note.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund --prefix "$folder" midi-writer-js@3.2.1 >/dev/null
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check mido==1.3.3 2>/dev/null
cat > write.js <<'END_OF_JAVASCRIPT'
const { ControllerChangeEvent, NoteEvent, Track, Writer } = require("midi-writer-js");
const fs = require("fs");
const note = (fields) => new NoteEvent({ pitch: ["C4"], duration: "4", ...fields });
const save = (name, fill) => {
  const track = new Track();
  fill(track);
  fs.writeFileSync(name, Buffer.from(new Writer([track]).buildFile()));
};
for (const [name, hasTicks, isLast] of [["a", false, false], ["b", false, true], ["c", true, false], ["d", true, true]]) {
  save(`${name}.mid`, (track) => {
    track.setTempo(120);
    if (!isLast) track.setTempo(80, 512);
    for (let number = 0; number < 8; number++) track.addEvent(note(hasTicks ? { tick: 128 * number } : {}));
    if (isLast) track.setTempo(80, 512);
  });
}
save("controller.mid", (track) => {
  track.addEvent(note({ tick: 0 }));
  track.addEvent(new ControllerChangeEvent({ controllerNumber: 64, controllerValue: 127, delta: 64 }));
  track.addEvent(note({ tick: 256 }));
});
save("grace.mid", (track) => track.addEvent(note({ grace: ["B3"] })));
console.log("midi-writer-js", JSON.parse(fs.readFileSync("node_modules/midi-writer-js/package.json")).version);
END_OF_JAVASCRIPT
node write.js
venv/bin/python - <<'END_OF_PYTHON'
import importlib.metadata, sys
import mido

def read(name):
    """Ticks of the tempo of 80, and of the notes."""
    tempos, notes, now = [], [], 0
    for message in mido.MidiFile(name).tracks[0]:
        now += message.time
        if message.type == "set_tempo" and round(mido.tempo2bpm(message.tempo)) == 80:
            tempos.append(now)
        if message.type == "note_on" and message.velocity:
            notes.append(now)
    return tempos, notes

found = {name: read(f"{name}.mid") for name in ("a", "b", "c", "d", "controller", "grace")}
print("mido", importlib.metadata.version("mido"))
for name, (tempos, notes) in found.items():
    print(f"{name}: 80 at", tempos, "notes at", notes)
quarters = [128 * number for number in range(8)]
expected = {
    "a": ([0], quarters),
    "b": ([1024], quarters),
    "c": ([384], [128, 256, 384, 384, 384, 512, 640, 768]),
    "d": ([384], [0, 128, 256, 384, 384, 512, 640, 768]),
    "controller": ([], [0, 320]),
    "grace": ([], [0]),
}
sys.exit(found != expected)
END_OF_PYTHON
