"""MIDI files for tests of preprocessing: valid files and broken files of every kind."""

import os
import pathlib
import struct

import numpy as np

from sage_jax.music.midi import save_midi
from sage_jax.music.notes import DRUMS, METER, NOTE, TEMPO, Piece

NOTE_ON_OFF = b"\0\x90\x3c\x40\x60\x3c\0"


def random_piece(seed: int, num_notes: int = 200) -> Piece:
    """A piece that tokens encode without loss: several instruments, drums, three meters and two tempos."""
    rng = np.random.default_rng(seed)
    notes = np.zeros(num_notes, NOTE)
    notes["onset"] = np.sort(rng.integers(0, 4 * num_notes, num_notes))
    notes["program"] = rng.choice([0, 24, 33, DRUMS], num_notes)
    notes["pitch"] = rng.integers(30, 90, num_notes)
    notes["duration"] = rng.integers(1, 24, num_notes)
    notes["velocity"] = rng.integers(1, 128, num_notes)
    tempos, meters = [(0, 100), (144, 120)], [(0, 1, 4), (12, 4, 4), (300, 3, 4)]
    return Piece(notes, np.array(tempos, TEMPO), np.array(meters, METER))


def write_pieces(folder: pathlib.Path, count: int, num_notes: int = 200) -> dict[str, Piece]:
    """Writes `count` random pieces to `folder`. Returns file name -> piece."""
    pieces = {f"piece{seed:02d}.mid": random_piece(seed, num_notes) for seed in range(count)}
    for name, piece in pieces.items():
        save_midi(piece, folder / name)
    return pieces


def midi_bytes(*tracks: bytes, ticks: int = 480, claim: int | None = None) -> bytes:
    """A MIDI file of raw tracks. claim: the track length stated in each track header; default: the true length."""
    chunks = [track + b"\0\xff\x2f\0" for track in tracks]
    header = b"MThd" + struct.pack(">IHHH", 6, 1, len(chunks), ticks)
    return header + b"".join(b"MTrk" + struct.pack(">I", claim or len(chunk)) + chunk for chunk in chunks)


def write_hostile_files(folder: pathlib.Path) -> dict[str, str]:
    """Writes unusable files to `folder`. Returns file name -> the reason for which it must be dropped."""
    far = b"\x84\xa5\xa8\x40" + NOTE_ON_OFF[1:]  # after nine million ticks, at one tick per quarter
    files = {
        "empty.mid": (b"", "empty"),
        "text.mid": (b"not midi at all", "broken"),
        "truncated.mid": (midi_bytes(NOTE_ON_OFF * 50)[:120], "broken"),
        "header only.mid": (midi_bytes()[:14], "broken"),
        "zero ticks.mid": (midi_bytes(NOTE_ON_OFF, ticks=0), "no_ticks"),
        "smpte.mid": (midi_bytes(NOTE_ON_OFF, ticks=0xE728), "no_ticks"),
        "program 200.mid": (midi_bytes(b"\0\xc0\xc8" + NOTE_ON_OFF), "broken"),
        "ten million events.mid": (midi_bytes(NOTE_ON_OFF, claim=40_000_000), "broken"),
        "huge.mid": (midi_bytes(NOTE_ON_OFF) + b"\0" * (2 << 20), "too_large"),
        "many notes.mid": (midi_bytes(NOTE_ON_OFF * 3000), "too_long"),
        "far away.mid": (midi_bytes(NOTE_ON_OFF + far, ticks=1), "too_long"),
        "beyond.mid": (midi_bytes(b"\xff\xff\xff\x7f" + NOTE_ON_OFF[1:]), "too_long"),
        "no status.mid": (midi_bytes(b"\0\x3c\x40"), "broken"),
        "silent.mid": (midi_bytes(b"\0\xc0\x05"), "no_notes"),
        "line\nbreak \udcff.mid": (b"RIFF", "broken"),
    }
    for name, (content, _) in files.items():
        (folder / name).write_bytes(content)
    os.mkfifo(folder / "pipe.mid")  # opening it would block
    (folder / "dangling.mid").symlink_to(folder / "nowhere")
    (folder / "folder.mid").mkdir()
    return {name: reason for name, (_, reason) in files.items()} | {"pipe.mid": "empty", "dangling.mid": "unreadable"}
