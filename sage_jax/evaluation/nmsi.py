"""NMSI: the similarity of a continuation to the reference, in four parts, for a batch of pieces at once.

The index that arXiv 2510.00395 reports was never published precisely. This is NMSI-b1, in which each part lies in [0, 1]:

  chroma   mean over bars of cos(c(g), c(r)), c: onsets by pitch class, without drums
  groove   mean over bars of cos(o(g), o(r)), o: onsets of all instruments by position in the bar, in sixteenths
  ssm      1 - mean over pairs of beats i != j of |S_g - S_r|, S: cosines between the sounding pitch classes of two beats
  density  1 - sum |d(g) - d(r)| / sum max(d(g), d(r)), d: onsets of all instruments in each beat

g is the generated continuation and r the reference, both from the first tick after the prompt; NMSI is 25 times the sum.
The bars and beats of the reference, on a grid of sixteenths, apply to both. Where g is shorter than r it counts as silence, and
where it is longer it is cut. A beat is a quarter, counted from the bar line; the last beat of a bar may be shorter.

Dimensions: B pairs, N bars, P positions in the longest bar, M beats, T sixteenths.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from sage_jax.music.notes import DRUMS, Piece

STEPS_PER_QUARTER = 4
MAX_BARS, MIN_BARS, MIN_NOTES = 16, 4, 8
CHUNK = 128  # pairs scored at once, to bound memory
PARTS = ("chroma", "groove", "ssm", "density")


@dataclasses.dataclass(frozen=True)
class Scores:
    """The scores of B pairs, float64 [B]: the parts in [0, 1], `nmsi` and `nmsi_max` in [0, 100].

    drums_only: bool [B], references without a pitched note. Their chroma and ssm are undefined (nan), and their NMSI is the
    mean of the two other parts.
    nmsi_max: the variant of smg-metrics, which ignores the order of bars. It compares each generated bar's chroma and groove
    with those of the most similar reference bar, and takes an empty bar as uniform.
    """

    chroma: np.ndarray
    groove: np.ndarray
    ssm: np.ndarray
    density: np.ndarray
    drums_only: np.ndarray
    nmsi: np.ndarray
    nmsi_max: np.ndarray


def exclusion_reason(reference: Piece, bars: int) -> str | None:
    """Why the first `bars` bars of a reference are too short or too sparse to score against; None if they are usable."""
    if bars < MIN_BARS:
        return f"{bars} bars, fewer than {MIN_BARS}"
    notes = int((reference.notes["onset"] < reference.bar_start(bars)).sum())
    return f"{notes} notes, fewer than {MIN_NOTES}" if notes < MIN_NOTES else None


def score(references: Sequence[Piece], candidates: Sequence[Piece], bars: Sequence[int] | None = None) -> Scores:
    """Scores each candidate against the reference of the same index.

    Both are continuations that begin at tick 0, on any grid. bars: the number of bars to score of each pair; None for all bars
    of the reference, at most 16. Raises ValueError for a reference that is too short or too sparse, and for empty or unequal
    lists.
    """
    bars = [min(piece.num_bars, MAX_BARS) for piece in references] if bars is None else list(bars)
    if not references:
        raise ValueError("there is nothing to score")
    if not len(references) == len(candidates) == len(bars):
        raise ValueError(f"{len(references)} references, {len(candidates)} candidates and {len(bars)} bars do not pair up")
    for index, (reference, count) in enumerate(zip(references, bars, strict=True)):
        if reason := exclusion_reason(reference, count):
            raise ValueError(f"reference {index} has {reason}")
    parts = (slice(start, start + CHUNK) for start in range(0, len(references), CHUNK))
    chunks = [_score(references[part], candidates[part], bars[part]) for part in parts]
    fields = [field.name for field in dataclasses.fields(Scores)]
    return Scores(**{name: np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in fields})


@dataclasses.dataclass(frozen=True)
class Grids:
    """Bars and beats of B references, in sixteenths from the first tick. Past a piece's end the bar index is N and the beat
    index M.

    bar, position, beat: int [B, T + 1], of each sixteenth. beat_starts: int [B, M + 1].
    bars, beats, ends: int [B], the number of bars, beats and sixteenths. bar_lengths: int [B, N], 0 past the end.
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
        bar = (steps[None, :, None] >= edges[:, None, 1:]).sum(axis=-1)  # N past a piece's end
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
    """The compared features.

    onsets: int [B, N, 12], pitched onsets by pitch class. groove: int [B, N, P], all onsets by position.
    sounding: float [B, M, 12], the sounding sixteenths of each pitch class. density: int [B, M], all onsets.
    pitched: bool [B], whether there is a pitched note.
    """

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
        # +1 at onsets and -1 at ends: the first cumulative sum counts sounding notes, the second their sixteenths so far.
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
    return np.unique(lines)  # drops bars that round to no sixteenth


def nearest_steps(ticks: np.ndarray, ticks_per_quarter: int | np.ndarray, steps_per_quarter: int) -> np.ndarray:
    """Each tick rounded to steps of `steps_per_quarter`, halves up."""
    return (2 * ticks.astype(np.int64) * steps_per_quarter + ticks_per_quarter) // (2 * ticks_per_quarter)


def _notes(pieces: Sequence[Piece], ends: np.ndarray) -> tuple[np.ndarray, ...]:
    """(row, onset, end, pitch, drum) of the notes that begin before `ends`, cut there. Keeps the longest of equal notes."""
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
    reference, generated = Features.of(references, grids), Features.of(candidates, grids)
    real_bar = np.arange(grids.bar_lengths.shape[1]) < grids.bars[:, None]
    chroma = _mean_cosine(reference.onsets, generated.onsets, real_bar)
    groove = _mean_cosine(reference.groove, generated.groove, real_bar)
    ssm = 1 - _ssm_distance(reference.sounding, generated.sounding, grids.beats)
    most = np.maximum(reference.density, generated.density).sum(axis=1)
    density = 1 - np.abs(reference.density - generated.density).sum(axis=1) / np.maximum(most, 1)

    drums_only = ~reference.pitched
    index = lambda chroma, groove: np.where(
        drums_only, 50 * (groove + density), 25 * (chroma + groove + ssm + density)
    )
    nearest = [
        _mean_nearest(_filled(getattr(reference, name), size), _filled(getattr(generated, name), size), real_bar)
        for name, size in (("onsets", 12), ("groove", grids.bar_lengths[..., None]))
    ]
    undefined = lambda part: np.where(drums_only, np.nan, part)
    return Scores(undefined(chroma), groove, undefined(ssm), density, drums_only, index(chroma, groove), index(*nearest))


def _mean_cosine(one: np.ndarray, other: np.ndarray, real: np.ndarray) -> np.ndarray:
    """The mean cosine over `real` rows [B, N] of [B, N, ..]: 0 if one row is empty; pairs of empty rows are excluded."""
    norms = np.sqrt((one**2).sum(axis=-1) * (other**2).sum(axis=-1))
    cosine = (one * other).sum(axis=-1) / np.where(norms > 0, norms, 1)
    counted = real & (one.any(axis=-1) | other.any(axis=-1))
    total = counted.sum(axis=1)
    return np.where(total > 0, (cosine * counted).sum(axis=1) / np.maximum(total, 1), 1.0)


def _ssm_distance(one: np.ndarray, other: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The mean over i != j, within the first `counts` rows [B], of |cos(x_i, x_j) - cos(y_i, y_j)|; 0 for empty rows."""
    difference = np.abs(_cosines(one) - _cosines(other))
    # Padding is empty in both, so its differences are 0; the diagonal is set to 0 to exclude it.
    difference[:, np.arange(one.shape[1]), np.arange(one.shape[1])] = 0
    return difference.sum(axis=(1, 2), dtype=np.float64) / (counts * (counts - 1))


def _cosines(rows: np.ndarray) -> np.ndarray:
    unit = unit_rows(rows)
    return unit @ unit.swapaxes(1, 2)


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows [.., n] scaled to unit norm; empty rows stay 0."""
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1)


def _filled(rows: np.ndarray, size: int | np.ndarray) -> np.ndarray:
    """Rows [B, N, ..] scaled to unit norm; empty rows become uniform over their first `size` entries."""
    uniform = np.arange(rows.shape[-1]) < size
    return unit_rows(np.where(rows.any(axis=-1, keepdims=True), rows, uniform))


def _mean_nearest(reference: np.ndarray, generated: np.ndarray, real: np.ndarray) -> np.ndarray:
    """The mean over generated rows of the largest cosine with a reference row; unit rows [B, N, ..], masked by `real`."""
    cosines = np.where(real[:, None, :], generated @ reference.swapaxes(1, 2), 0)
    return (cosines.max(axis=2) * real).sum(axis=1) / real.sum(axis=1)
