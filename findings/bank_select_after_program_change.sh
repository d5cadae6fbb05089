#!/usr/bin/env bash
# A bank select (controllers 0 and 32) takes effect at the next program change, so that files have it before, often at the same tick.
# A load and a save by symusic 0.6.0, pretty_midi 0.2.11.post0 or miditoolkit 1.0.1 put the program change first.
# A synthesizer then plays the program of bank 0, and nothing reports it. A guess is that a round trip keeps the order within a tick.
# Expected output: controller, program in the file that was read; program, controller after each of the three.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  symusic==0.6.0 pretty_midi==0.2.11.post0 miditoolkit==1.0.1 mido==1.3.3 2>/dev/null
"$folder/venv/bin/python" -W ignore - "$folder" <<'END'
import importlib.metadata, pathlib, sys
import miditoolkit, mido, pretty_midi, symusic

source, saved = (pathlib.Path(sys.argv[1]) / name for name in ("bank.mid", "saved.mid"))
events = [("control_change", dict(control=0, value=8)), ("program_change", dict(program=4)), ("note_on", dict(note=60, velocity=64))]
notes = [mido.Message(kind, **fields) for kind, fields in events] + [mido.Message("note_off", note=60, time=480)]
mido.MidiFile(ticks_per_beat=480, tracks=[mido.MidiTrack(notes)]).save(source)

def order(path):
    """The kinds of controllers and programs, in the order of the file."""
    return [each.type.split("_")[0] for track in mido.MidiFile(path).tracks for each in track if each.type in ("control_change", "program_change")]

savers = {
    "symusic": lambda: symusic.Score(source).dump_midi(saved),
    "pretty_midi": lambda: pretty_midi.PrettyMIDI(str(source)).write(str(saved)),
    "miditoolkit": lambda: miditoolkit.MidiFile(str(source)).dump(str(saved)),
}
print("read:", order(source))
found = []
for name, save in savers.items():
    save()
    found.append(order(saved))
    print(name, importlib.metadata.version(name), found[-1])
sys.exit(order(source) != ["control", "program"] or any(each != ["program", "control"] for each in found))
END
