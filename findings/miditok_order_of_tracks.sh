#!/usr/bin/env bash
# MidiTok 3.1.0, one token stream for all programs: the order of notes at one onset is that of the file's tracks. So two files
# with equal notes, whose tracks have another order, become different tokens. A guess from the documentation is an order that
# the notes determine, such as by program and pitch: then a deduplicated corpus has one form of each piece.
# Expected output: the programs in the order of tracks for both files, and "different tokens".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check miditok==3.1.0 symusic==0.6.0 2>/dev/null
"$folder/venv/bin/python" - <<'PYTHON'
import importlib.metadata
import sys

import miditok
import symusic

print({name: importlib.metadata.version(name) for name in ("miditok", "symusic")})


def score(programs):
    """Two notes at tick 0, one of each program; the tracks are in this order."""
    made = symusic.Score(480)
    for program in programs:
        track = symusic.Track(program=program)
        track.notes.append(symusic.Note(0, 480, 60, 64))
        made.tracks.append(track)
    return made


config = dict(use_programs=True, one_token_stream_for_programs=True)
tokens = [miditok.REMI(miditok.TokenizerConfig(**config))(score(order)).tokens for order in ((0, 40), (40, 0))]
programs = [[token for token in each if token.startswith("Program")] for each in tokens]
print(*programs, sep="\n")
print("different tokens" if tokens[0] != tokens[1] else "equal tokens")
sys.exit(programs != [["Program_0", "Program_40"], ["Program_40", "Program_0"]])
PYTHON
