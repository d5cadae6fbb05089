"""What an id tells that stands for several tokens of REMI+: all that the grammar of merged streams asks."""

import dataclasses

import numpy as np

from sage_jax.music.notes import DRUMS
from sage_jax.music.remi import BAR, DRUM, METER_OF, PITCH, POSITION, PROGRAM, TEMPO_OF, Remi

NEVER = 1 << 24  # later than every position, higher than every note's number


@dataclasses.dataclass(frozen=True)
class Spans:
    """Of each of V ids, int [V] or bool [V]; -1 for what it does not tell.

    first, last: kinds of its first and last token. single: whether it is a token by itself. begins_bar: whether it does.
    meter: index of the meter in force at its end. first_position: of its first Position, NEVER without. last_position: of its
    last one, which is its largest, since no id reaches into another bar. has_tempo. has_moment: whether there is a tempo, a
    note or a place for one in it. moves: whether its end is at another moment than its beginning.

    Notes are numbered program * 128 + pitch. opening_pitch: of its first token. next_note: number of the first note that
    begins in it with its program, at the moment at which the id begins, where the pitch is left open of the highest one;
    NEVER without. last_program: of its last Program. last_pitch: of the last pitch at the moment at which it ends;
    last_pitch_program: the program of that note where the id tells it. programs: bool [V, DRUMS + 1], those that it has.
    """

    first: np.ndarray
    last: np.ndarray
    single: np.ndarray
    begins_bar: np.ndarray
    meter: np.ndarray
    first_position: np.ndarray
    last_position: np.ndarray
    has_tempo: np.ndarray
    has_moment: np.ndarray
    moves: np.ndarray
    opening_pitch: np.ndarray
    next_note: np.ndarray
    last_program: np.ndarray
    last_pitch: np.ndarray
    last_pitch_program: np.ndarray
    programs: np.ndarray

    @classmethod
    def of(cls, remi: Remi, tokens: np.ndarray, lengths: np.ndarray) -> "Spans":
        """Of ids that stand for `lengths` [V] tokens each, all told one after the other in `tokens`."""
        count = len(lengths)
        kind = remi.kinds(tokens)
        value = tokens - remi.starts[kind]
        owner = np.repeat(np.arange(count), lengths)
        place = np.arange(len(tokens))
        start = np.cumsum(lengths) - lengths
        end = start + lengths - 1

        def last_of(where: np.ndarray, what: np.ndarray) -> np.ndarray:
            found = np.full(count, -1)
            found[owner[where]] = what[where]  # of several the last one stays
            return found

        def first_of(where: np.ndarray, what: np.ndarray) -> np.ndarray:
            found = np.full(count, -1)
            found[owner[where][::-1]] = what[where][::-1]
            return found

        is_pitch = (kind == PITCH) | (kind == DRUM)
        moment = first_of((kind == POSITION) | (kind == BAR), place)
        moved = last_of((kind == POSITION) | (kind == BAR), place)
        before = (moment[owner] < 0) | (place < moment[owner])
        begun = first_of((kind == PROGRAM) & before, place)
        behind = np.minimum(begun + 1, end)
        begun_pitch = np.where(is_pitch[behind], value[behind], 127)
        sounded = last_of(is_pitch & (place > moved[owner]), place)
        first_position = first_of(kind == POSITION, value)
        programs = np.zeros((count, DRUMS + 1), bool)
        programs[owner[kind == PROGRAM], value[kind == PROGRAM]] = True
        has_tempo = last_of(kind == TEMPO_OF, place) >= 0
        return cls(
            first=kind[start],
            last=kind[end],
            single=lengths == 1,
            begins_bar=kind[start] == BAR,
            meter=last_of(kind == METER_OF, value),
            first_position=np.where(first_position < 0, NEVER, first_position),
            last_position=last_of(kind == POSITION, value),
            has_tempo=has_tempo,
            has_moment=has_tempo | (last_of(kind == POSITION, place) >= 0) | programs.any(axis=1),
            moves=moved >= 0,
            opening_pitch=np.where(is_pitch[start], value[start], -1),
            next_note=np.where(begun < 0, NEVER, value[begun] * 128 + begun_pitch),
            last_program=last_of(kind == PROGRAM, value),
            last_pitch=np.where(sounded < 0, -1, value[sounded]),
            last_pitch_program=np.where(sounded > start, value[sounded - 1], -1),
            programs=programs,
        )
