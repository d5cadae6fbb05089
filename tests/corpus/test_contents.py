"""What occurs in a split."""

import numpy as np

from sage_jax.corpus.contents import Contents, pitch_limits, unseen
from sage_jax.music.notes import DRUMS, Piece
from sage_jax.tokenizers.note_events import NoteEvents
from tests.music.midi_files import random_piece

TOKENIZER = NoteEvents()


def test_counts_are_those_of_the_pieces():
    pieces = [TOKENIZER.quantize(random_piece(seed)) for seed in range(3)]
    waltz = TOKENIZER.quantize(Piece.from_notes([(0, DRUMS, 38, 12, 64)], meter=(3, 4)))
    found, expected = Contents.of(map(TOKENIZER.encode, [*pieces, waltz]), TOKENIZER), np.zeros((DRUMS + 1, 128), int)
    for piece in (*pieces, waltz):
        np.add.at(expected, (piece.notes["program"], piece.notes["pitch"]), 1)
    np.testing.assert_array_equal(found.pitches, expected)
    assert (3, 4) in found.meters and found.meters == tuple(sorted(found.meters))
    assert found.to_dict()["instruments"]["128"][2] == expected[DRUMS].sum() and [3, 4] in found.to_dict()["meters"]


def test_tracks_of_a_program_count_together():
    tokenizer = NoteEvents(tracks_per_program=3)
    piece = Piece.from_notes([(0, program, 60 + track, 12, 65, track) for program in (40, DRUMS) for track in range(3)])
    found = Contents.of([tokenizer.encode(tokenizer.quantize(piece))], tokenizer).to_dict()["instruments"]
    assert found == {"40": [60, 62, 3], "128": [60, 62, 3]}


def test_ranges_leave_out_the_rarest_notes_of_an_instrument():
    counts = np.zeros((DRUMS + 1, 128), int)
    counts[5, 40:61], counts[5, 100], counts[7, 3] = 1000, 1, 2
    found = Contents(counts, ((4, 4),))
    assert found.ranges[5].tolist() == [40, 60] and found.ranges[7].tolist() == [3, 3] and found.ranges[6].tolist() == [0, 127]
    assert found.to_dict() == {"instruments": {"5": [40, 60, 21001], "7": [3, 3, 2]}, "meters": [[4, 4]]}


def test_limits_include_the_prompt_and_what_is_unseen_is_named():
    contents = {"instruments": {"5": [40, 60, 9], "128": [36, 38, 9]}, "meters": [[4, 4]]}
    prompt = Piece.from_notes([(0, 5, 70, 12, 64), (0, 9, 20, 12, 64), (0, DRUMS, 37, 12, 64)], meter=(3, 4))
    assert pitch_limits(contents, prompt) == {5: (40, 70), DRUMS: (36, 38)}
    assert list(unseen(contents, prompt)) == [
        "instruments: the model never saw Glockenspiel (9)",
        "meters: the model never saw 3/4",
    ]
    assert pitch_limits({}, prompt) == {} and not list(unseen({}, prompt))
