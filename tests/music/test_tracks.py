"""Tracks: which notes of a MIDI file are of which, their names, and the rows and pieces that have them."""

import dataclasses
import io

import mido
import numpy as np
import pytest

from sage_jax.music.midi import piece_to_bytes
from sage_jax.music.notes import DRUMS, NOTE, Piece, note_array
from sage_jax.music.quantization import to_piece
from sage_jax.music.reading import read_bytes
from sage_jax.music.tracks import Track
from tests.music import smf
from tests.music.smf import note, program, track


def test_tracks_are_midi_tracks_channels_and_programs_with_their_names():
    """Unnamed ones have the name of their program; a name that is no UTF-8 is Latin-1."""
    named = lambda content, *parts: track(smf.meta(0, 0x03, content), *parts)
    data = smf.smf(
        track(smf.tempo(0, 90)),
        named(b"Erste Geige", program(0, 40), note(0, 480)),
        named(b" ", program(0, 40, 1), note(0, 480, 62, 80, 1)),
        named("Fl\xf6te\n".encode("latin-1"), program(0, 73, 2), note(0, 480, 72, 80, 2), note(0, 480, 36, 80, 9)),
        named(b"no notes"),
    )
    piece = to_piece(read_bytes(data))
    names = [(40, 0, "Erste Geige"), (40, 1, "Violin 2"), (73, 0, "Fl\xf6te"), (DRUMS, 0, "Fl\xf6te")]
    assert piece.tracks == tuple(names)
    assert piece.notes[["program", "track", "pitch"]].tolist() == [(40, 0, 60), (40, 1, 62), (73, 0, 72), (DRUMS, 0, 36)]


def test_tracks_have_their_own_channels_while_there_are_any():
    """16 violins and a flute: 15 channels, of which the first violin's is shared."""
    piece = Piece.from_notes([(12 * n, 40, 60, 12, 65, n) for n in range(16)] + [(0, 73, 60, 12, 65)])
    channels = {}
    for part in mido.MidiFile(file=io.BytesIO(piece_to_bytes(piece))).tracks[1:]:
        (channel,) = {message.channel for message in part if not message.is_meta}
        channels.setdefault(channel, []).append(part.name)
    assert len(channels) == 15 and channels[0] == ["Violin", "Violin 15", "Violin 16"] and channels[1] == ["Flute"]


def test_a_file_whose_marks_are_incomplete_is_numbered_in_order():
    """Overlapping notes of a marked track stay one track."""
    violins = Piece.from_notes([(0, 40, 60, 12, 65, 3), (6, 40, 60, 12, 65, 3)])
    data = piece_to_bytes(violins)
    more = track(program(0, 40, 5), note(0, 480, 50, 80, 5))
    both = data[:10] + bytes([0, data[11] + 1]) + data[12:14] + data[14:] + more
    assert [each[:2] for each in to_piece(read_bytes(data)).tracks] == [(40, 3)]
    assert [each[:2] for each in to_piece(read_bytes(both)).tracks] == [(40, 0), (40, 1)]


@pytest.mark.parametrize("rows", [
    [(0, 40, 60, 12, 65), (1, 40, 60, 12, 65, 2)], [[0, 40, 60, 12, 65], [1, 40, 60, 12, 65, 2]],
    note_array([(0, 40, 60, 12, 65), (1, 40, 60, 12, 65, 2)]), list(note_array([(0, 40, 60, 12, 65), (1, 40, 60, 12, 65, 2)])),
])  # fmt: skip
def test_rows_without_a_track_are_of_track_0(rows):
    assert note_array(rows)["track"].tolist() == [0, 2] and note_array(rows)["onset"].tolist() == [0, 1]
    old = np.array([(0, 40, 60, 12, 65)], [(field, "i4") for field in NOTE.names[:5]])
    assert note_array(old).tolist() == note_array(old[0]).tolist() == note_array((0, 40, 60, 12, 65)).tolist()
    with pytest.raises(ValueError):
        note_array([(0, 40, 60, 12)])


def test_tracks_of_a_piece_are_complete_and_distinct():
    notes, one = [(0, 40, 60, 12, 65), (0, DRUMS, 60, 12, 65, 1)], Track(40, 0, "one")
    piece = Piece.from_notes(notes)
    assert [each.name for each in piece.tracks] == ["Violin", "Drums 2"]
    for tracks, message in (((one,), "the notes of program 128, track 1"), ((one, one), "same program and number")):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(piece, tracks=tracks)
    further = dataclasses.replace(piece, notes=piece.notes[:1], tracks=(one,)).with_notes(piece.notes)
    assert further.tracks == (one, Track(DRUMS, 1, "Drums 2")) and further == piece
