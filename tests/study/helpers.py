"""What the tests of the study share."""

from typing import Any

from configs import study as configs
from sage_jax.benchmark.ratios import Ratio
from sage_jax.study.config import StudyConfig, Variant
from sage_jax.study.results import CorpusScores, TrialResult, VariantSpeed


def study_config(size: str = "cpu", **changes: Any) -> StudyConfig:
    return StudyConfig.from_dict({**configs.get_config(size).to_dict(), **changes})


def trial_result(variant: Variant, seed: int, bits: float | None, **pieces: list) -> TrialResult:
    """pieces: piece_bits, piece_notes and prompt_nmsi."""
    scores = CorpusScores(bits, {}, nmsi=1.0, normalized_nmsi=0.0, empty_outputs=0, baselines={}, **pieces)
    counts = dict(parameters=10, mlp_dim=10, events=10, seconds=1.0, train_seconds=1.0, cut=0.0)
    origin = dict(commit="abc", versions={}, identity=f"{variant.name}{seed}")
    return TrialResult(variant, seed, 1e-3, scores={variant.corpus: scores}, **counts, **origin)


def variant_speed(turns: int = 20, speedup=(1.16, 1.10, 1.18), control=(1.0, 0.97, 1.02)) -> VariantSpeed:
    return VariantSpeed(
        steps_per_note=1.0,
        cache_bytes=8,
        notes_per_second=9.0,
        speedup=Ratio(*speedup, turns),
        control=Ratio(*control, turns),
    )
