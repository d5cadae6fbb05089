"""Per-id lookup tables of a merged REMI+ vocabulary, for the grammar."""

import dataclasses

import numpy as np

from sage_jax.music.notes import DRUMS
from sage_jax.tokenizers.remi import BAR, DRUM, METER_OF, PITCH, POSITION, PROGRAM, TEMPO_OF, Remi

INF = 1 << 24  # above every position and every note number


@dataclasses.dataclass(frozen=True)
class TokenTable:
    """What each of V ids stands for, in arrays [V]. An id stands for one or more tokens within one bar.

    | field              | type | meaning                                                            | if absent |
    | first, last        | int  | kind of the first and of the last token                            |           |
    | single             | bool | the id is one token                                                |           |
    | begins_bar         | bool | the first token is Bar                                             |           |
    | meter              | int  | index of the last meter                                            | -1        |
    | first_position     | int  | the first position                                                 | INF       |
    | last_position      | int  | the last position                                                  | -1        |
    | has_tempo          | bool | there is a Tempo                                                   |           |
    | has_moment         | bool | there is a Tempo, a Position or a Program                          |           |
    | moves              | bool | the time changes: there is a Position or a Bar                     |           |
    | opening_pitch      | int  | the pitch, if the first token is a pitch                           | -1        |
    | next_note          | int  | number of the first note with a Program before the time changes    | INF       |
    | last_program       | int  | the last program                                                   | -1        |
    | last_pitch         | int  | the last pitch after the last change of time                       | -1        |
    | last_pitch_program | int  | the program of that note, if the id has it                         | -1        |
    | programs           | bool | [V, DRUMS + 1], the programs that occur                            |           |

    The number of a note is program * 128 + pitch; a pitch that comes only with the next id counts as 127.
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
    def of(cls, remi: Remi, tokens: np.ndarray, lengths: np.ndarray) -> "TokenTable":
        """The table of V ids. lengths: int [V], tokens per id. tokens: int [lengths.sum()], the tokens of all ids in order."""
        count = len(lengths)
        kind = remi.kinds(tokens)
        value = tokens - remi.starts[kind]
        owner = np.repeat(np.arange(count), lengths)
        place = np.arange(len(tokens))
        start = np.cumsum(lengths) - lengths
        end = start + lengths - 1

        def last_of(mask: np.ndarray, values: np.ndarray) -> np.ndarray:
            found = np.full(count, -1)
            found[owner[mask]] = values[mask]  # the last assignment to an id holds
            return found

        def first_of(mask: np.ndarray, values: np.ndarray) -> np.ndarray:
            found = np.full(count, -1)
            found[owner[mask][::-1]] = values[mask][::-1]
            return found

        is_pitch = (kind == PITCH) | (kind == DRUM)
        moment = first_of((kind == POSITION) | (kind == BAR), place)
        moved = last_of((kind == POSITION) | (kind == BAR), place)
        before = (moment[owner] < 0) | (place < moment[owner])
        begun = first_of((kind == PROGRAM) & before, place)
        following = np.minimum(begun + 1, end)
        begun_pitch = np.where(is_pitch[following], value[following], 127)
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
            first_position=np.where(first_position < 0, INF, first_position),
            last_position=last_of(kind == POSITION, value),
            has_tempo=has_tempo,
            has_moment=has_tempo | (last_of(kind == POSITION, place) >= 0) | programs.any(axis=1),
            moves=moved >= 0,
            opening_pitch=np.where(is_pitch[start], value[start], -1),
            next_note=np.where(begun < 0, INF, value[begun] * 128 + begun_pitch),
            last_program=last_of(kind == PROGRAM, value),
            last_pitch=np.where(sounded < 0, -1, value[sounded]),
            last_pitch_program=np.where(sounded > start, value[sounded - 1], -1),
            programs=programs,
        )
