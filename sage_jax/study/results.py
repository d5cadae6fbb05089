"""The result of a study as JSON: its trials, learning rates and speeds. Means and differences are in comparison.py."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from sage_jax.benchmark.ratios import MIN_TURNS, Ratio
from sage_jax.corpus.shards import read_json
from sage_jax.errors import UserError
from sage_jax.study.config import Variant, reference_among

METRICS = ("bits_per_note", "nmsi", "normalized_nmsi")


@dataclasses.dataclass(frozen=True)
class LrTrialResult:
    """A trial of the learning rate search.

    loss: of validation; the lowest one of a run with patience. identity: see Evaluator.identity. curve: [step, validation loss]
    of each evaluation; empty if it was not kept.
    """

    system: str
    learning_rate: float
    loss: float
    identity: str
    curve: list[list[float]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class CorpusScores:
    """The scores of a trial on one corpus; None where one is undefined.

    attributes: bits per note of each attribute. normalized_nmsi: 0 for the baseline `other`, 1 for `later`.
    empty_outputs: continuations without a note. baselines: nmsi and normalized_nmsi of each baseline.
    segmentations: bits per note of the `canonical` ids of a system with merges and, by sampling, of all segmentations
      (`marginal`), over the openings of some `pieces`; None for other systems.
    piece_bits, piece_notes: bits in all and notes of each piece of HeldOut.pieces. prompt_nmsi: of each prompt. These three are
      empty in results that were kept without them.
    """

    bits_per_note: float | None
    attributes: dict[str, float]
    nmsi: float | None
    normalized_nmsi: float | None
    empty_outputs: int
    baselines: dict[str, dict[str, float | None]]
    piece_bits: list[float] = dataclasses.field(default_factory=list)
    piece_notes: list[int] = dataclasses.field(default_factory=list)
    prompt_nmsi: list[float | None] = dataclasses.field(default_factory=list)
    segmentations: dict[str, float] | None = None


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """What the trials are evaluated on. pieces: their names. prompt_pieces: of each prompt, the name of its piece.

    baselines: by name, the NMSI of each prompt.
    """

    pieces: list[str]
    prompt_pieces: list[str]
    baselines: dict[str, list[float | None]]


@dataclasses.dataclass(frozen=True)
class TrialResult:
    """A finished trial.

    events: in all training crops. seconds: in all. train_seconds: of training alone. cut: the fraction of steps that did not
      fit into their crops. scores: by corpus. identity: see Evaluator.identity.
    curve: [step, validation loss] of each evaluation. step: of the checkpoint that was evaluated. code: see study/code.py.
    converged: whether the validation loss stopped improving for the run's patience; None for a run without patience.
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
    curve: list[list[float]] = dataclasses.field(default_factory=list)
    step: int | None = None
    code: str = ""
    converged: bool | None = None

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
        return _without_defaults(self)

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
    speeds: by Variant.name, reportable ones. control_seeds: of the config. held_out, music: by corpus, what was evaluated, and
      the fingerprint of the shards. floors: by corpus and name, the bits per note of models that learn nothing or next to
      nothing (evaluation/floors.py), as [bits, notes] of each test piece.
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
    control_seeds: int = 0
    held_out: dict[str, HeldOut] = dataclasses.field(default_factory=dict)
    music: dict[str, str] = dataclasses.field(default_factory=dict)
    floors: dict[str, dict[str, list[list[float]]]] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return _without_defaults(self)

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
                "held_out": {name: HeldOut(**each) for name, each in values.get("held_out", {}).items()},
            }
        )

    @property
    def patience(self) -> int:
        """Of the runs: evaluations without improvement after which a model has learned what it can; 0 for a fixed length."""
        return self.run["train"].get("patience", 0)

    def trials_of(self, variant: Variant) -> dict[int, TrialResult]:
        """The finished trials of a variant, by seed. Those that patience was to end and did not are left out."""
        return {trial.seed: trial for trial in self.trials if trial.variant == variant and trial.converged is not False}

    @property
    def unconverged(self) -> list[TrialResult]:
        """The trials that reached the last step before their validation loss stopped improving. They count nowhere."""
        return [trial for trial in self.trials if trial.converged is False]

    def reference_of(self, table: str, corpus: str) -> Variant:
        """What the variants of a table on a corpus are compared to: REMI+ without merges, or the reference."""
        of_corpus = [each for each in self.tables[table].variants if each.corpus == corpus]
        return reference_among(of_corpus, self.reference)

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

    def scores_of(self, variant: Variant, corpus: str) -> dict[int, CorpusScores]:
        """The scores on a corpus of the trials of a variant, by seed."""
        return {seed: trial.scores[corpus] for seed, trial in self.trials_of(variant).items() if corpus in trial.scores}


def _without_defaults(value: Any) -> Any:
    """`value` with dataclasses as dictionaries, without the fields that have their default."""
    if dataclasses.is_dataclass(value):
        fields = ((field, getattr(value, field.name)) for field in dataclasses.fields(value))
        return {field.name: _without_defaults(each) for field, each in fields if each != _default(field)}
    if isinstance(value, dict):
        return {name: _without_defaults(each) for name, each in value.items()}
    return [_without_defaults(each) for each in value] if isinstance(value, (list, tuple)) else value


def _default(field: dataclasses.Field) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def read_result(path: pathlib.Path) -> StudyResult:
    """The result of a study from its JSON file. Raises UserError for another file."""
    try:
        return StudyResult.from_json(read_json(path))
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not the JSON of a study; give results.json of its --workdir") from error
