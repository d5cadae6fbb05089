#!/usr/bin/env bash
# symusic 0.6.0 writes MIDI files without a check of what fits. A tempo of 3 quarters per minute is written as 18.6: three bytes hold less.
# shift_time may move events before tick 0. They are written 2**28 ticks later, and those after them follow there.
# Its own reader then finds none of the notes in such a file. mido finds them, about three days late. Nothing warns, and no call fails.
# A guess is an error: shift_pitch and shift_velocity of the same library raise a ValueError where a value does not fit.
# Expected output: tempo 18.617 for 3; notes at -480 and 0 in memory, none in the file for symusic, 268434976 and 268435456 for mido.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check symusic==0.6.0 mido==1.3.3 2>/dev/null
cd "$folder"
venv/bin/python - <<'END_OF_PYTHON'
import importlib.metadata, sys
import mido
from symusic import Note, Score, Tempo, Track

slow = Score(480)
slow.tempos.append(Tempo(0, 3))
slow.dump_midi("slow.mid")
tempo = round(Score("slow.mid").tempos[0].qpm, 3)

score = Score(480)
score.tracks.append(Track("piano", 0, False))
for start, pitch in ((0, 60), (480, 62)):
    score.tracks[0].notes.append(Note(start, 480, pitch, 80))
earlier = score.shift_time(-480)
earlier.dump_midi("earlier.mid")
starts = lambda score: [note.start for track in score.tracks for note in track.notes]
found = []
for track in mido.MidiFile("earlier.mid").tracks:
    now = 0
    for message in track:
        now += message.time
        if message.type == "note_on" and message.velocity:
            found.append(now)
raised = []
for name in ("shift_pitch", "shift_velocity"):
    try:
        getattr(score, name)(100)
    except ValueError:
        raised.append(name)
print("symusic", importlib.metadata.version("symusic"), "tempo of 3 read as:", tempo)
print("in memory:", starts(earlier), "in the file:", starts(Score("earlier.mid")), "as mido reads it:", found, "raised:", raised)
expected = (18.617, [-480, 0], [], [2**28 - 480, 2**28], ["shift_pitch", "shift_velocity"])
sys.exit((tempo, starts(earlier), starts(Score("earlier.mid")), found, raised) != expected)
END_OF_PYTHON
