"""NMSI: how much a continuation resembles the true one, in four parts, for a batch of pieces at once.

The index that arXiv 2510.00395 reports was never published precisely. This is NMSI-b1, in which each part lies in [0, 1]:

  chroma   mean over bars of cos(c(g), c(r)), c: onsets by pitch class, drums apart
  groove   mean over bars of cos(o(g), o(r)), o: onsets of all instruments by position in the bar, in sixteenths
  ssm      1 - mean over pairs of beats i != j of |S_g - S_r|, S: cosines between what sounds in two beats, by pitch class
  density  1 - sum |d(g) - d(r)| / sum max(d(g), d(r)), d: onsets of all instruments in each beat

g is the generated continuation and r the true one, both from the first tick behind the prompt; NMSI is 25 times the sum.
Bars and beats are the true piece's, in sixteenths from there, for both: what g has too little of is silence, what it has too
much of is cut. A beat is a quarter counted from the bar line; the last one of a bar may be shorter.

Letters: B pairs, N bars, P positions in the longest bar, M beats, T sixteenths.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from sage_jax.music.notes import DRUMS, Piece

STEPS_PER_QUARTER = 4
MAX_BARS, LEAST_BARS, LEAST_NOTES = 16, 4, 8
CHUNK = 128  # pairs that are in work at once, which bounds memory
PARTS = ("chroma", "groove", "ssm", "density")


@dataclasses.dataclass(frozen=True)
class Scores:
    """Each part of B pairs and the index, float64 [B], parts in [0, 1] and `nmsi` in [0, 100].

    drums_only: bool [B], true pieces without a pitched note, whose chroma and ssm are undefined (nan): their index is the
    mean of the two other parts. nmsi_max: the index where a bar's chroma and groove are those of the most similar true bar,
    whichever that is, and an empty bar is a uniform one, as smg-metrics has it: it forgives every change of order.
    """

    chroma: np.ndarray
    groove: np.ndarray
    ssm: np.ndarray
    density: np.ndarray
    drums_only: np.ndarray
    nmsi: np.ndarray
    nmsi_max: np.ndarray


def why_not(reference: Piece, bars: int) -> str | None:
    """Why the first `bars` bars of a true continuation are too little to be compared with; None where they are not."""
    if bars < LEAST_BARS:
        return f"{bars} bars, fewer than {LEAST_BARS}"
    notes = int((reference.notes["onset"] < reference.bar_start(bars)).sum())
    return f"{notes} notes, fewer than {LEAST_NOTES}" if notes < LEAST_NOTES else None


def score(references: Sequence[Piece], candidates: Sequence[Piece], bars: Sequence[int] | None = None) -> Scores:
    """The scores of each candidate against the reference of the same index.

    Both are continuations that begin at tick 0, on any grid. bars: how many of each count; None for all that the reference
    has, 16 at most. Raises ValueError for a reference that is too short or too empty, for none at all, and where numbers differ.
    """
    bars = [min(piece.num_bars, MAX_BARS) for piece in references] if bars is None else list(bars)
    if not references:
        raise ValueError("there is nothing to score")
    if not len(references) == len(candidates) == len(bars):
        raise ValueError(f"{len(references)} references, {len(candidates)} candidates and {len(bars)} bars do not pair up")
    for index, (reference, count) in enumerate(zip(references, bars, strict=True)):
        if reason := why_not(reference, count):
            raise ValueError(f"reference {index} has {reason}")
    parts = (slice(start, start + CHUNK) for start in range(0, len(references), CHUNK))
    chunks = [_score(references[part], candidates[part], bars[part]) for part in parts]
    fields = [field.name for field in dataclasses.fields(Scores)]
    return Scores(**{name: np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in fields})


@dataclasses.dataclass(frozen=True)
class Grids:
    """Bars and beats of B references, in sixteenths from the first tick; what is past a piece's end has index N or M.

    bar, position, beat: int [B, T + 1], of each sixteenth. beat_starts: int [B, M + 1]. bars, beats, ends: int [B], counts.
    bar_lengths: int [B, N], 0 past the end.
    """

    bar: np.ndarray
    position: np.ndarray
    beat: np.ndarray
    beat_starts: np.ndarray
    bars: np.ndarray
    beats: np.ndarray
    ends: np.ndarray
    bar_lengths: np.ndarray

    @classmethod
    def of(cls, references: Sequence[Piece], counts: Sequence[int]) -> "Grids":
        lines = [_bar_lines(piece, bars) for piece, bars in zip(references, counts, strict=True)]
        bars = np.array([len(line) - 1 for line in lines])
        N, T = bars.max(), max(line[-1] for line in lines)
        edges = np.stack([np.append(line, np.full(N + 1 - len(line), line[-1])) for line in lines])
        lengths = np.diff(edges, axis=1)
        steps = np.arange(T + 1)
        bar = (steps[None, :, None] >= edges[:, None, 1:]).sum(axis=-1)  # N from the end of a padded piece on
        bar = np.where(steps[None] < edges[:, -1:], bar, N)
        position = steps[None] - np.take_along_axis(edges, bar, axis=1)
        new_beat = (position % STEPS_PER_QUARTER == 0) & (bar < N)
        beats = new_beat.sum(axis=1)
        M = beats.max()
        beat = np.where(bar < N, np.cumsum(new_beat, axis=1) - 1, M)
        starts = np.repeat(edges[:, -1:], M + 1, axis=1)
        rows, places = np.nonzero(new_beat)
        starts[rows, beat[rows, places]] = places
        return cls(bar, position, beat, starts, bars, beats, edges[:, -1], lengths)


@dataclasses.dataclass(frozen=True)
class Features:
    """What is compared. onsets: int [B, N, 12] by pitch class. groove: int [B, N, P]. sounding: float [B, M, 12], sixteenths
    by pitch class. density: int [B, M]. pitched: bool [B], whether there is a note that is not a drum."""

    onsets: np.ndarray
    groove: np.ndarray
    sounding: np.ndarray
    density: np.ndarray
    pitched: np.ndarray

    @classmethod
    def of(cls, pieces: Sequence[Piece], grids: Grids) -> "Features":
        B, T = grids.bar.shape
        N, P, M = grids.bar_lengths.shape[1], grids.bar_lengths.max(), grids.beat_starts.shape[1] - 1
        row, onset, end, pitch, drum = _notes(pieces, grids.ends)
        bar, beat, position = grids.bar[row, onset], grids.beat[row, onset], grids.position[row, onset]
        count = lambda index, *shape: np.bincount(index, minlength=np.prod(shape)).reshape(shape)
        tone, owner = pitch[~drum] % 12, row[~drum]
        # What sounds changes where notes begin and end: summed up once it is what sounds, twice its length so far.
        changes = count((owner * T + onset[~drum]) * 12 + tone, B, T, 12)
        changes = changes - count((owner * T + end[~drum]) * 12 + tone, B, T, 12)
        length = np.cumsum(np.cumsum(changes, axis=1, dtype=np.int32), axis=1, dtype=np.int32)
        length = np.concatenate([np.zeros_like(length[:, :1]), length], axis=1)
        return cls(
            onsets=count((owner * N + bar[~drum]) * 12 + tone, B, N, 12),
            groove=count((row * N + bar) * P + position, B, N, P),
            sounding=np.diff(np.take_along_axis(length, grids.beat_starts[..., None], axis=1), axis=1).astype(np.float32),
            density=count(row * M + beat, B, M),
            pitched=np.bincount(owner, minlength=B) > 0,
        )


def _bar_lines(piece: Piece, bars: int) -> np.ndarray:
    lines = nearest_steps(piece.bars.start(np.arange(bars + 1)), piece.ticks_per_quarter, STEPS_PER_QUARTER)
    return np.unique(lines)  # a bar shorter than half a sixteenth is none


def nearest_steps(ticks: np.ndarray, ticks_per_quarter: int | np.ndarray, steps_per_quarter: int) -> np.ndarray:
    """The nearest of `steps_per_quarter` steps to each tick, halves up."""
    return (2 * ticks.astype(np.int64) * steps_per_quarter + ticks_per_quarter) // (2 * ticks_per_quarter)


def _notes(pieces: Sequence[Piece], ends: np.ndarray) -> tuple[np.ndarray, ...]:
    """(row, onset, end, pitch, drum) of the notes that begin before `ends`, cut there; of equals, the longest stays."""
    lengths = [len(piece.notes) for piece in pieces]
    row = np.repeat(np.arange(len(pieces)), lengths)
    notes = np.concatenate([piece.notes for piece in pieces])
    grid = np.repeat([piece.ticks_per_quarter for piece in pieces], lengths)
    onset = nearest_steps(notes["onset"], grid, STEPS_PER_QUARTER)
    duration = np.maximum(nearest_steps(notes["duration"], grid, STEPS_PER_QUARTER), 1)
    end = np.minimum(onset + duration, ends[row])
    inside = onset < ends[row]
    row, onset, end, notes = row[inside], onset[inside], end[inside], notes[inside]
    drum = notes["program"] == DRUMS
    same = ((row * (ends.max(initial=0) + 1) + onset) * 2 + drum) * 128 + notes["pitch"]
    order = np.lexsort((-end, same))
    chosen = order[np.append(True, np.diff(same[order]) > 0)] if len(order) else order
    return row[chosen], onset[chosen], end[chosen], notes["pitch"][chosen].astype(np.int64), drum[chosen]


def _score(references: Sequence[Piece], candidates: Sequence[Piece], bars: Sequence[int]) -> Scores:
    grids = Grids.of(references, bars)
    true, made = Features.of(references, grids), Features.of(candidates, grids)
    real_bar = np.arange(grids.bar_lengths.shape[1]) < grids.bars[:, None]
    chroma = _mean_cosine(true.onsets, made.onsets, real_bar)
    groove = _mean_cosine(true.groove, made.groove, real_bar)
    ssm = 1 - _ssm_distance(true.sounding, made.sounding, grids.beats)
    most = np.maximum(true.density, made.density).sum(axis=1)
    density = 1 - np.abs(true.density - made.density).sum(axis=1) / np.maximum(most, 1)

    drums_only = ~true.pitched
    index = lambda chroma, groove: np.where(
        drums_only, 50 * (groove + density), 25 * (chroma + groove + ssm + density)
    )
    nearest = [
        _mean_nearest(_filled(getattr(true, name), size), _filled(getattr(made, name), size), real_bar)
        for name, size in (("onsets", 12), ("groove", grids.bar_lengths[..., None]))
    ]
    undefined = lambda part: np.where(drums_only, np.nan, part)
    return Scores(undefined(chroma), groove, undefined(ssm), density, drums_only, index(chroma, groove), index(*nearest))


def _mean_cosine(one: np.ndarray, other: np.ndarray, real: np.ndarray) -> np.ndarray:
    """The mean over `real` rows [B, N] of the cosines of [B, N, ..]: one of them empty counts 0, both do not count."""
    norms = np.sqrt((one**2).sum(axis=-1) * (other**2).sum(axis=-1))
    cosine = (one * other).sum(axis=-1) / np.where(norms > 0, norms, 1)
    counted = real & (one.any(axis=-1) | other.any(axis=-1))
    total = counted.sum(axis=1)
    return np.where(total > 0, (cosine * counted).sum(axis=1) / np.maximum(total, 1), 1.0)


def _ssm_distance(one: np.ndarray, other: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The mean over pairs i != j of the first `counts` rows [B] of |cos(x_i, x_j) - cos(y_i, y_j)|; an empty row has cosine 0."""
    difference = np.abs(_cosines(one) - _cosines(other))
    # Padding is empty in both, so its differences are 0; so is the diagonal where it is left out.
    difference[:, np.arange(one.shape[1]), np.arange(one.shape[1])] = 0
    return difference.sum(axis=(1, 2), dtype=np.float64) / (counts * (counts - 1))


def _cosines(rows: np.ndarray) -> np.ndarray:
    unit = unit_rows(rows)
    return unit @ unit.swapaxes(1, 2)


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows [.., n] with length 1; an empty one stays empty."""
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1)


def _filled(rows: np.ndarray, size) -> np.ndarray:
    """[B, N, ..] with length 1; an empty row becomes uniform over its first `size` entries."""
    uniform = np.arange(rows.shape[-1]) < size
    return unit_rows(np.where(rows.any(axis=-1, keepdims=True), rows, uniform))


def _mean_nearest(true: np.ndarray, made: np.ndarray, real: np.ndarray) -> np.ndarray:
    """The mean over the rows made of the largest cosine with any true row, of unit rows [B, N, ..], where they are `real`."""
    cosines = np.where(real[:, None, :], made @ true.swapaxes(1, 2), 0)
    return (cosines.max(axis=2) * real).sum(axis=1) / real.sum(axis=1)
