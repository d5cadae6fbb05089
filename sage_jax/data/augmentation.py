"""Changes of a crop that leave it music: other velocities, tempos and instruments, and a later beginning.

They act on the events of NoteEvents, before another tokenizer encodes them. All random numbers come from the generator of the
crop, so that a resumed run makes the same changes.
"""

import dataclasses
import math

import numpy as np

from sage_jax.errors import UserError
from sage_jax.tokenizers.config import RepresentationConfig
from sage_jax.tokenizers.note_events import (
    FIRST,
    FIRST_PITCH,
    FIRST_PROGRAM,
    FIRST_TEMPO,
    HEAD,
    INSTRUMENT,
    ONSET,
    PITCH,
    REST,
    TEMPO_CHANGE,
    VELOCITY,
    NoteEvents,
)

FAMILY = 8  # General MIDI has 16 families of 8 programs each
LACKING = {"mmt": ("velocity_scale", "velocity_offset", "tempo_scale")}  # what the tokens of a representation do not hold


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Random changes of the training crops, beside data.transpose. Raises UserError naming the field.

    velocity_scale, velocity_offset: (lowest, highest) factor, and then offset in MIDI velocities, of all velocities of a crop.
    tempo_scale: (lowest, highest) factor of all its tempos. Factors are drawn evenly in their logarithm.
    drop_instruments: the probability that an instrument, or one of its tracks that the vocabulary keeps apart, is left out; one
      always stays, and later music takes the place.
    exchange_programs: the probability that a program is replaced by another one of its family, such as a grand by an electric
      piano. Two programs are never made one.
    cut_start: the share of crops that begin at any bar line in the first half of a piece, also where less than a whole crop
      follows. Without it a piece that fits into a crop always begins at its first bar.
    keep_ranges: whether a transposition keeps each instrument within the pitches that it plays in the training split.
    """

    velocity_scale: tuple[float, float] = (1.0, 1.0)
    velocity_offset: tuple[int, int] = (0, 0)
    tempo_scale: tuple[float, float] = (1.0, 1.0)
    drop_instruments: float = 0.0
    exchange_programs: float = 0.0
    cut_start: float = 0.0
    keep_ranges: bool = False

    def __post_init__(self):
        for field, low, high in (("velocity_scale", 0.1, 10), ("velocity_offset", -126, 126), ("tempo_scale", 0.1, 10)):
            pair = tuple(getattr(self, field))
            object.__setattr__(self, field, pair)
            if len(pair) != 2 or not low <= pair[0] <= pair[1] <= high:
                raise UserError(f"augment.{field} is {pair}; give the lowest and the highest value, between {low} and {high}")
        for field in ("drop_instruments", "exchange_programs", "cut_start"):
            if not 0 <= getattr(self, field) <= 1:
                raise UserError(f"augment.{field} is {getattr(self, field)}; give a share from 0 to 1")

    def check(self, representation: RepresentationConfig) -> None:
        """Raises UserError for a change that the tokens of `representation` can't hold."""
        for field in LACKING.get(representation.name, ()):
            if getattr(self, field) != getattr(NO_CHANGES, field):
                raise UserError(
                    f"config.augment.{field} is {getattr(self, field)}, but the tokens of config.representation.name = "
                    f"{representation.name} have no {field.partition('_')[0]}; leave it at {getattr(NO_CHANGES, field)}"
                )


NO_CHANGES = AugmentConfig()


class Augmentation:
    """The changes of `config`. ranges: (lowest, highest) pitch of each program, int [129, 2], or None without keep_ranges.

    A crop is handled as `columns` [5, N], one row for each attribute: several times quicker than events as rows.
    """

    def __init__(self, config: AugmentConfig, tokenizer: NoteEvents, ranges: np.ndarray | None = None):
        self.config, self._tokenizer = config, tokenizer
        self._sizes = tokenizer.vocab_sizes
        self.spare = 2 if config.drop_instruments else 1  # how many times longer a crop is cut, for what is left out
        self._between = [(values[1:] + values[:-1]) / 2 for values in (tokenizer.velocities, tokenizer.tempos)]
        self._limits = None
        if ranges is not None:  # by instrument id; wide for all that is no pitched note
            self._limits = np.tile(np.array([[-1000], [1000]], np.int16), self._sizes[INSTRUMENT])
            pitched = np.arange(FIRST_PROGRAM, tokenizer.first_drum_track)
            self._limits[:, pitched] = FIRST_PITCH + ranges[tokenizer.program_of(pitched)].T

    def __call__(self, crop: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
        """At most `length` events of `crop` [M, 5], which is up to `spare` times longer, changed."""
        config = self.config
        columns = np.ascontiguousarray(crop.T)
        if config.drop_instruments:
            columns = self._leave_out(columns, length, rng)[:, :length]
        if config.exchange_programs:
            self._exchange(columns, rng)
        if config.velocity_scale != (1, 1) or config.velocity_offset != (0, 0):
            scale, offset = _factor(config.velocity_scale, rng), rng.integers(*config.velocity_offset, endpoint=True)
            table = np.arange(self._sizes[VELOCITY], dtype=columns.dtype)  # id -> id of the nearest velocity to the changed one
            table[FIRST:] = FIRST + self._between[0].searchsorted(self._tokenizer.velocities * scale + offset)
            columns[VELOCITY] = table.take(columns[VELOCITY])
        if config.tempo_scale != (1, 1):
            scale, changes = _factor(config.tempo_scale, rng), np.flatnonzero(columns[INSTRUMENT] == TEMPO_CHANGE)
            tempos = self._tokenizer.tempos[columns[PITCH, changes] - FIRST_TEMPO]
            columns[PITCH, changes] = FIRST_TEMPO + self._between[1].searchsorted(tempos * scale)
        return columns.T

    def shifts(self, crop: np.ndarray) -> tuple[int, int] | None:
        """The lowest and the highest transposition of `crop` [N, 5] that keep each program within its range, 0 among them.

        Notes outside their range count as being at its border. None without ranges.
        """
        if self._limits is None:
            return None
        instrument, pitch = crop[:, INSTRUMENT], crop[:, PITCH]
        low, high = (limit.take(instrument) for limit in self._limits)
        return min(0, int((low - pitch).max())), max(0, int((high - pitch).min()))

    def _leave_out(self, columns: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
        """The columns without some of the instruments that play in the first `length` events."""
        programs = np.flatnonzero(np.bincount(columns[INSTRUMENT, :length])[FIRST_PROGRAM:]) + FIRST_PROGRAM
        leaving = rng.random(len(programs)) < self.config.drop_instruments
        if leaving.all() and len(programs):
            leaving[rng.integers(len(programs))] = False
        if not leaving.any():
            return columns
        stays = np.ones(self._sizes[INSTRUMENT], bool)
        stays[programs[leaving]] = stays[REST] = False  # the rests are made anew, as an onset counts from the event before it
        kept = np.flatnonzero(stays.take(columns[INSTRUMENT]))
        onset = columns[ONSET].astype(np.int64) - FIRST  # BOS and EOS, which have no time, are below 0
        advanced, position = np.divmod(np.maximum(onset, 0), self._tokenizer.max_position)
        advanced, columns, timed = np.diff(np.cumsum(advanced)[kept], prepend=0), columns.take(kept, axis=1), onset[kept] >= 0
        if (columns[INSTRUMENT, HEAD : HEAD + 1] >= FIRST_PROGRAM).all():
            advanced[HEAD : HEAD + 1] = 0  # the first note is in the first bar, unless a change comes before it
        rests, ids = self._tokenizer.onset_ids(np.where(timed, advanced, 0), position[kept])
        np.copyto(columns[ONSET], ids, where=timed, casting="same_kind")
        if rests.any():
            places = np.repeat(np.arange(len(kept)), rests)
            columns = np.insert(columns, places, np.array(self._tokenizer.rest, columns.dtype)[:, None], axis=1)
        return columns

    def _exchange(self, columns: np.ndarray, rng: np.random.Generator) -> None:
        """Exchanges programs in place, and sorts the notes of each onset by their new programs."""
        tokenizer, drums = self._tokenizer, self._tokenizer.first_drum_track
        pitched = np.flatnonzero(np.bincount(columns[INSTRUMENT], minlength=drums)[FIRST_PROGRAM:drums]) + FIRST_PROGRAM
        programs, tracks = np.unique(tokenizer.program_of(pitched)), np.arange(tokenizer.tracks_per_program)
        taken, table = set(programs.tolist()), np.arange(self._sizes[INSTRUMENT], dtype=columns.dtype)
        for program in programs[rng.random(len(programs)) < self.config.exchange_programs].tolist():
            first = program - program % FAMILY
            free = [other for other in range(first, first + FAMILY) if other not in taken]
            if free:
                other = free[rng.integers(len(free))]
                table[tokenizer.instrument_of(program, tracks)] = tokenizer.instrument_of(other, tracks)
                taken.add(other)
        if len(taken) == len(programs):
            return
        columns[INSTRUMENT] = table.take(columns[INSTRUMENT])
        # Only notes change their order, and only among those of one onset: a note there that is not the first one advances no
        # bar and has the position of the note before it.
        is_note, onset = columns[INSTRUMENT] >= FIRST_PROGRAM, columns[ONSET] - FIRST
        follows = onset[1:] == onset[:-1] % self._tokenizer.max_position
        follows &= is_note[1:] & is_note[:-1]
        key = np.zeros(len(onset), np.int64)
        np.cumsum(~follows, out=key[1:])
        key = (key * self._sizes[INSTRUMENT] + columns[INSTRUMENT]) * self._sizes[PITCH] + columns[PITCH]
        order = np.argsort(key, kind="stable")
        columns[INSTRUMENT:] = columns[INSTRUMENT:].take(order, axis=1)


def _factor(low_high: tuple[float, float], rng: np.random.Generator) -> float:
    return math.exp(rng.uniform(math.log(low_high[0]), math.log(low_high[1])))
