#!/usr/bin/env bash
# A time signature states its denominator as a power of two in one byte. symusic 0.6.0 keeps the denominator itself in eight bits, so that
# 3/256 (power 8) comes back as 3/0, which breaks whoever divides by it. pretty_midi 0.2.11.post0 gives 256. Seen: 0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pretty_midi==0.2.11.post0 symusic==0.6.0 2>/dev/null
"$folder/venv/bin/python" -W ignore - "$folder/meter.mid" <<'END'
import importlib.metadata, struct, sys
import pretty_midi, symusic
track = b"\0\xff\x58\x04\x03\x08\x18\x08" + b"\0\x90\x3c\x50\x60\x80\x3c\x40" + b"\0\xff\x2f\0"
with open(sys.argv[1], "wb") as file:
    file.write(b"MThd" + struct.pack(">IHHH", 6, 0, 1, 96) + b"MTrk" + struct.pack(">I", len(track)) + track)
(theirs,) = [(each.numerator, each.denominator) for each in pretty_midi.PrettyMIDI(sys.argv[1]).time_signature_changes]
(others,) = [(each.numerator, each.denominator) for each in symusic.Score(sys.argv[1]).time_signatures]
for name, meter in (("pretty_midi", theirs), ("symusic", others)):
    print(name, importlib.metadata.version(name), "meter", meter)
sys.exit(theirs != (3, 256) or others != (3, 0))
END
