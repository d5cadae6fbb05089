#!/usr/bin/env bash
# music21 10.5.1 writes a MIDI file of a score with transposing instruments at written pitch, and of its single part at sounding pitch.
# MusicXML states that a clarinet in B flat sounds two semitones lower. The reader marks the part as not at sounding pitch, but
# leaves the score "unknown". The MIDI export transposes only what is itself marked. muspy 0.5.0 reads the same file at sounding pitch.
# A guess is that a score sounds like its parts. A corpus made this way has orchestral pieces with parts in wrong keys.
# Expected output: 74 by the score, 72 by its only part, 72 by muspy.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check music21==10.5.1 muspy==0.5.0 mido==1.3.3 2>/dev/null
"$folder/venv/bin/python" -W ignore - "$folder" <<'END'
import importlib.metadata, pathlib, sys
import mido, music21, muspy

folder = pathlib.Path(sys.argv[1])
source = folder / "clarinet.musicxml"
source.write_text("""<?xml version="1.0" encoding="UTF-8"?>
<score-partwise version="4.0"><part-list><score-part id="P1"><part-name>Clarinet in Bb</part-name></score-part></part-list>
<part id="P1"><measure number="1"><attributes><divisions>1</divisions><time><beats>4</beats><beat-type>4</beat-type></time>
<transpose><diatonic>-1</diatonic><chromatic>-2</chromatic></transpose></attributes>
<note><pitch><step>D</step><octave>5</octave></pitch><duration>4</duration><type>whole</type></note></measure></part></score-partwise>""")

def pitches(stream):
    stream.write("midi", folder / "out.mid")
    return [each.note for track in mido.MidiFile(folder / "out.mid").tracks for each in track if each.type == "note_on" and each.velocity]

score = music21.converter.parse(source)
found = pitches(score), pitches(score.parts[0]), [note.pitch for track in muspy.read_musicxml(source).tracks for note in track.notes]
print({name: importlib.metadata.version(name) for name in ("music21", "muspy")})
print("by the score:", found[0], "by its only part:", found[1], "by muspy:", found[2], "where D5 sounds as C5, 72")
sys.exit(found != ([74], [72], [72]))
END
