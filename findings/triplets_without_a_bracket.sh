#!/usr/bin/env bash
# verovio 6.4.1 plays a triplet of MusicXML as three plain notes, unless a tuplet element shows it. So the measure is longer, and all that follows is late.
# The durations and the time-modification are the same with and without that element. MusicXML has it for display, besides the sound.
# A change of tempo inside a measure moves to the beginning of this measure. Of two in one measure, only the last is left.
# This hurts whoever renders scores to MIDI for training, for alignment with recordings, or to play them.
# Expected output: onsets at 0, 1/3, 2/3, 1 and 2 with brackets, at 0, 0.5, 1, 1.5 and 2.5 without. The second measure begins at 4, or at 4.5.
# Tempi of 60 and 100 in the first measure become one of 100 at 0. The tempo of 90 moves from quarter 6 to 4.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check verovio==6.4.1 mido==1.3.3 2>/dev/null
"$folder/venv/bin/python" - <<'END_OF_PYTHON'
import base64, importlib.metadata, io, sys
import mido, verovio

def note(step, duration, kind, modification="", notations=""):
    return (f"<note><pitch><step>{step}</step><octave>4</octave></pitch><duration>{duration}</duration><voice>1</voice>"
            f"<type>{kind}</type>{modification}{notations}</note>")

def tempo(quarters):
    return (f'<direction placement="above"><direction-type><metronome><beat-unit>quarter</beat-unit><per-minute>{quarters}</per-minute>'
            f'</metronome></direction-type><sound tempo="{quarters}"/></direction>')

def played(*measures):
    """Onsets and tempi in quarters of the MIDI file of a score in 4/4."""
    music = ""
    for number, notes in enumerate(measures, 1):
        attributes = ("<attributes><divisions>6</divisions><time><beats>4</beats><beat-type>4</beat-type></time>"
                      "<clef><sign>G</sign><line>2</line></clef></attributes>") if number == 1 else ""
        music += f'<measure number="{number}">{attributes}{notes}</measure>'
    toolkit = verovio.toolkit()
    assert toolkit.loadData('<?xml version="1.0" encoding="UTF-8"?><score-partwise version="4.0"><part-list><score-part id="P1">'
                            f'<part-name>part</part-name></score-part></part-list><part id="P1">{music}</part></score-partwise>')
    file = mido.MidiFile(file=io.BytesIO(base64.b64decode(toolkit.renderToMIDI())))
    onsets, tempi = [], []
    for track in file.tracks:
        now = 0
        for message in track:
            now += message.time
            at = round(now / file.ticks_per_beat, 2)
            if message.type == "note_on" and message.velocity:
                onsets.append(at)
            if message.type == "set_tempo":
                tempi.append((at, round(mido.tempo2bpm(message.tempo))))
    return onsets, tempi

modification = "<time-modification><actual-notes>3</actual-notes><normal-notes>2</normal-notes></time-modification>"
bracket = lambda kind: f'<notations><tuplet type="{kind}"/></notations>'
def triplet(*notations):
    return "".join(note(step, 2, "eighth", modification, shown) for step, shown in zip("CDE", notations)) + \
        note("F", 6, "quarter") + note("G", 12, "half")

whole = note("G", 24, "whole")
shown = played(triplet(bracket("start"), "", bracket("stop")), whole)[0]
hidden = played(triplet("", "", ""), whole)[0]
halves = note("C", 12, "half"), note("D", 12, "half")
two = played(tempo(60) + halves[0] + tempo(100) + halves[1])
later = played("".join(halves), halves[0] + tempo(90) + halves[1])
print("verovio", importlib.metadata.version("verovio"), "mido", importlib.metadata.version("mido"))
print("a triplet, a quarter, a half and the next measure begin at", shown, "with a bracket, and at", hidden, "without")
print("60 at quarter 0 and 100 at 2:", two[1], "/ 90 at quarter 6:", later[1], "/ halves begin at", later[0])
expected = [0.0, 0.33, 0.67, 1.0, 2.0, 4.0], [0.0, 0.5, 1.0, 1.5, 2.5, 4.5], [(0.0, 100)], [(0.0, 120), (4.0, 90)], [0.0, 2.0, 4.0, 6.0]
sys.exit((shown, hidden, two[1], later[1], later[0]) != expected)
END_OF_PYTHON
