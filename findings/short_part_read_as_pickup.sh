#!/usr/bin/env bash
# partitura 1.9.0, load_score_midi: a track that plays in the first bar only, and ends within it, is moved before the other tracks.
# Its only measure ends with its last note. A first measure shorter than the meter counts as a pickup, for each part by itself.
# Here a cymbal of an eighth sounds with the first of 16 quarter notes. It begins half a quarter too early, without a warning.
# save_score_midi then writes the 16 notes 240 ticks later than they were. A guess is that tracks of a file stay aligned.
# Expected output: onsets 0.0 and -0.5 in quarters, ticks 240 and 0 in the saved file. Both are 0 in the file that was read.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check partitura==1.9.0 mido==1.3.3 2>/dev/null
"$folder/venv/bin/python" -W ignore - "$folder/two_tracks.mid" "$folder/saved.mid" <<'END'
import importlib.metadata, sys
import mido, partitura

def track(notes):
    """Notes (pitch, ticks), one after another."""
    events = [(kind, pitch, wait) for pitch, length in notes for kind, wait in (("note_on", 0), ("note_off", length))]
    return mido.MidiTrack([mido.Message(kind, note=pitch, velocity=64, time=wait) for kind, pitch, wait in events])

def first_ticks(path):
    """The tick of the first note of each track."""
    return [next(sum(each.time for each in each_track[: i + 1]) for i, each in enumerate(each_track) if each.type == "note_on")
            for each_track in mido.MidiFile(path).tracks]

mido.MidiFile(ticks_per_beat=480, tracks=[track([(60, 480)] * 16), track([(49, 240)])]).save(sys.argv[1])
score = partitura.load_score_midi(sys.argv[1])
onsets = [float(part.note_array()["onset_quarter"].min()) for part in score]
partitura.save_score_midi(score, sys.argv[2])
print("partitura", importlib.metadata.version("partitura"), "first onsets of the parts, in quarters:", onsets)
print("first ticks of the tracks, read:", first_ticks(sys.argv[1]), "saved:", first_ticks(sys.argv[2]))
sys.exit(onsets != [0.0, -0.5] or first_ticks(sys.argv[1]) != [0, 0] or first_ticks(sys.argv[2]) != [240, 0])
END
