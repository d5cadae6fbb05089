"""The tokenizer of the Multitrack Music Transformer (MMT, arXiv 2207.06983): one row of six attributes per note."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator

import numpy as np

from sage_jax.errors import UserError
from sage_jax.music.notes import DEFAULT_METER, DEFAULT_QPM, NOTE, Piece
from sage_jax.music.quantization_stats import QuantizationStats
from sage_jax.tokenizers.grid import index_in
from sage_jax.tokenizers.mmt_instruments import INSTRUMENT_OF, PROGRAM_OF
from sage_jax.tokenizers.note_events import DEFAULT_GRID, NoteEvents

ATTRIBUTES = ("type", "beat", "position", "pitch", "duration", "instrument")
TYPE, BEAT, POSITION, PITCH, DURATION, INSTRUMENT = range(6)

# Row types. PUBLISHED_TYPES maps each to its published id.
PAD, BOS, EOS, INSTRUMENT_ROW, START_OF_NOTES, NOTE_ROW = range(6)
TYPES = ("PAD", "BOS", "EOS", "instrument", "start-of-notes", "note")
PUBLISHED_TYPES = np.array([0, 0, 4, 1, 2, 3])  # a published batch is padded with zeros

# The types that may come before each type.
PREDECESSORS = {
    INSTRUMENT_ROW: (BOS, INSTRUMENT_ROW),
    START_OF_NOTES: (BOS, INSTRUMENT_ROW),
    NOTE_ROW: (START_OF_NOTES, NOTE_ROW),
    EOS: (START_OF_NOTES, NOTE_ROW),
}

RESOLUTION = 12  # ticks in a beat, which is a quarter
DURATIONS = np.array(
    [*range(1, 13), 15, 16, 18, 20, 21, 24, 30, 36, 40, 42, 48, 60, 72, 84, 96, 120, 144, 168, 192, 384]
)  # fmt: skip
VELOCITY = 64  # of all decoded notes, since MMT does not encode velocity


@dataclasses.dataclass(frozen=True)
class Mmt:
    """A `Tokenizer` whose step is a row of six ids: a piece is an int32 array [N, 6], BOS first and EOS last.

    After BOS there is a row for each instrument, then start-of-notes, then a row for each note. Notes are sorted by beat,
    position, pitch, duration and instrument, without duplicates. A beat is a quarter; beats count from the beginning of the
    piece. Attributes that a type does not use are 0. MMT has no drums, velocities, tempos or meters.

    Bars are `bar_ticks` long from the beginning on. For a piece in another meter than 4/4, make an Mmt of its bar length. The
    bars of a piece whose meter changes cannot be counted correctly.

    grid: must have 12 ticks and one track per program.
    max_beats: the number of beats, 64 to 1025; `quantize` drops notes at later beats.
    bar_ticks: the length of a bar in ticks; no id depends on it.

    For every piece q that `quantize` returned, decode(encode(q)) == q. Raises UserError for a setting that is out of range.
    """

    grid: NoteEvents = DEFAULT_GRID
    max_beats: int = 256
    bar_ticks: int = 48

    def __post_init__(self):
        if self.grid.ticks_per_quarter != RESOLUTION:
            raise UserError(f"tokenizer.ticks_per_quarter is {self.grid.ticks_per_quarter}; mmt needs {RESOLUTION}")
        if self.grid.tracks_per_program > 1:
            raise UserError(f"tokenizer.tracks_per_program is {self.grid.tracks_per_program}; mmt needs 1")
        if not isinstance(self.max_beats, int) or not 64 <= self.max_beats <= 1025:
            raise UserError(f"mmt.max_beats is {self.max_beats!r}; give a whole number from 64 to 1025")
        if not isinstance(self.bar_ticks, int) or self.bar_ticks not in self.grid.meter_ticks:
            raise UserError(f"mmt.bar_ticks is {self.bar_ticks!r}; give the ticks in a bar of a meter, such as 36 for 3/4")

    attributes = ATTRIBUTES

    @property
    def vocab_sizes(self) -> tuple[int, ...]:
        """The number of ids of each attribute."""
        return len(TYPES), self.max_beats + 1, RESOLUTION + 1, 128 + 1, len(DURATIONS) + 1, len(PROGRAM_OF)

    @functools.cached_property
    def meter(self) -> tuple[int, int]:
        """The meter whose bar is `bar_ticks` long; of several, the one with the denominator nearest to 4."""
        fits = np.flatnonzero(self.grid.meter_ticks == self.bar_ticks)
        return min((self.grid.meters[index] for index in fits), key=lambda meter: abs(meter[1] - DEFAULT_METER[1]))

    # Pieces to rows

    def quantize(self, piece: Piece, loss: QuantizationStats | None = None, end: int | None = None) -> Piece:
        """The nearest piece that the vocabulary can encode; adds the quantization error to `loss`.

        Its tempo is 120 quarters per minute and its meter is `meter` throughout; `end` has no effect. Raises ValueError for a
        piece on another grid.
        """
        if piece.ticks_per_quarter != RESOLUTION:
            raise ValueError(f"the piece has {piece.ticks_per_quarter} ticks per quarter, not {RESOLUTION}")
        loss = QuantizationStats() if loss is None else loss
        known = (INSTRUMENT_OF[piece.notes["program"]] > 0) & (piece.notes["onset"] < self.max_beats * RESOLUTION)
        loss.notes_dropped += int((~known).sum())
        notes, _ = self.grid.merge_tracks(piece.notes[known], piece.tracks, loss)
        # The nearest duration; of two equally near, the shorter one.
        duration = DURATIONS[np.searchsorted((DURATIONS[1:] + DURATIONS[:-1]) / 2, notes["duration"])]
        error = np.abs(duration - notes["duration"])
        loss.duration_error_ticks += float(error.sum())
        loss.duration_error_ticks_max = max(loss.duration_error_ticks_max, float(error.max(initial=0)))
        loss.durations_clipped += int((notes["duration"] > DURATIONS[-1]).sum())
        notes["program"], notes["duration"] = PROGRAM_OF[INSTRUMENT_OF[notes["program"]]], duration
        notes["velocity"] = VELOCITY
        kept = np.unique(notes)
        loss.duplicate_notes += len(notes) - len(kept)
        loss.tempos_merged += len(piece.tempos) - 1
        loss.tempo_error_max = max(loss.tempo_error_max, float(np.abs(DEFAULT_QPM / piece.tempos["qpm"] - 1).max()))
        loss.meters_merged += len(piece.meters) - 1
        loss.meters_replaced += sum(tuple(meter) != self.meter for meter in piece.meters[["numerator", "denominator"]].tolist())
        return self._piece(kept)

    def _piece(self, notes: np.ndarray) -> Piece:
        return Piece.from_notes(notes, RESOLUTION, DEFAULT_QPM, self.meter)

    def encode(self, piece: Piece) -> np.ndarray:
        """The rows of a quantized piece, int32 [N, 6]. Raises ValueError for a piece that is not quantized."""
        notes = piece.notes
        instrument = INSTRUMENT_OF[notes["program"]]
        for known, name in (
            (piece == self._piece(notes), "tempo or meter"),
            ((PROGRAM_OF[instrument] == notes["program"]).all(), "program"),
            ((notes["velocity"] == VELOCITY).all(), "velocity"),
            ((notes["onset"] < self.max_beats * RESOLUTION).all(), "beat"),
        ):
            if not known:
                raise ValueError(f"a {name} is not in the vocabulary; quantize the piece first")
        kind, (beat, position) = np.full(len(notes), NOTE_ROW), np.divmod(notes["onset"], RESOLUTION)
        duration = index_in(DURATIONS, notes["duration"], "duration")
        rows = np.stack([kind, beat + 1, position + 1, notes["pitch"] + 1, duration + 1, instrument], axis=1)
        key = self._keys(rows)
        order = np.argsort(key)
        if (np.diff(key[order]) == 0).any():
            raise ValueError("a note occurs twice; quantize the piece first")
        present = np.unique(instrument)
        head = np.zeros((len(present) + 2, len(ATTRIBUTES)), np.int32)
        head[:, TYPE] = [BOS, *[INSTRUMENT_ROW] * len(present), START_OF_NOTES]
        head[1:-1, INSTRUMENT] = present
        return np.concatenate([head, rows[order], [[EOS, 0, 0, 0, 0, 0]]]).astype(np.int32)

    def _keys(self, rows: np.ndarray) -> np.ndarray:
        """The sort key of each of the note `rows` [N, 6], int64 [N]."""
        key = np.zeros(len(rows), np.int64)
        for attribute in range(BEAT, len(ATTRIBUTES)):
            key = key * self.vocab_sizes[attribute] + rows[:, attribute]
        return key

    # Rows to pieces

    def decode(self, steps: np.ndarray) -> Piece:
        """The piece that `steps` [N, 6] encode, up to the first EOS; PAD is skipped.

        `steps` may begin anywhere in a piece, and beats may exceed `max_beats`, as after `join`. Raises ValueError for a row
        that is not valid or not allowed after the rows before it.
        """
        steps = np.asarray(steps, np.int64)
        steps = steps[steps[:, TYPE] != PAD]
        stop = int(np.append(np.flatnonzero(steps[:, TYPE] == EOS), len(steps))[0])
        self._check_types(steps[: stop + 1, TYPE])
        steps = steps[:stop]
        self._check(steps)
        steps = steps[steps[:, TYPE] == NOTE_ROW]
        notes = np.zeros(len(steps), NOTE)
        notes["onset"], notes["program"], notes["pitch"] = _ticks(steps), PROGRAM_OF[steps[:, INSTRUMENT]], steps[:, PITCH] - 1
        notes["duration"], notes["velocity"] = DURATIONS[steps[:, DURATION] - 1], VELOCITY
        return self._piece(notes)

    @staticmethod
    def _check_types(types: np.ndarray) -> None:
        if len(types) and not 0 <= types.min() <= types.max() < len(TYPES):
            raise ValueError("a type is not in the vocabulary")
        for before, after in np.unique(np.stack([types[:-1], types[1:]], axis=1), axis=0).tolist():
            if before not in PREDECESSORS.get(after, ()):
                raise ValueError(f"{TYPES[after]} may not follow {TYPES[before]}")

    def _check(self, steps: np.ndarray) -> None:
        sizes = np.array(self.vocab_sizes)
        sizes[BEAT] = np.iinfo(np.int32).max // RESOLUTION
        kind = steps[:, TYPE]
        used = np.repeat((kind == NOTE_ROW)[:, None], len(ATTRIBUTES), axis=1)
        used[:, INSTRUMENT] |= kind == INSTRUMENT_ROW
        wrong = (steps < 0) | (steps >= sizes) | (used != (steps > 0))
        for attribute in range(BEAT, len(ATTRIBUTES)):
            if wrong[:, attribute].any():
                place = int(np.flatnonzero(wrong[:, attribute])[0])
                name, value = ATTRIBUTES[attribute], steps[place, attribute]
                raise ValueError(f"row {place} ({TYPES[kind[place]]}) may not have {name} {value}")
        for row in (INSTRUMENT_ROW, NOTE_ROW):
            if (np.diff(self._keys(steps[kind == row])) <= 0).any():
                raise ValueError(f"rows of type {TYPES[row]} are not in order, or one occurs twice")

    # Rows without decoding

    @staticmethod
    def num_notes(steps: np.ndarray) -> np.ndarray:
        """The number of notes that each of `steps` [..., 6] completes, int32 [...]; numpy or jax arrays."""
        return (steps[..., TYPE] == NOTE_ROW).astype(np.int32)

    @staticmethod
    def head_length(steps: np.ndarray) -> int:
        """1: BOS alone is not scored. The instruments are, since they carry information about the notes."""
        return 1

    @staticmethod
    def published_ids(steps: np.ndarray) -> np.ndarray:
        """`steps` [..., 6] with the published ids of the types; all other ids are equal."""
        ids = np.array(steps)
        ids[..., TYPE] = PUBLISHED_TYPES[ids[..., TYPE]]
        return ids

    def window(self, steps: np.ndarray, length: int) -> tuple[np.ndarray, int]:
        """As `Tokenizer.window`; the head has the rows of all instruments.

        Beats count from the first bar of the window. Its bars also fit in three quarters of `max_beats`, which leaves beats for
        a continuation.
        """
        ticks, max_ticks = _ticks(steps), self.max_beats * RESOLUTION * 3 // 4
        if len(steps) <= length and ticks.max(initial=0) < max_ticks:
            return steps, 0
        bar, last = ticks // self.bar_ticks, ticks.max()
        in_beats = lambda start: last - bar[start] * self.bar_ticks < max_ticks
        fits = lambda start: in_beats(start) and len(_head(steps, start, length)) + len(steps) - start <= length
        bars, least = _bar_starts(steps, self.bar_ticks), max(len(steps) - length, 1)
        candidates = (*bars[bars >= least].tolist(), *range(least, len(steps)))
        start = next((place for place in candidates if fits(place)), len(steps) - 1)
        return self._crop(steps, start, len(steps), length), int(bar[start])

    def join(self, steps: np.ndarray, more: np.ndarray, bar: int) -> np.ndarray:
        """As `Tokenizer.join`: moves the beats of `more` to count from the beginning of the piece."""
        return np.concatenate([steps, _shifted(more, bar * self.bar_ticks)])

    def windows(self, steps: np.ndarray, context: int) -> Iterator[tuple[np.ndarray, int]]:
        """As `Tokenizer.windows`; the head of a window has the rows of all instruments, and beats count from its first bar."""
        yield np.asarray(steps[:context]), 1
        done, bars = min(context, len(steps)), _bar_starts(steps, self.bar_ticks)
        while done < len(steps):
            # With the whole head if the window then begins after the instruments, else with BOS alone.
            for head in (len(_head(steps, done, context)), 1):
                low, high = (max(done - history + head, 1) for history in (context * 3 // 4, context - context // 2))
                if len(_head(steps, high, context)) == head:
                    break
            start = int(max(bars[(bars >= low) & (bars <= high)], default=high))
            stop = min(start + context - head, len(steps))
            yield self._crop(steps, start, stop, context), head + done - start
            done = stop

    def _crop(self, steps: np.ndarray, start: int, stop: int, length: int) -> np.ndarray:
        """The head of a window of `length` steps, then `steps` [N, 6] from `start` to `stop`, whose first bar becomes bar 0."""
        bar = int(_ticks(steps[start : start + 1])[0]) // self.bar_ticks
        return np.concatenate([_head(steps, start, length), _shifted(steps[start:stop], -bar * self.bar_ticks)])

    # Identity

    def to_dict(self) -> dict:
        """The settings and the name of the tokenizer, JSON-ready."""
        return {"representation": "mmt", **dataclasses.asdict(self), "grid": self.grid.to_dict()}

    @classmethod
    def from_dict(cls, values: dict) -> "Mmt":
        """The inverse of `to_dict`. Raises UserError for the settings of another tokenizer."""
        values = dict(values)
        if values.pop("representation", None) != "mmt":
            raise UserError("the vocabulary is not that of the Multitrack Music Transformer; preprocess the corpus again")
        return cls(**{**values, "grid": NoteEvents.from_dict(values["grid"])})

    @property
    def fingerprint(self) -> str:
        """A short hash of everything that defines the meaning of an id."""
        text = json.dumps(["mmt", self.vocab_sizes, DURATIONS.tolist(), INSTRUMENT_OF.tolist()])
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _ticks(steps: np.ndarray) -> np.ndarray:
    """The onset of each of `steps` [N, 6] in ticks, int64 [N]; 0 for a row that is not a note."""
    steps = np.asarray(steps, np.int64)
    return np.where(steps[:, TYPE] == NOTE_ROW, (steps[:, BEAT] - 1) * RESOLUTION + steps[:, POSITION] - 1, 0)


def _shifted(steps: np.ndarray, ticks: int) -> np.ndarray:
    """`steps` [N, 6] with every note `ticks` later."""
    moved, notes = np.array(steps), steps[:, TYPE] == NOTE_ROW
    beat, position = np.divmod(_ticks(steps[notes]) + ticks, RESOLUTION)
    moved[notes, BEAT], moved[notes, POSITION] = beat + 1, position + 1
    return moved


def _bar_starts(steps: np.ndarray, bar_ticks: int) -> np.ndarray:
    """Indices of the first note of each bar in `steps` [N, 6]."""
    notes = np.flatnonzero(steps[:, TYPE] == NOTE_ROW)
    return notes[np.diff(_ticks(steps[notes]) // bar_ticks, prepend=-1) > 0]


def _head(steps: np.ndarray, start: int, length: int) -> np.ndarray:
    """The head of a window of `length` steps from `start` on, [H, 6].

    It is BOS, the instruments and start-of-notes, or BOS alone if the instruments follow in the window. Instruments that would
    take more than half of the window are left out.
    """
    begin = np.flatnonzero(steps[:, TYPE] == START_OF_NOTES)[:1]
    if not len(begin) or start <= begin[0]:
        return steps[:1]
    instruments = steps[1 : begin[0]][: max(length // 2 - 2, 0)]
    return np.concatenate([steps[:1], instruments, steps[begin]])
