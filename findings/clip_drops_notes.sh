#!/usr/bin/env bash
# Score.clip of symusic 0.6.0 cuts a part out of a piece, but it shortens no note. A note that sounds when the part begins is left out.
# One that sounds when it ends stays as long as it is, beyond the end. clip_end=True does not end it there: it leaves it out as well.
# So a part in the middle of a held chord is silent. The same call keeps tempos and meters, and moves them to the beginning.
# Expected output: one note from 480 to 1440 of the ticks 240 to 1000, and no note with clip_end.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check symusic==0.6.0 2>/dev/null
"$folder/venv/bin/python" -W ignore - <<'END'
import importlib.metadata, sys
import symusic

score = symusic.Score(480)
score.tempos.append(symusic.Tempo(0, 90))
track = symusic.Track("held", 0, False)
for start, pitch in ((0, 60), (480, 64)):
    track.notes.append(symusic.Note(start, 960, pitch, 64))
score.tracks.append(track)
found = []
for clip_end in (False, True):
    part = score.clip(240, 1000, clip_end)
    found.append([(note.start, note.end) for track in part.tracks for note in track.notes])
print("symusic", importlib.metadata.version("symusic"))
print("notes from 0 to 960 and from 480 to 1440, clipped to 240 to 1000:", found[0], "with clip_end:", found[1])
print("tempo:", [(tempo.time, round(tempo.qpm)) for tempo in part.tempos])
sys.exit(found != [[(480, 1440)], []] or [(tempo.time, round(tempo.qpm)) for tempo in part.tempos] != [(240, 90)])
END
