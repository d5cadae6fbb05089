"""REMI+ with the notes of each bar grouped by track."""

from typing import ClassVar

import numpy as np

from sage_jax.music.notes import Piece
from sage_jax.tokenizers.remi import BAR, DURATION, FOLLOWERS, POSITION, PROGRAM, TEMPO_OF, Remi, latest

# Each track begins with its own Position, so a note never shares one with a tempo.
TRACK_FOLLOWERS = {**FOLLOWERS, TEMPO_OF: tuple(kind for kind in FOLLOWERS[TEMPO_OF] if kind != PROGRAM)}


class BarTrackRemi(Remi):
    """The tokens of `Remi` with the notes of each bar sorted by program first.

    A bar is Bar and TimeSig; Position and Tempo for each tempo change; then for each program, the lowest first, its notes in
    order of time and pitch. A Position comes before the first note of a program and before each note at a new position. So
    positions increase within a track and start again with the next track.
    """

    followers: ClassVar[dict[int, tuple[int, ...]]] = TRACK_FOLLOWERS

    def encode(self, piece: Piece) -> np.ndarray:
        tokens = super().encode(piece)
        body = tokens[1:-1]
        kind = self.kinds(body)
        bar = np.cumsum(kind == BAR)
        position = latest(np.where(kind == POSITION, body, -1))
        # Rows of up to five tokens, -1 for none, with the bar and the track by which they are sorted.
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
        new = np.append(True, (np.diff(moment) != 0).any(axis=0)) & (kind[places] != BAR)  # these need a Position
        rows[new, 0] = position[places[new]]
        return np.concatenate([tokens[:1], rows[rows >= 0], tokens[-1:]]).astype(np.int32)

    def tracks(self, kind: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(indices, programs): the indices of Bar and Position among tokens [T], and the program after each, -1 for none.

        kind, value: int [T], the kind of each token and its index within the kind.
        """
        moments = np.flatnonzero((kind == POSITION) | (kind == BAR))
        following = np.minimum(moments + 1, len(kind) - 1)
        return moments, np.where(kind[following] == PROGRAM, value[following], -1)

    def _check_order(self, kind: np.ndarray, value: np.ndarray) -> None:
        continued = np.flatnonzero((kind == PROGRAM) & (np.append(0, kind[:-1]) == DURATION))
        wrong = continued[value[continued] != value[continued - 4]] if len(continued) else continued
        if len(wrong):
            raise ValueError(f"a track begins without a position of its own (token {int(wrong[0])} after BOS)")
        moments, track = self.tracks(kind, value)
        if len(moments) and moments[-1] == len(kind) - 1:  # its track is not known yet
            moments, track = moments[:-1], track[:-1]
        at = np.where(kind[moments] == BAR, -1, value[moments])
        back = (np.diff(track * (self.grid.max_position + 1) + at, prepend=0) <= 0) & (kind[moments] == POSITION)
        if back.any():
            place = int(moments[back][0])
            raise ValueError(f"a position does not increase in its track, or a track in its bar (token {place} after BOS)")
