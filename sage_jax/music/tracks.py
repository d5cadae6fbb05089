"""REMI+ told track after track within each bar."""

from typing import ClassVar

import numpy as np

from sage_jax.music.notes import Piece
from sage_jax.music.remi import BAR, DURATION, FOLLOWERS, POSITION, PROGRAM, TEMPO_OF, Remi, latest

# Each track begins with a position of its own, so none is shared with a tempo either.
TRACK_FOLLOWERS = {**FOLLOWERS, TEMPO_OF: tuple(kind for kind in FOLLOWERS[TEMPO_OF] if kind != PROGRAM)}


class TrackRemi(Remi):
    """The tokens of `Remi` in another order: the notes of each bar program by program, the lowest first.

    A bar is Bar and TimeSig; Position and Tempo for each change of tempo; then for each program its notes in order of time
    and pitch, with a Position where the moment is another than that of the note before, and before the program's first note
    always. So positions go forward within a track, and begin anew with the next one.
    """

    followers: ClassVar[dict[int, tuple[int, ...]]] = TRACK_FOLLOWERS

    def encode(self, piece: Piece) -> np.ndarray:
        tokens = super().encode(piece)
        body = tokens[1:-1]
        kind = self.kinds(body)
        bar = np.cumsum(kind == BAR)
        position = latest(np.where(kind == POSITION, body, -1))
        # Rows of up to five tokens, -1 where there is none, each with the bar and the track that it is sorted by.
        places, track, width = [], [], []
        for first, count in ((BAR, 2), (TEMPO_OF, 1), (PROGRAM, 4)):
            here = np.flatnonzero(kind == first)
            places.append(here)
            track.append(body[here] if first == PROGRAM else np.full(len(here), first == TEMPO_OF))
            width.append(np.full(len(here), count))
        places, track, width = map(np.concatenate, (places, track, width))
        order = np.lexsort((places, track, bar[places]))
        places, track, width = places[order], track[order], width[order]
        rows = np.full((len(places), 5), -1)
        for column in range(4):
            inside = width > column
            rows[inside, column + 1] = body[places[inside] + column]
        moment = np.stack([bar[places], track, position[places]])
        new = np.append(True, (np.diff(moment) != 0).any(axis=0)) & (kind[places] != BAR)
        rows[new, 0] = position[places[new]]
        return np.concatenate([tokens[:1], rows[rows >= 0], tokens[-1:]]).astype(np.int32)

    def tracks(self, kind: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(indices, programs) of the bars and positions among the tokens: the program that is told there, -1 for none."""
        moments = np.flatnonzero((kind == POSITION) | (kind == BAR))
        behind = np.minimum(moments + 1, len(kind) - 1)
        return moments, np.where(kind[behind] == PROGRAM, value[behind], -1)

    def _check_order(self, kind: np.ndarray, value: np.ndarray) -> None:
        going_on = np.flatnonzero((kind == PROGRAM) & (np.append(0, kind[:-1]) == DURATION))
        strange = going_on[value[going_on] != value[going_on - 4]] if len(going_on) else going_on
        if len(strange):
            raise ValueError(f"a track begins without a position of its own (token {int(strange[0])} behind BOS)")
        moments, track = self.tracks(kind, value)
        if len(moments) and moments[-1] == len(kind) - 1:  # whose track is still to come
            moments, track = moments[:-1], track[:-1]
        at = np.where(kind[moments] == BAR, -1, value[moments])
        back = (np.diff(track * (self.grid.max_position + 1) + at, prepend=0) <= 0) & (kind[moments] == POSITION)
        if back.any():
            place = int(moments[back][0])
            raise ValueError(f"a position does not go forward in its track, or a track in its bar (token {place} behind BOS)")
