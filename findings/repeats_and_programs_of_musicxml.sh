#!/usr/bin/env bash
# muspy 0.5.0 reads MusicXML with the instruments next to those meant: a flute becomes a recorder, a violin a viola.
# MusicXML counts programs from 1, muspy from 0. The last one is read as 128, which muspy's own validation refuses.
# A measure that is repeated by itself is read once. After an ending for the times 1 and 2, the third ending is missing with its notes.
# A repeat of two measures is unfolded. Its own writer puts no program into the file, so all tracks come back as pianos.
# This hurts whoever prepares scores with several instruments for a model, or compares them with generated music.
# Expected output: programs 74, 41 and 128 for 73, 40 and 127, and 0 after writing. C D for C C D, and C D C D for C D C D C E.
# C D C D E, as is right, for a repeat of two measures.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check muspy==0.5.0 music21==10.5.1 2>/dev/null
cd "$folder"
venv/bin/python - <<'END_OF_PYTHON'
import importlib.metadata, sys
from pathlib import Path
import muspy

ATTRIBUTES = ("<attributes><divisions>1</divisions><time><beats>4</beats><beat-type>4</beat-type></time>"
              "<clef><sign>G</sign><line>2</line></clef></attributes>")

def measure(step, left="", right=""):
    """A whole note, with what stands in the bar lines."""
    left = f'<barline location="left">{left}</barline>' if left else ""
    right = f'<barline location="right">{right}</barline>' if right else ""
    return left, (f"<note><pitch><step>{step}</step><octave>4</octave></pitch><duration>4</duration>"
                  f"<voice>1</voice><type>whole</type></note>{right}")

def read(*parts):
    """What muspy reads of a score of parts, each a General MIDI program counted from 1 and measures."""
    names, music = "", ""
    for part, (program, measures) in enumerate(parts, 1):
        names += (f'<score-part id="P{part}"><part-name>part</part-name><score-instrument id="I{part}"><instrument-name>it</instrument-name>'
                  f'</score-instrument><midi-instrument id="I{part}"><midi-channel>{part}</midi-channel>'
                  f"<midi-program>{program}</midi-program></midi-instrument></score-part>")
        music += f'<part id="P{part}">'
        for number, (left, notes) in enumerate(measures, 1):
            music += f'<measure number="{number}">{left}{ATTRIBUTES if number == 1 else ""}{notes}</measure>'
        music += "</part>"
    Path("score.musicxml").write_text(f'<?xml version="1.0" encoding="UTF-8"?><score-partwise version="4.0"><part-list>{names}'
                                      f"</part-list>{music}</score-partwise>")
    return muspy.read_musicxml("score.musicxml")

def steps(*measures):
    return " ".join("C D EF G A B"[note.pitch % 12] for note in read((1, measures)).tracks[0].notes)

score = read(*((program, [measure("C")]) for program in (74, 41, 128)))
programs = [track.program for track in score.tracks]
muspy.write_musicxml("written.musicxml", score)
again = [track.program for track in muspy.read_musicxml("written.musicxml").tracks]
silent = "midi-program" not in Path("written.musicxml").read_text()
try:
    score.tracks[-1].validate()
    valid = True
except ValueError:
    valid = False
begin, end = '<repeat direction="forward"/>', '<repeat direction="backward"/>'
ending = lambda times, kind: f'<ending number="{times}" type="{kind}"/>'
alone = steps(measure("C", begin, end), measure("D"))
both = steps(measure("C", begin), measure("D", "", end), measure("E"))
endings = steps(measure("C", begin), measure("D", ending("1, 2", "start"), ending("1, 2", "stop") + end),
                measure("E", ending("3", "start"), ending("3", "stop")))
print("muspy", importlib.metadata.version("muspy"))
print("programs 73, 40 and 127 are read as", programs, "and, written and read again, as", again)
print("|: C :| D is", alone, "/ |: C D :| E is", both, "/ |: C [1, 2 D :| [3 E is", endings)
print("the file has no program:", silent, "/ the track of program 128 is valid:", valid)
expected = [74, 41, 128], [0, 0, 0], True, False, "C D", "C D C D E", "C D C D"
sys.exit((programs, again, silent, valid, alone, both, endings) != expected)
END_OF_PYTHON
