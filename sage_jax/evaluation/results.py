"""What an evaluation found, as plain numbers that go into JSON: scores with intervals, and never without their floors."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sage_jax.evaluation import nmsi
from sage_jax.evaluation.floors import FLOORS
from sage_jax.evaluation.musicality import (
    groove_consistency,
    histograms,
    overlap,
    pitch_class_entropy,
    scale_consistency,
)
from sage_jax.evaluation.prompts import Prompt, cut
from sage_jax.evaluation.statistics import Estimate, Power, estimate, ratio
from sage_jax.evaluation.stripe import stripe
from sage_jax.music.notes import Piece

NUMBERS = ("nmsi", *nmsi.PARTS, "nmsi_max")
INDEX_DIFFERENCES = (1.0, 0.3)  # points of NMSI whose price in prompts is told


@dataclasses.dataclass(frozen=True)
class Scored:
    """One system's scores: of each number in NUMBERS float64 [P], the mean over the samples of a prompt, parts in [0, 1].

    samples: K. drums_only: bool [P], prompts whose true continuation has drums alone: their chroma and ssm are nan, and their
    index is the mean of the other two parts.
    """

    values: Mapping[str, np.ndarray]
    samples: int
    drums_only: np.ndarray


def score(prompts: Sequence[Prompt], continuations: Sequence[Sequence[Piece]]) -> Scored:
    """Scores K continuations of each prompt, [P][K]."""
    samples = len(continuations[0])
    scores = nmsi.score(
        [prompt.reference for prompt in prompts for _ in range(samples)],
        [piece for pieces in continuations for piece in pieces],
        [prompt.bars for prompt in prompts for _ in range(samples)],
    )
    values = {name: getattr(scores, name).reshape(len(prompts), samples).mean(axis=1) for name in NUMBERS}
    return Scored(values, samples, scores.drums_only.reshape(len(prompts), samples)[:, 0])


def table(prompts: Sequence[Prompt], scored: Mapping[str, Scored]) -> dict[str, dict[str, Any]]:
    """For each system its estimates, and that of 'relative': (NMSI - other) / (later - other), both means, which is 0 for an
    unrelated piece and 1 for the composer's own later bars. Raises ValueError where a floor is missing: a score without floors
    says nothing.
    """
    if missing := [floor for floor in FLOORS if floor not in scored]:
        raise ValueError(f"no table of scores without its floors; missing: {', '.join(missing)}")
    pieces = piece_of(prompts)
    low, high = (scored[floor].values["nmsi"] for floor in ("other", "later"))
    return {
        name: {number: estimate(each.values[number], pieces) for number in NUMBERS}
        | {"relative": ratio(each.values["nmsi"] - low, high - low, pieces), "samples": each.samples}
        for name, each in scored.items()
    }


def differences(prompts: Sequence[Prompt], scored: Mapping[str, Scored]) -> list[dict[str, Any]]:
    """The paired difference in NMSI of each system that is no floor with each floor and with the systems before it.

    estimate: of the difference; resolved: the least one that as many prompts show; needed: prompts for INDEX_DIFFERENCES.
    """
    pieces = piece_of(prompts)
    systems = [name for name in scored if name not in FLOORS]
    pairs = [(name, rival) for place, name in enumerate(systems) for rival in (*systems[:place], *FLOORS)]
    rows = []
    for one, other in pairs:
        difference = scored[one].values["nmsi"] - scored[other].values["nmsi"]
        power = Power.of(difference, pieces)
        needed = {str(points): power.needed(points) for points in INDEX_DIFFERENCES}
        rows.append(
            {
                "system": one,
                "than": other,
                "difference": estimate(difference, pieces),
                "spread": power.spread,
                "resolved": power.resolved(),
                "needed": needed,
            }
        )
    return rows


def character(prompts: Sequence[Prompt], pieces: Sequence[Piece], truth: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What one continuation of each prompt is like: MusPy's measures, StrIPE's two, and histograms beside the true ones."""
    bar_ticks = [int(prompt.reference.bars.lengths[0]) for prompt in prompts]
    pieces = [cut(piece, prompt.length) for piece, prompt in zip(pieces, prompts, strict=True)]
    ancestors = [
        stripe(prompt.reference, piece, max(1, prompt.length // piece.ticks_per_quarter))
        for prompt, piece in zip(prompts, pieces, strict=True)
    ]
    grooves = [groove_consistency(piece, ticks) for piece, ticks in zip(pieces, bar_ticks, strict=True)]
    mean = lambda values: float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")
    counts = histograms(pieces)
    return {
        "notes": float(np.mean([len(piece.notes) for piece in pieces])),
        "pitch_class_entropy": mean([pitch_class_entropy(piece) for piece in pieces]),
        "scale_consistency": mean([scale_consistency(piece) for piece in pieces]),
        "groove_consistency": mean(grooves),
        "stripe_cs": float(np.mean([cs for cs, _ in ancestors])),
        "stripe_ssmd": float(np.mean([ssmd for _, ssmd in ancestors])),
        "histograms": {name: count.tolist() for name, count in counts.items()},
        "overlap": {name: overlap(count, truth[name]) for name, count in counts.items()},
    }


def piece_of(prompts: Sequence[Prompt]) -> np.ndarray:
    """The name of the piece [P] that each prompt is from."""
    return np.array([prompt.name for prompt in prompts])


def plain(value: Any) -> Any:
    """`value` as JSON has it: estimates as dictionaries, nan as None."""
    if isinstance(value, Estimate):
        return plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and np.isnan(value) else value
