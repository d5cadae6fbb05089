"""What a model with roles writes: scores of own notes against the truth, beside floors that need no model.

copy    the same tracks in the bars before, or after where there are none before
other   tracks of the same programs in another piece
markov  a Markov chain over notes of the training split, which knows the own tracks' bars before and nothing that is given
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from sage_jax.decoding.engine import Engine
from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.evaluation import nmsi
from sage_jax.evaluation.baselines import MarkovChain
from sage_jax.evaluation.prompts import Prompt
from sage_jax.evaluation.statistics import Estimate, estimate
from sage_jax.music.notes import DRUMS, NOTE, Piece
from sage_jax.music.tracks import tracks_with_notes
from sage_jax.tasks.assignment import Assignment
from sage_jax.tasks.generator import generator_of
from sage_jax.tasks.performance import perform
from sage_jax.tokenizers.leads import Lead
from sage_jax.tokenizers.role_events import RoleEvents

SYSTEMS = ("truth", "model", "copy", "other", "markov")
PROMPT_BARS = 4  # that the Markov chain begins with
METRICS = ("note_f1", "nmsi", "in_harmony", "notes_per_bar")


@dataclasses.dataclass(frozen=True)
class Case:
    """An assignment of a held-out piece, with what the piece has there. truth: NOTE [n]. piece: its number."""

    assignment: Assignment
    truth: np.ndarray
    piece: int

    @property
    def bars(self) -> int:
        """The number of bars that are written."""
        job = self.assignment
        return job.piece.bar_of(job.stop - 1) + 1 - job.piece.bar_of(job.start)


@dataclasses.dataclass(frozen=True)
class TaskScores:
    """Scores by system and metric, float64 [P] each, and the pieces [P] of the cases; nan where a score is undefined."""

    values: dict[str, dict[str, np.ndarray]]
    pieces: np.ndarray

    def estimate(self, system: str, metric: str) -> Estimate:
        """The mean with an interval over pieces."""
        return estimate(self.values[system][metric], self.pieces)

    def difference(self, metric: str, one: str, other: str) -> Estimate:
        """How much `one` scores above `other` on the same cases."""
        return estimate(self.values[one][metric] - self.values[other][metric], self.pieces)


def make_cases(
    pieces: Sequence[Piece], tokenizer: RoleEvents, lead: Lead, *, bars: int, one_track: bool, most: int
) -> list[Case]:
    """At most `most` cases of `bars` bars, one of each piece that has them. one_track: one track is own, else all are.

    Place and track follow from the piece. Bars that NMSI does not score, as the own tracks have too few notes, are left out.
    """
    found = []
    for number, piece in enumerate(pieces):
        rng = generator_of(piece.notes)
        tracks = tracks_with_notes(piece.notes)
        if piece.num_bars < 2 * bars or (one_track and len(tracks) < 2):
            continue
        own = (tracks[int(rng.integers(len(tracks)))],) if one_track else tuple(tracks)
        first = int(rng.integers(bars, piece.num_bars - bars + 1))
        job = Assignment(piece, tokenizer, own, piece.bar_start(first), piece.bar_start(first + bars), lead)
        truth = piece.notes[job.replaced]
        if nmsi.exclusion_reason(_own_bars(job, truth), bars) is None:
            found.append(Case(job, truth, number))
    return found[:most]


def score_tasks(
    engine: Engine, cases: Sequence[Case], training: Sequence[Piece], sampling: SamplingConfig, seed: int = 0
) -> TaskScores:
    """The scores of SYSTEMS on `cases`. training: pieces, quantized, that the Markov chain is fitted to."""
    written = [each.notes for each in perform(engine, [case.assignment for case in cases], sampling=sampling, seed=seed)]
    systems = {
        "truth": [case.truth for case in cases],
        "model": written,
        "copy": [copied(case) for case in cases],
        "other": list(_from_others(cases)),
        "markov": _from_markov(cases, training, seed),
    }
    values = {system: _scores(cases, notes) for system, notes in systems.items()}
    return TaskScores(values, np.array([case.piece for case in cases]))


def copied(case: Case) -> np.ndarray:
    """The floor "copy", NOTE [n]."""
    job = case.assignment
    length = job.stop - job.start
    shift = length if job.start >= length else -length
    notes = job.piece.notes[job.is_own].copy()
    notes["onset"] += shift
    return notes[(notes["onset"] >= job.start) & (notes["onset"] < job.stop)]


def _from_others(cases: Sequence[Case]) -> Iterator[np.ndarray]:
    """The floor "other" of each case, NOTE [n]; nothing where no other piece has these programs."""
    for number, case in enumerate(cases):
        job, programs = case.assignment, {program for program, _ in case.assignment.own}
        others = [cases[(number + 1 + step) % len(cases)].assignment.piece for step in range(len(cases) - 1)]
        fits = (each for each in others if programs <= {program for program, _ in tracks_with_notes(each.notes)})
        piece = next(fits, None)
        if piece is None:
            yield np.zeros(0, NOTE)
            continue
        notes = piece.notes[np.isin(piece.notes["program"], list(programs))].copy()
        begins = piece.bar_start(piece.bar_of(int(notes["onset"][len(notes) // 3])))
        notes["onset"] += job.start - begins
        yield notes[(notes["onset"] >= job.start) & (notes["onset"] < job.stop)]


def _from_markov(cases: Sequence[Case], training: Sequence[Piece], seed: int) -> list[np.ndarray]:
    """The floor "markov", NOTE [n] each. Where one track is own, the chain is one over single tracks."""
    tokenizer = cases[0].assignment.tokenizer
    if all(len(case.assignment.own) == 1 for case in cases):
        training = [each for piece in training for each in _tracks_apart(piece)]
    chain = MarkovChain(tokenizer, [tokenizer.encode(tokenizer.quantize(piece)) for piece in training])
    found = []
    for case, piece in zip(cases, chain.continuations([_own_prompt(case) for case in cases], seed), strict=True):
        job, notes = case.assignment, piece.notes.copy()
        notes["onset"] += job.start
        programs = [program for program, _ in job.own]
        found.append(notes[np.isin(notes["program"], programs) & (notes["onset"] < job.stop)])
    return found


def _tracks_apart(piece: Piece) -> Iterator[Piece]:
    """Each track of the piece as a piece."""
    for program, track in tracks_with_notes(piece.notes):
        yield piece.with_notes(piece.notes[(piece.notes["program"] == program) & (piece.notes["track"] == track)])


def _own_prompt(case: Case) -> Prompt:
    """The own tracks' bars before the case, up to PROMPT_BARS, as a prompt; their first notes if these bars are silent."""
    job = case.assignment
    own = job.piece.with_notes(job.piece.notes[job.is_own])
    first = own.bar_of(job.start)
    start = max(first - PROMPT_BARS, 0)
    read, reference = own.slice_bars(start, first), own.slice_bars(first, first + case.bars)
    if len(read.notes) < 2:  # the chain needs two notes to begin with
        read = read.with_notes(np.concatenate([own.notes[:2], read.notes]))
    return Prompt("", start, first - start, case.bars, read, reference, reference)


def _scores(cases: Sequence[Case], written: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    references = [_own_bars(case.assignment, case.truth) for case in cases]
    candidates = [_own_bars(case.assignment, notes) for case, notes in zip(cases, written, strict=True)]
    bars = [case.bars for case in cases]
    return {
        "note_f1": np.array([note_f1(case.truth, notes) for case, notes in zip(cases, written, strict=True)]),
        "nmsi": nmsi.score(references, candidates, bars).nmsi,
        "in_harmony": np.array([in_harmony(case.assignment.given, notes) for case, notes in zip(cases, written, strict=True)]),
        "notes_per_bar": np.array([len(notes) / count for notes, count in zip(written, bars, strict=True)]),
    }


def _own_bars(job: Assignment, notes: np.ndarray) -> Piece:
    """`notes` as a piece that begins with the model's first bar."""
    first = job.piece.bar_of(job.start)
    whole = job.piece.with_notes(notes)
    return whole.slice_bars(first, job.piece.bar_of(job.stop - 1) + 1)


def note_f1(truth: np.ndarray, written: np.ndarray) -> float:
    """The F1 of notes with the same onset, program and pitch, as mir_eval counts a match at a tolerance of nothing.

    truth, written: NOTE [n]. nan if both are empty.
    """
    sets = [{tuple(note) for note in notes[["onset", "program", "pitch"]].tolist()} for notes in (truth, written)]
    total = len(sets[0]) + len(sets[1])
    return 2 * len(sets[0] & sets[1]) / total if total else float("nan")


def in_harmony(given: np.ndarray, written: np.ndarray) -> float:
    """The share of written notes, drums apart, whose pitch class sounds among the given ones at their onset.

    given, written: NOTE [n]. Notes at whose onset nothing pitched sounds are left out; nan if none is left.
    """
    given, written = (notes[notes["program"] != DRUMS] for notes in (given, written))
    sounding = (given["onset"][None] <= written["onset"][:, None]) & (
        given["onset"] + given["duration"] > written["onset"][:, None]
    )
    same = sounding & (given["pitch"][None] % 12 == written["pitch"][:, None] % 12)
    accompanied = sounding.any(axis=1)
    return float(same.any(axis=1)[accompanied].mean()) if accompanied.any() else float("nan")
