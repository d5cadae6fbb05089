"""The notes and changes of a piece, one by one and in canonical order, with the tokenizers that encode them."""

import numpy as np
from hypothesis import strategies as st

from sage_jax.music.notes import Piece
from sage_jax.tokenizers.incremental import EventEncoder
from sage_jax.tokenizers.note_events import NoteEvents
from tests.music.pieces import pieces

TOKENIZERS = [NoteEvents(), NoteEvents(24, 1, 4, 8), NoteEvents(4, max_bar_step=16), NoteEvents(48, num_velocities=127)]
TOKENIZERS += [NoteEvents(tracks_per_program=2), NoteEvents(tracks_per_program=4)]

Item = tuple[str, tuple]


@st.composite
def quantized_pieces(draw) -> tuple[NoteEvents, Piece]:
    """A tokenizer and a piece that it can encode."""
    tokenizer = draw(st.sampled_from(TOKENIZERS))
    return tokenizer, tokenizer.quantize(draw(pieces(tokenizer.ticks_per_quarter, max_notes=20)))


def items(piece: Piece) -> list[Item]:
    """(kind, row) of each item: by tick, meter before tempo before notes, notes by program, track and pitch."""
    rows = [("meter", row) for row in piece.meters.tolist()]
    rows += [("tempo", row) for row in piece.tempos.tolist()]
    rows += [("note", row) for row in piece.notes.tolist()]
    rank = {"meter": 0, "tempo": 1, "note": 2}
    in_track = lambda row: (row[1], row[5], row[2])
    return sorted(rows, key=lambda item: (item[1][0], rank[item[0]], in_track(item[1]) if item[0] == "note" else ()))


def push(encoder: EventEncoder, rows: list[Item]) -> np.ndarray:
    """The events that the encoder returns for the items `rows`, one push for each: [n, 5]."""
    pushes = {"meter": encoder.push_meter, "tempo": encoder.push_tempo, "note": lambda *note: encoder.push(note)}
    return np.concatenate([np.zeros((0, 5), np.int16), *(pushes[kind](*row) for kind, row in rows)])


def before(piece: Piece, tick: int) -> Piece:
    """The items of `piece` before `tick` > 0, with their whole durations."""
    notes, tempos, meters = piece.notes, piece.tempos, piece.meters
    kept = (notes[notes["onset"] < tick], tempos[tempos["tick"] < tick], meters[meters["tick"] < tick])
    return Piece(*kept, piece.ticks_per_quarter)
