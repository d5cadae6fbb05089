"""REMI+: a piece as one stream of tokens of ten kinds, in the token order of MidiTok."""

import dataclasses
import functools
from typing import ClassVar

import numpy as np

from sage_jax.music.notes import DRUMS, METER, NOTE, TEMPO, Piece, bar_ticks
from sage_jax.music.quantization_stats import QuantizationStats
from sage_jax.tokenizers.grid import index_in
from sage_jax.tokenizers.note_events import DEFAULT_GRID, NoteEvents

SPECIAL, BAR, METER_OF, POSITION, TEMPO_OF, PROGRAM, PITCH, DRUM, VELOCITY, DURATION = range(10)
KINDS = ("Special", "Bar", "TimeSig", "Position", "Tempo", "Program", "Pitch", "PitchDrum", "Velocity", "Duration")
PAD, BOS, EOS = range(3)

# The kinds that may follow each kind. A stream begins with BOS and a bar and ends with EOS, both of kind SPECIAL.
FOLLOWERS = {
    SPECIAL: (BAR,),
    BAR: (METER_OF,),
    METER_OF: (BAR, POSITION, SPECIAL),
    POSITION: (TEMPO_OF, PROGRAM),
    TEMPO_OF: (PROGRAM, BAR, POSITION, SPECIAL),
    PROGRAM: (PITCH, DRUM),
    PITCH: (VELOCITY,),
    DRUM: (VELOCITY,),
    VELOCITY: (DURATION,),
    DURATION: (PROGRAM, BAR, POSITION, SPECIAL),
}


@dataclasses.dataclass(frozen=True)
class Remi:
    """Encodes a piece as an int32 array [T] of tokens of one vocabulary, BOS first and EOS last.

    A bar is Bar and TimeSig, then its events in order of time: Position, Tempo if the tempo changes, and for each note Program,
    Pitch (or PitchDrum), Velocity and Duration, sorted by program and pitch. Empty bars are encoded too, up to the bar of the
    last event. The order is MidiTok's (3.1, REMI with programs, tempos and time signatures).

    grid: the ticks, durations, velocities, tempos and meters. On the same grid, Remi and NoteEvents encode the same notes.
    followers: the kinds that may follow each kind.

    For every piece q that `quantize` returned, decode(encode(q)) == q.
    """

    grid: NoteEvents = DEFAULT_GRID
    followers: ClassVar[dict[int, tuple[int, ...]]] = FOLLOWERS

    @functools.cached_property
    def sizes(self) -> np.ndarray:
        """The number of ids of each kind, int [kinds]."""
        grid = self.grid
        numbers = (3, 1, len(grid.meters), grid.max_position, len(grid.tempos), DRUMS + 1, 128, 128)
        return np.array([*numbers, len(grid.velocities), len(grid.durations)])

    @functools.cached_property
    def starts(self) -> np.ndarray:
        """The first id of each kind, int [kinds]."""
        return np.concatenate([[0], np.cumsum(self.sizes)[:-1]])

    @functools.cached_property
    def follows(self) -> np.ndarray:
        """bool [kinds, kinds]: whether a token of the second kind may follow one of the first."""
        follows = np.zeros((len(KINDS), len(KINDS)), bool)
        for kind, followers in self.followers.items():
            follows[kind, list(followers)] = True
        return follows

    @property
    def vocab_size(self) -> int:
        """The number of ids of all kinds."""
        return int(self.sizes.sum())

    def kinds(self, tokens: np.ndarray) -> np.ndarray:
        """The kind of each token, int of the same shape."""
        return np.searchsorted(self.starts, tokens, "right") - 1

    def name(self, token: int) -> str:
        """The name of a token in MidiTok's style, such as Pitch_60; durations and positions are in ticks of the grid."""
        kind = int(self.kinds(np.array(token)))
        value = int(token - self.starts[kind])
        grid = self.grid
        shown = {
            SPECIAL: lambda: ("PAD", "BOS", "EOS")[value],
            BAR: lambda: "Bar_None",
            METER_OF: lambda: "TimeSig_{}/{}".format(*grid.meters[value]),
            TEMPO_OF: lambda: f"Tempo_{grid.tempos[value]:g}",
            PROGRAM: lambda: f"Program_{-1 if value == DRUMS else value}",
            VELOCITY: lambda: f"Velocity_{grid.velocities[value]}",
            DURATION: lambda: f"Duration_{grid.durations[value]}",
        }
        return shown.get(kind, lambda: f"{KINDS[kind]}_{value}")()

    def quantize(self, piece: Piece, loss: QuantizationStats | None = None, end: int | None = None) -> Piece:
        """The nearest piece that the vocabulary can encode; adds the quantization error to `loss`.

        As `Grid.quantize`, and in addition no meter change cuts a bar short. The cut bar gets a meter of its true length; if
        the vocabulary has none, the change moves to the next bar line, or is dropped if that is not before the end.
        """
        loss = QuantizationStats() if loss is None else loss
        piece = self.grid.quantize(piece, loss, end)
        end = piece.end if end is None else end
        first, *changes = piece.meters.tolist()
        meters = [first]
        for tick, numerator, denominator in changes:
            start, *meter = meters[-1]
            length = int(bar_ticks(*meter, self.grid.ticks_per_quarter))
            rest = max(tick - start, 0) % length
            tick = max(tick, start)  # if several changes move to one bar line, the last one holds
            short = self._meter_of_length(rest)
            if rest:
                loss.meters_replaced += 1
                if short:
                    meters = _with_change(meters, (tick - rest, *short))
                else:
                    tick += length - rest
            if tick < max(end, 1):
                meters = _with_change(meters, (tick, numerator, denominator))
            else:
                loss.changes_after_the_end += 1
        return dataclasses.replace(piece, meters=np.array(meters, METER))

    def _meter_of_length(self, ticks: int) -> tuple[int, int] | None:
        """The meter of the longest beat whose bar has `ticks` ticks; None if there is none."""
        fits = np.flatnonzero(self.grid.meter_ticks == ticks)
        return min((self.grid.meters[index] for index in fits), key=lambda meter: meter[1], default=None)

    def encode(self, piece: Piece) -> np.ndarray:
        """The tokens of a quantized piece, int32 [T]. Raises ValueError for a piece that is not quantized."""
        notes, tempos = piece.notes, piece.tempos
        ticks = np.concatenate([notes["onset"], tempos["tick"], piece.meters["tick"]]).astype(np.int64)
        bar, position, _ = piece.bars.locate(ticks)
        count = int(bar.max()) + 1
        _, _, meter_row = piece.bars.locate(piece.bars.start(np.arange(count)))
        meter = np.array([self.grid.meters.index(tuple(row)) for row in piece.meters[["numerator", "denominator"]].tolist()])
        if (np.diff(piece.bars.starts) % piece.bars.lengths[:-1]).any():
            raise ValueError("a meter change cuts a bar short; quantize the piece first")

        token = lambda kind, value: self.starts[kind] + value
        drum = notes["program"] == DRUMS
        note_tokens = np.stack(
            [
                token(PROGRAM, notes["program"]),
                np.where(drum, token(DRUM, notes["pitch"]), token(PITCH, notes["pitch"])),
                token(VELOCITY, self.grid.velocity_index(notes["velocity"])),
                token(DURATION, self.grid.duration_index(notes["duration"])),
            ],
            axis=1,
        )
        tempo_tokens = token(TEMPO_OF, index_in(self.grid.tempos, tempos["qpm"], "tempo"))
        here = slice(0, len(notes) + len(tempos))
        moments = np.unique(np.stack([bar[here], position[here]], axis=1), axis=0)
        bars = np.arange(count)
        # Groups of tokens [n, width], with the bars, positions and rank by which they are sorted.
        groups = [
            (bars, np.full(count, -1), 0, np.stack([np.full(count, token(BAR, 0)), token(METER_OF, meter[meter_row])], axis=1)),
            (moments[:, 0], moments[:, 1], 1, token(POSITION, moments[:, 1])[:, None]),
            (bar[len(notes) : here.stop], position[len(notes) : here.stop], 2, tempo_tokens[:, None]),
            (bar[: len(notes)], position[: len(notes)], 3, note_tokens),
        ]
        at_bar, at_position, rank, parts = zip(*groups, strict=True)
        widths = np.concatenate([np.full(len(part), part.shape[1]) for part in parts])
        ranks = np.concatenate([np.full(len(part), each) for part, each in zip(parts, rank, strict=True)])
        order = np.lexsort((ranks, np.concatenate(at_position), np.concatenate(at_bar)))
        flat = np.concatenate([part.ravel() for part in parts])
        first = np.concatenate([[0], np.cumsum(widths)[:-1]])
        sorted_first = np.concatenate([[0], np.cumsum(widths[order])[:-1]])
        index = np.repeat(first[order] - sorted_first, widths[order]) + np.arange(len(flat))
        return np.concatenate([[BOS], flat[index], [EOS]]).astype(np.int32)

    def decode(self, tokens: np.ndarray) -> Piece:
        """The piece that `tokens` [T] encode, up to the first EOS; BOS, PAD and an incomplete last note are skipped.

        Raises ValueError for a token that may not follow the one before, and for a position that does not increase in its bar.
        """
        tokens = np.asarray(tokens, np.int64)
        if len(tokens) and (tokens.min() < 0 or tokens.max() >= self.vocab_size):
            raise ValueError("a token is not in the vocabulary")
        stop = np.flatnonzero(tokens == EOS)
        tokens = tokens[: stop[0]] if len(stop) else tokens
        tokens = tokens[tokens > EOS]
        kind = self.kinds(tokens)
        value = tokens - self.starts[kind]
        self._check(kind, value)

        bar = np.cumsum(kind == BAR) - 1
        meter_tokens = np.flatnonzero(kind == METER_OF)
        meter = value[meter_tokens]
        lengths = self.grid.meter_ticks[meter]
        starts = np.concatenate([[0], np.cumsum(lengths)])[: max(len(meter), 1)]
        position = latest(np.where(kind == POSITION, value, -1))
        tick = starts[np.clip(bar, 0, len(starts) - 1)] + np.maximum(position, 0) if len(tokens) else value

        ends = np.flatnonzero(kind == DURATION)
        notes = np.zeros(len(ends), NOTE)
        notes["onset"], notes["program"], notes["pitch"] = tick[ends], value[ends - 3], value[ends - 2]
        notes["velocity"], notes["duration"] = self.grid.velocities[value[ends - 1]], self.grid.durations[value[ends]]
        changes = np.flatnonzero(kind == TEMPO_OF)
        tempos = np.array(list(zip(tick[changes], self.grid.tempos[value[changes]], strict=True)), TEMPO)
        changed = np.append(True, np.diff(meter) != 0)[: len(meter)]
        meters = np.array(
            [(start, *self.grid.meters[each]) for start, each in zip(starts[changed], meter[changed], strict=True)], METER
        )
        return Piece.from_changes(notes, tempos, meters, self.grid.ticks_per_quarter)

    def _check(self, kind: np.ndarray, value: np.ndarray) -> None:
        if not len(kind):
            return
        before = np.append(SPECIAL, kind[:-1])
        wrong = ~self.follows[before, kind]
        drum = np.append(0, value[:-1]) == DRUMS
        wrong |= ((kind == DRUM) & ~drum) | ((kind == PITCH) & drum)
        if wrong.any():
            place = int(np.flatnonzero(wrong)[0])
            raise ValueError(f"{KINDS[kind[place]]} may not follow {KINDS[before[place]]} (token {place} after BOS)")
        self._check_order(kind, value)

    def _check_order(self, kind: np.ndarray, value: np.ndarray) -> None:
        moments = np.flatnonzero((kind == POSITION) | (kind == BAR))
        at = np.where(kind[moments] == BAR, -1, value[moments])
        back = (np.diff(at, prepend=-2) <= 0) & (kind[moments] == POSITION)
        if back.any():
            raise ValueError(f"a position does not increase in its bar (token {int(moments[back][0])} after BOS)")


def _with_change(meters: list[tuple[int, int, int]], change: tuple[int, int, int]) -> list[tuple[int, int, int]]:
    """`meters` with `change` (tick, numerator, denominator) at or after the last one; unchanged if that meter holds already."""
    meters = [row for row in meters if row[0] < change[0]]
    return meters if meters and meters[-1][1:] == change[1:] else [*meters, change]


def latest(values: np.ndarray) -> np.ndarray:
    """`values` [N] with each negative one replaced by the last non-negative one before it, or by values[0] if there is none."""
    place = np.maximum.accumulate(np.where(values >= 0, np.arange(len(values)), 0)) if len(values) else values
    return values[place]
