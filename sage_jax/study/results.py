"""The result of a study as JSON: its trials, learning rates and speeds, and means and differences over seeds."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special

from sage_jax.benchmark.ratios import MIN_TURNS, Ratio
from sage_jax.corpus.shards import read_json
from sage_jax.errors import UserError
from sage_jax.evaluation.statistics import CONFIDENCE
from sage_jax.study.config import Variant

METRICS = ("bits_per_note", "nmsi", "normalized_nmsi")


@dataclasses.dataclass(frozen=True)
class Mean:
    """A mean over seeds with its 95% confidence interval by Student's t; the interval is nan for fewer than two seeds."""

    mean: float
    low: float
    high: float
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float | None]) -> "Mean":
        nan = float("nan")
        known = np.asarray([value for value in values if value is not None], float)
        if not len(known):
            return cls(nan, nan, nan, 0)
        half = nan
        if len(known) > 1:
            half = special.stdtrit(len(known) - 1, (1 + CONFIDENCE) / 2) * known.std(ddof=1) / len(known) ** 0.5
        return cls(float(known.mean()), float(known.mean() - half), float(known.mean() + half), len(known))


@dataclasses.dataclass(frozen=True)
class LrTrialResult:
    """A trial of the learning rate search. loss: of validation. identity: see Evaluator.identity."""

    system: str
    learning_rate: float
    loss: float
    identity: str


@dataclasses.dataclass(frozen=True)
class CorpusScores:
    """The scores of a trial on one corpus; None where one is undefined.

    attributes: bits per note of each attribute. normalized_nmsi: 0 for the baseline `other`, 1 for `later`.
    empty_outputs: continuations without a note. baselines: nmsi and normalized_nmsi of each baseline.
    """

    bits_per_note: float | None
    attributes: dict[str, float]
    nmsi: float | None
    normalized_nmsi: float | None
    empty_outputs: int
    baselines: dict[str, dict[str, float | None]]


@dataclasses.dataclass(frozen=True)
class TrialResult:
    """A finished trial.

    events: in all training crops. seconds: in all. train_seconds: of training alone. cut: the fraction of steps that did not
      fit into their crops. scores: by corpus. identity: see Evaluator.identity.
    """

    variant: Variant
    seed: int
    learning_rate: float
    parameters: int
    mlp_dim: int
    events: int
    seconds: float
    train_seconds: float
    cut: float
    scores: dict[str, CorpusScores]
    commit: str
    versions: dict[str, Any]
    identity: str

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "TrialResult":
        scores = {corpus: CorpusScores(**each) for corpus, each in values["scores"].items()}
        return cls(**{**values, "variant": Variant(**values["variant"]), "scores": scores})


@dataclasses.dataclass(frozen=True)
class VariantSpeed:
    """The decoding speed of a variant. All but the first two need enough turns and an A/A control (see `reportable`).

    steps_per_note: event steps per note of the corpus. milliseconds: p50, p95 and p99 of a note, one by one.
    notes_per_second, speedup: of the compiled loop; speedup is over the reference. control: the A/A ratio of the reference.
    """

    steps_per_note: float
    cache_bytes: int
    notes_per_second: float | None = None
    milliseconds: dict[str, float] | None = None
    speedup: Ratio | None = None
    control: Ratio | None = None
    events_drawn: int | None = None
    notes_drawn: int | None = None
    commit: str | None = None

    @property
    def reportable(self) -> "VariantSpeed":
        """Without the times, unless they have an A/A control of at least MIN_TURNS turns."""
        if self.control is not None and self.control.turns >= MIN_TURNS:
            return self
        return VariantSpeed(self.steps_per_note, self.cache_bytes)

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "VariantSpeed":
        ratios = {name: Ratio(**values[name]) for name in ("speedup", "control") if name in values}
        return cls(**{**values, **ratios})


@dataclasses.dataclass(frozen=True)
class StudyTable:
    """A table of the study. overrides: `steps` and `model` of its runs. seeds: of each variant."""

    variants: list[Variant]
    test_on: list[str]
    overrides: dict[str, Any]
    seeds: int

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "StudyTable":
        return cls(**{**values, "variants": [Variant(**variant) for variant in values["variants"]]})


@dataclasses.dataclass(frozen=True)
class StudyResult:
    """The result of a study, finished or not.

    command, commit, versions: its origin. corpora: pieces and notes of each training split, and test_pieces.
    run: the sections data, model, optimizer and train that all trials share. evaluation: fields of its EvaluationConfig.
    learning_rates: of each family. families: of each system. num_trials: finished or not. trials: the finished ones.
    speeds: by Variant.name, reportable ones.
    """

    title: str
    command: str
    commit: str
    versions: dict[str, Any]
    corpora: dict[str, dict[str, int]]
    run: dict[str, dict[str, Any]]
    evaluation: dict[str, Any]
    reference: str
    speed_benchmark: dict[str, Any]
    lr_search_corpus: str
    lr_search_steps: int
    lr_trials: list[LrTrialResult]
    learning_rates: dict[str, float]
    families: dict[str, str]
    tables: dict[str, StudyTable]
    num_trials: int
    trials: list[TrialResult]
    speeds: dict[str, VariantSpeed]

    def to_json(self) -> dict[str, Any]:
        speeds = {name: speed.to_json() for name, speed in self.speeds.items()}
        return {**dataclasses.asdict(self), "speeds": speeds}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "StudyResult":
        """The result that `to_json` wrote; speeds become `reportable`. Raises KeyError or TypeError for other JSON."""
        return cls(
            **{
                **values,
                "lr_trials": [LrTrialResult(**each) for each in values["lr_trials"]],
                "tables": {name: StudyTable.from_json(table) for name, table in values["tables"].items()},
                "trials": [TrialResult.from_json(each) for each in values["trials"]],
                "speeds": {name: VariantSpeed.from_json(speed).reportable for name, speed in values["speeds"].items()},
            }
        )

    def trials_of(self, variant: Variant) -> dict[int, TrialResult]:
        """The finished trials of a variant, by seed."""
        return {trial.seed: trial for trial in self.trials if trial.variant == variant}

    def speed_of(self, variant: Variant) -> VariantSpeed | None:
        return self.speeds.get(variant.name)

    @property
    def baselines(self) -> dict[str, dict[str, dict[str, float | None]]]:
        """The scores of the baselines, by corpus and name."""
        return {corpus: scores.baselines for trial in self.trials for corpus, scores in trial.scores.items()}

    @property
    def lr_search(self) -> dict[str, dict[str, float]]:
        """The validation losses of the learning rate search, by system and rate."""
        losses: dict[str, dict[str, float]] = {}
        for trial in self.lr_trials:
            losses.setdefault(trial.system, {})[f"{trial.learning_rate:g}"] = trial.loss
        return losses

    def values(self, variant: Variant, corpus: str, metric: str) -> dict[int, float | None]:
        """One of METRICS for each finished seed of a variant."""
        scores = {seed: trial.scores[corpus] for seed, trial in self.trials_of(variant).items() if corpus in trial.scores}
        return {seed: getattr(each, metric) for seed, each in scores.items()}

    def mean(self, variant: Variant, corpus: str, metric: str) -> Mean:
        return Mean.of(list(self.values(variant, corpus, metric).values()))

    def difference(self, variant: Variant, other: Variant, corpus: str, metric: str) -> Mean:
        """The mean paired difference over common seeds. Trials of the same seed train on the same crops in the same order."""
        ours, theirs = self.values(variant, corpus, metric), self.values(other, corpus, metric)
        pairs = [(ours[seed], theirs[seed]) for seed in ours.keys() & theirs.keys()]
        return Mean.of([one - two for one, two in pairs if one is not None and two is not None])


def read_result(path: pathlib.Path) -> StudyResult:
    """The result of a study from its JSON file. Raises UserError for another file."""
    try:
        return StudyResult.from_json(read_json(path))
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not the JSON of a study; give results.json of its --workdir") from error


def read_trials(paths: Sequence[pathlib.Path]) -> dict[str, TrialResult | LrTrialResult]:
    """The trials in the JSON files of studies, by identity. Raises UserError for another file."""
    results = [read_result(path) for path in paths]
    return {trial.identity: trial for result in results for trial in (*result.lr_trials, *result.trials)}
