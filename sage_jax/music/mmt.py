"""The Multitrack Music Transformer's representation (arXiv 2207.06983): rows of six attributes, one for each note."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator

import numpy as np

from sage_jax.errors import UserError
from sage_jax.music.events import NoteEvents, index_in
from sage_jax.music.loss import GridLoss
from sage_jax.music.mmt_instruments import INSTRUMENT_OF, PROGRAM_OF
from sage_jax.music.notes import DEFAULT_METER, DEFAULT_QPM, NOTE, Piece

ATTRIBUTES = ("type", "beat", "position", "pitch", "duration", "instrument")
TYPE, BEAT, POSITION, PITCH, DURATION, INSTRUMENT = range(6)

# Types in the order in which they may follow; the published codes of the same types are in PUBLISHED_TYPES.
PAD, BOS, EOS, INSTRUMENT_ROW, START_OF_NOTES, NOTE_ROW = range(6)
TYPES = ("PAD", "BOS", "EOS", "instrument", "start-of-notes", "note")
PUBLISHED_TYPES = np.array([0, 0, 4, 1, 2, 3])  # a published batch is padded with zeros

# What a row may follow.
FOLLOWS = {
    INSTRUMENT_ROW: (BOS, INSTRUMENT_ROW),
    START_OF_NOTES: (BOS, INSTRUMENT_ROW),
    NOTE_ROW: (START_OF_NOTES, NOTE_ROW),
    EOS: (START_OF_NOTES, NOTE_ROW),
}

RESOLUTION = 12  # ticks in a beat, which is a quarter
DURATIONS = np.array(
    [*range(1, 13), 15, 16, 18, 20, 21, 24, 30, 36, 40, 42, 48, 60, 72, 84, 96, 120, 144, 168, 192, 384]
)  # fmt: skip
VELOCITY = 64  # of every note that is decoded, as MMT does not tell it


@dataclasses.dataclass(frozen=True)
class Mmt:
    """A representation: a piece is an int32 array [N, 6] of ids, BOS first and EOS last.

    Behind BOS there is a row for each instrument, start-of-notes, and a row for each note in the order beat, position, pitch,
    duration, instrument, none twice. Beats count from the beginning and are quarters. What a type has no use for is 0.
    MMT knows no drums, velocities, tempos or meters. Where bars are counted, they are `bar_ticks` long from the beginning on:
    whoever works on a piece in another meter than 4/4 makes an Mmt for it, and a piece that changes its meter can't have its
    bars counted right.

    grid: of 12 ticks per quarter. max_beats: notes at later beats are not told. bar_ticks: no id depends on it. For every
    piece q that `quantize` returned, decode(encode(q)) == q. Raises UserError for impossible settings.
    """

    grid: NoteEvents = NoteEvents()
    max_beats: int = 256
    bar_ticks: int = 48

    def __post_init__(self):
        if self.grid.ticks_per_quarter != RESOLUTION:
            raise UserError(f"tokenizer.ticks_per_quarter is {self.grid.ticks_per_quarter}; mmt needs {RESOLUTION}")
        if not isinstance(self.max_beats, int) or not 64 <= self.max_beats <= 1025:
            raise UserError(f"mmt.max_beats is {self.max_beats!r}; give a whole number from 64 to 1025")
        if not isinstance(self.bar_ticks, int) or self.bar_ticks not in self.grid.meter_ticks:
            raise UserError(f"mmt.bar_ticks is {self.bar_ticks!r}; give the ticks in a bar of a meter, such as 36 for 3/4")

    attributes = ATTRIBUTES

    @property
    def vocab_sizes(self) -> tuple[int, ...]:
        return len(TYPES), self.max_beats + 1, RESOLUTION + 1, 128 + 1, len(DURATIONS) + 1, len(PROGRAM_OF)

    @functools.cached_property
    def meter(self) -> tuple[int, int]:
        """The meter of a bar of `bar_ticks`: of several, the one that counts quarters."""
        fits = np.flatnonzero(self.grid.meter_ticks == self.bar_ticks)
        return min((self.grid.meters[index] for index in fits), key=lambda meter: abs(meter[1] - DEFAULT_METER[1]))

    # Pieces to rows

    def quantize(self, piece: Piece, loss: GridLoss | None = None, end: int | None = None) -> Piece:
        """The nearest piece that the rows can tell; what that loses is added to `loss`.

        It is at 120 quarters per minute in `meter` throughout, whatever changes before `end`. Raises ValueError for another grid.
        """
        if piece.ticks_per_quarter != RESOLUTION:
            raise ValueError(f"the piece has {piece.ticks_per_quarter} ticks per quarter, not {RESOLUTION}")
        loss = GridLoss() if loss is None else loss
        known = (INSTRUMENT_OF[piece.notes["program"]] > 0) & (piece.notes["onset"] < self.max_beats * RESOLUTION)
        loss.notes_dropped += int((~known).sum())
        notes = piece.notes[known]
        # The nearest duration, of two the shorter one, as the first of the least distances is.
        duration = DURATIONS[np.searchsorted((DURATIONS[1:] + DURATIONS[:-1]) / 2, notes["duration"])]
        error = np.abs(duration - notes["duration"])
        loss.duration_error_ticks += float(error.sum())
        loss.duration_error_ticks_max = max(loss.duration_error_ticks_max, float(error.max(initial=0)))
        loss.durations_clipped += int((notes["duration"] > DURATIONS[-1]).sum())
        notes["program"], notes["duration"] = PROGRAM_OF[INSTRUMENT_OF[notes["program"]]], duration
        notes["velocity"] = VELOCITY
        told = np.unique(notes)
        loss.duplicate_notes += len(notes) - len(told)
        loss.tempos_merged += len(piece.tempos) - 1
        loss.tempo_error_max = max(loss.tempo_error_max, float(np.abs(DEFAULT_QPM / piece.tempos["qpm"] - 1).max()))
        loss.meters_merged += len(piece.meters) - 1
        loss.meters_replaced += sum(tuple(meter) != self.meter for meter in piece.meters[["numerator", "denominator"]].tolist())
        return self._piece(told)

    def _piece(self, notes: np.ndarray) -> Piece:
        return Piece.from_notes(notes, RESOLUTION, DEFAULT_QPM, self.meter)

    def encode(self, piece: Piece) -> np.ndarray:
        """The rows of a quantized piece, int32 [N, 6]. Raises ValueError for one that is not quantized."""
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
            raise ValueError("a note is there twice; quantize the piece first")
        present = np.unique(instrument)
        head = np.zeros((len(present) + 2, len(ATTRIBUTES)), np.int32)
        head[:, TYPE] = [BOS, *[INSTRUMENT_ROW] * len(present), START_OF_NOTES]
        head[1:-1, INSTRUMENT] = present
        return np.concatenate([head, rows[order], [[EOS, 0, 0, 0, 0, 0]]]).astype(np.int32)

    def _keys(self, rows: np.ndarray) -> np.ndarray:
        """A number for each note by which notes are in order."""
        key = np.zeros(len(rows), np.int64)
        for attribute in range(BEAT, len(ATTRIBUTES)):
            key = key * self.vocab_sizes[attribute] + rows[:, attribute]
        return key

    # Rows to pieces

    def decode(self, steps: np.ndarray) -> Piece:
        """The piece that `steps` [N, 6] tell, up to the first EOS; PAD is passed over.

        They may begin anywhere in a piece. Beats may go on past `max_beats`, as `join` has them do. Raises ValueError for a
        row that may not stand where it does.
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
            if before not in FOLLOWS.get(after, ()):
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
                raise ValueError(f"rows of type {TYPES[row]} are not in order, or one is there twice")

    # Work on rows as they are

    @staticmethod
    def num_notes(steps: np.ndarray) -> np.ndarray:
        """The notes that each of `steps` [..., 6] completes: int32 [...]."""
        return (steps[..., TYPE] == NOTE_ROW).astype(np.int32)

    @staticmethod
    def head_length(steps: np.ndarray) -> int:
        """BOS alone is given: the instruments tell about the notes, so they count."""
        return 1

    @staticmethod
    def codes(steps: np.ndarray) -> np.ndarray:
        """The rows [..., 6] in the published codes, which differ in the numbers of the types."""
        codes = np.array(steps)
        codes[..., TYPE] = PUBLISHED_TYPES[codes[..., TYPE]]
        return codes

    def window(self, steps: np.ndarray, length: int) -> tuple[np.ndarray, int]:
        """The last bars that fit in `length` steps, behind the rows of all instruments, and the number of the first of them.

        Beats count from that bar on. So that there is time to go on in, the bars must fit in three quarters of `max_beats`
        besides. Of a last bar that is too long by itself: its last notes.
        """
        ticks, most = _ticks(steps), self.max_beats * RESOLUTION * 3 // 4
        if len(steps) <= length and ticks.max(initial=0) < most:
            return steps, 0
        bar, last = ticks // self.bar_ticks, ticks.max()
        soon = lambda start: last - bar[start] * self.bar_ticks < most
        fits = lambda start: soon(start) and len(_head(steps, start, length)) + len(steps) - start <= length
        begin, least = _bar_starts(steps, self.bar_ticks), max(len(steps) - length, 1)
        places = (*begin[begin >= least].tolist(), *range(least, len(steps)))
        first = next((place for place in places if fits(place)), len(steps) - 1)
        return self._cut(steps, first, len(steps), length), int(bar[first])

    def join(self, steps: np.ndarray, more: np.ndarray, bar: int) -> np.ndarray:
        """`steps` and behind them `more`, whose beats count from the beginning of the `bar` that `window` told."""
        return np.concatenate([steps, _moved(more, bar * self.bar_ticks)])

    def windows(self, steps: np.ndarray, context: int) -> Iterator[tuple[np.ndarray, int]]:
        """Windows of at most `context` of `steps`, and where in each begins what it is to foretell: each step but BOS once.

        Each but the first begins with the rows of all instruments, which the first has foretold, and counts beats from its own
        first bar.
        """
        yield np.asarray(steps[:context]), 1
        done, bars = min(context, len(steps)), _bar_starts(steps, self.bar_ticks)
        while done < len(steps):
            for head in (len(_head(steps, done, context)), 1):
                low, high = (max(done - past + head, 1) for past in (context * 3 // 4, context - context // 2))
                if len(_head(steps, high, context)) == head:
                    break
            start = int(max(bars[(bars >= low) & (bars <= high)], default=high))
            stop = min(start + context - head, len(steps))
            yield self._cut(steps, start, stop, context), head + done - start
            done = stop

    def _cut(self, steps: np.ndarray, start: int, stop: int, length: int) -> np.ndarray:
        """The steps from `start` up to `stop` behind their head, with beats from the first bar on."""
        bar = int(_ticks(steps[start : start + 1])[0]) // self.bar_ticks
        return np.concatenate([_head(steps, start, length), _moved(steps[start:stop], -bar * self.bar_ticks)])

    # Identity

    def to_dict(self) -> dict:
        """The settings, JSON-ready, with the name of the representation."""
        return {"representation": "mmt", **dataclasses.asdict(self), "grid": self.grid.to_dict()}

    @classmethod
    def from_dict(cls, values: dict) -> "Mmt":
        """The representation that `to_dict` told of. Raises UserError for another kind."""
        values = dict(values)
        if values.pop("representation", None) != "mmt":
            raise UserError("the vocabulary is not that of the Multitrack Music Transformer; preprocess the corpus again")
        return cls(**{**values, "grid": NoteEvents.from_dict(values["grid"])})

    @property
    def fingerprint(self) -> str:
        """A short hash of everything that the meaning of an id depends on."""
        text = json.dumps(["mmt", self.vocab_sizes, DURATIONS.tolist(), INSTRUMENT_OF.tolist()])
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _ticks(steps: np.ndarray) -> np.ndarray:
    """The onset of each of `steps` [N, 6] in ticks, 0 for one that is no note."""
    steps = np.asarray(steps, np.int64)
    return np.where(steps[:, TYPE] == NOTE_ROW, (steps[:, BEAT] - 1) * RESOLUTION + steps[:, POSITION] - 1, 0)


def _moved(steps: np.ndarray, ticks: int) -> np.ndarray:
    """`steps` with every note `ticks` later."""
    moved, notes = np.array(steps), steps[:, TYPE] == NOTE_ROW
    beat, position = np.divmod(_ticks(steps[notes]) + ticks, RESOLUTION)
    moved[notes, BEAT], moved[notes, POSITION] = beat + 1, position + 1
    return moved


def _bar_starts(steps: np.ndarray, bar_ticks: int) -> np.ndarray:
    """Where in `steps` the notes stand that are the first in their bar."""
    notes = np.flatnonzero(steps[:, TYPE] == NOTE_ROW)
    return notes[np.diff(_ticks(steps[notes]) // bar_ticks, prepend=-1) > 0]


def _head(steps: np.ndarray, start: int, length: int) -> np.ndarray:
    """The head of a window of `length` steps from `start` on: BOS and, unless they follow, the instruments and start-of-notes.

    Of the instruments no more than leave half of the window to notes.
    """
    begin = np.flatnonzero(steps[:, TYPE] == START_OF_NOTES)[:1]
    if not len(begin) or start <= begin[0]:
        return steps[:1]
    instruments = steps[1 : begin[0]][: max(length // 2 - 2, 0)]
    return np.concatenate([steps[:1], instruments, steps[begin]])
