#!/usr/bin/env bash
# A system-exclusive message may come in packets, F0 ... then F7 ... F7 later (Standard MIDI Files 1.0). symusic 0.6.0 reads the notes
# after such a packet later than the delta times add up to. Seen: tick 280 for a note at tick 192.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check symusic==0.6.0 2>/dev/null
"$folder/venv/bin/python" - "$folder/packets.mid" <<'END'
import importlib.metadata, struct, sys
import symusic
# A quarter of 96 ticks between the packets, and another one to the note: the note begins at tick 192.
track = b"\0\xf0\x03\x43\x12\x00" + b"\x60\xf7\x03\x43\x12\xf7" + b"\x60\x90\x3c\x50" + b"\x60\x80\x3c\x40" + b"\0\xff\x2f\0"
data = b"MThd" + struct.pack(">IHHH", 6, 0, 1, 96) + b"MTrk" + struct.pack(">I", len(track)) + track
with open(sys.argv[1], "wb") as file:
    file.write(data)
begins = [note.time for each in symusic.Score(sys.argv[1]).tracks for note in each.notes]
print("symusic", importlib.metadata.version("symusic"), "note at tick", begins, "where the delta times add up to 192")
sys.exit(begins != [280])
END
