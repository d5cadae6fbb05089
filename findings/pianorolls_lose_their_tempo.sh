#!/usr/bin/env bash
# pypianoroll 1.0.4 promises a tempo for each time step. What it reads from a MIDI file is the tempo of each beat, 24 times over.
# So a piece of a bar at 120 and a bar at 60 has tempo 60 from its step 4 on, a sixth of a beat, then 120 again, and so on.
# Writing this roll fails with a TypeError where numpy is 2.4 or later: the tempo has two dimensions, and so has its mean.
# With an older numpy one tempo is written, the harmonic mean; the documentation promises the first. The second bar begins at 3 s, not at 2.
# Expected output: tempi 120 120 120 120 60 60 60 60 of the first steps; TypeError with numpy 2.4.6, tempo 80 and 3.0 s with numpy 2.3.5.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
cat >"$folder/write.py" <<'END_OF_PYTHON'
import importlib.metadata, sys, warnings
warnings.simplefilter("ignore")
import mido, numpy, pretty_midi, pypianoroll

file, track = mido.MidiFile(ticks_per_beat=480), mido.MidiTrack()
file.tracks.append(track)
track.append(mido.MetaMessage("time_signature", numerator=4, denominator=4))
for quarter in range(8):
    if quarter % 4 == 0:
        track.append(mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(120 if quarter == 0 else 60)))
    track.append(mido.Message("note_on", note=60 + quarter, velocity=80))
    track.append(mido.Message("note_off", note=60 + quarter, time=480))
file.save("two_tempi.mid")
start = lambda name: next(float(note.start) for note in pretty_midi.PrettyMIDI(name).instruments[0].notes if note.pitch == 64)
roll = pypianoroll.read("two_tempi.mid")
tempi = roll.tempo[:, 0].tolist()
try:
    roll.write("written.mid")
    written = pretty_midi.PrettyMIDI("written.mid").get_tempo_changes()[1]
    found = [round(float(tempo), 2) for tempo in written], round(start("two_tempi.mid"), 2), round(start("written.mid"), 2)
except TypeError as error:
    found = "TypeError"
print("pypianoroll", importlib.metadata.version("pypianoroll"), "numpy", numpy.__version__, "first tempi:", tempi[:8], "written:", found)
sys.exit((tempi, found) != (([120.0] * 4 + [60.0] * 4) * 24, "TypeError" if sys.argv[1] == "fails" else ([80.0], 2.0, 3.0)))
END_OF_PYTHON
cd "$folder"
install() { venv/bin/pip install --quiet --disable-pip-version-check pypianoroll==1.0.4 pretty_midi==0.2.11.post0 mido==1.3.3 "$@" 2>/dev/null; }
install numpy==2.4.6
venv/bin/python write.py fails
install numpy==2.3.5
venv/bin/python write.py writes
