"""The config of the study: its tables, the variants in their rows, and the trials that these need."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from sage_jax.config import RunConfig
from sage_jax.errors import UserError
from sage_jax.evaluation.task import EvaluationConfig
from sage_jax.models.config import ModelConfig
from sage_jax.models.presets import config_sections
from sage_jax.models.registry import abstract_params

TABLE_FIELDS = {"systems", "train_on", "test_on", "seeds", "equal_parameters", "steps", "model"}


@dataclasses.dataclass(frozen=True)
class Variant:
    """A row of the study's tables: one system, trained on one corpus.

    equal_parameters: whether mlp_dim is chosen to match the number of parameters of the reference.
    table: the table whose overrides of steps and model apply; "" for none.
    """

    system: str
    corpus: str
    equal_parameters: bool = False
    table: str = ""

    @property
    def name(self) -> str:
        equal, table = "-equal" if self.equal_parameters else "", f"-{self.table}" if self.table else ""
        return f"{self.corpus}/{self.system}{equal}{table}"


@dataclasses.dataclass(frozen=True)
class Trial:
    """One model to train: a variant, its seed and learning rate, and the corpora whose test split it is evaluated on.

    A trial without test_on belongs to the learning rate search: only its validation loss counts.
    """

    variant: Variant
    seed: int
    learning_rate: float
    test_on: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.variant.name}/{f'seed{self.seed}' if self.test_on else f'rate{self.learning_rate:g}'}"


@dataclasses.dataclass(frozen=True)
class StudyConfig:
    """The study. Raises UserError naming the field.

    title: one word that names its part of docs/results.md and its files.
    corpora: by name, each a data.corpus or shards:FOLDER.
    run: config sections (as in configs/sage.py) that all systems share, before the overrides of each and the learning rate.
    learning_rates: the rates to try, increasing, on lr_search_corpus with each of lr_search_systems. A system's rate holds for
      its family: the systems with its architecture, pooling and representation. lr_search_steps: steps of each try; 0 for the
      run's.
    tables: by name, `systems`, `train_on` (corpora), `test_on` (corpora; the training corpus by default), `seeds`,
      `equal_parameters`, and `steps` and `model` to override the run's.
    speed_benchmark: the reference of the comparison, context (in tokens), batch, events per turn, and rounds, the first of
      which does not count.
    keep_checkpoints: whether to keep the checkpoints of finished trials.
    control_seeds: the A/A pair: so many further seeds of the reference of each table, compared with its first ones as if they
      were another system.
    """

    title: str
    corpora: Mapping[str, str]
    run: Mapping[str, Mapping[str, Any]]
    learning_rates: tuple[float, ...]
    lr_search_corpus: str
    lr_search_systems: tuple[str, ...]
    lr_search_steps: int
    tables: Mapping[str, Mapping[str, Any]]
    evaluation: EvaluationConfig
    speed_benchmark: Mapping[str, Any]
    keep_checkpoints: bool
    control_seeds: int = 0

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "StudyConfig":
        try:
            return cls(**{**values, "evaluation": EvaluationConfig.from_dict(values["evaluation"])})
        except TypeError as error:
            raise UserError(f"config: {error}") from error

    def __post_init__(self):
        if not self.title.isidentifier():
            raise UserError(f"config.title is {self.title!r}; give one word, which names files")
        rates = list(self.learning_rates)
        if not rates or rates != sorted(set(rates)) or rates[0] <= 0:
            raise UserError(f"config.learning_rates is {self.learning_rates!r}; give increasing numbers above 0")
        if self.control_seeds < 0:
            raise UserError(f"config.control_seeds is {self.control_seeds}; give 0 or more")
        if self.lr_search_steps < 0:
            raise UserError(f"config.lr_search_steps is {self.lr_search_steps}; give at least 1, or 0 for the run's steps")
        corpora = ", ".join(self.corpora)
        for name, table in self.tables.items():
            if unknown := table.keys() - TABLE_FIELDS:
                known = ", ".join(sorted(TABLE_FIELDS))
                raise UserError(f"config.tables.{name} has no field {sorted(unknown)[0]}; known are {known}")
            for corpus in (*table["train_on"], *table.get("test_on", ())):
                if corpus not in self.corpora:
                    raise UserError(f"config.tables.{name}: {corpus} is not one of config.corpora: {corpora}")
            if table["seeds"] < 1:
                raise UserError(f"config.tables.{name}.seeds is {table['seeds']}; give at least 1")
        families = {self.family(system) for system in self.lr_search_systems}
        for variant in self.variants():
            if self.family(variant.system) not in families:
                raise UserError(f"config.lr_search_systems has no system of the family of {variant.system} in config.tables")
            self.sections(dataclasses.replace(variant, equal_parameters=False))  # raises for impossible fields
        if self.lr_search_corpus not in self.corpora:
            raise UserError(f"config.lr_search_corpus is {self.lr_search_corpus!r}; choose one of config.corpora: {corpora}")

    @property
    def reference(self) -> str:
        """The system that others are compared to."""
        return self.speed_benchmark["reference"]

    @property
    def search_steps(self) -> int:
        """Steps of each trial of the learning rate search."""
        return self.lr_search_steps or self.run["train"]["steps"]

    @property
    def search_is_whole(self) -> bool:
        """Whether trials of the search are as long as the others, so that those of the best rates are trained once."""
        return self.search_steps == self.run["train"]["steps"]

    def reference_of(self, table: str, corpus: str) -> Variant:
        """What the variants of a table on a corpus are compared to: REMI+ without merges, or the reference."""
        return reference_among([each for each in self.variants_of(table) if each.corpus == corpus], self.reference)

    def seeds_of(self, table: str, variant: Variant) -> int:
        """The seeds of a table's variant; those of its A/A pair among them."""
        control = self.control_seeds if variant == self.reference_of(table, variant.corpus) else 0
        return self.tables[table]["seeds"] + control

    def variants(self) -> list[Variant]:
        """The variants of all tables, in order and without duplicates."""
        return list(dict.fromkeys(variant for name in self.tables for variant in self.variants_of(name)))

    def variants_of(self, table: str) -> list[Variant]:
        fields = self.tables[table]
        equal = fields.get("equal_parameters", False)
        overrides = table if fields.keys() & {"steps", "model"} else ""
        # The reference already has its own number of parameters.
        return [
            Variant(system, corpus, equal and system != self.reference, overrides)
            for corpus in fields["train_on"]
            for system in fields["systems"]
        ]

    def trials(self, rates: Mapping[str, float]) -> Iterator[Trial]:
        """The trials of all tables: the first seed of each variant, then the second, and so on.

        rates: the learning rate of each family.
        """
        seeds: dict[Variant, int] = {}
        corpora: dict[Variant, dict[str, None]] = {}
        for name, table in self.tables.items():
            for variant in self.variants_of(name):
                seeds[variant] = max(seeds.get(variant, 0), self.seeds_of(name, variant))
                corpora.setdefault(variant, {variant.corpus: None}).update(dict.fromkeys(table.get("test_on", ())))
        for seed in range(max(seeds.values())):
            for variant in seeds:
                if seed < seeds[variant]:
                    yield Trial(variant, seed, rates[self.family(variant.system)], tuple(corpora[variant]))

    def family(self, system: str) -> str:
        """The name of the systems that share a learning rate with `system`."""
        sections = config_sections(system)
        model, representation = sections["model"], sections.get("representation", {}).get("name", "events")
        parts = (representation, model.get("architecture", "flat"), model.get("pooling", "sum"))
        defaults = ("events", "flat", "sum")
        return "-".join(part for part, default in zip(parts, defaults, strict=True) if part != default) or "flat"

    def sections(self, variant: Variant) -> dict[str, dict[str, Any]]:
        """The config sections of a variant's run. Raises UserError for impossible fields."""
        sections = {name: dict(fields) for name, fields in self.run.items()}
        for name, fields in config_sections(variant.system).items():
            sections[name].update(fields)
        overrides = self.tables[variant.table] if variant.table else {}
        sections["train"]["steps"] = overrides.get("steps", sections["train"]["steps"])
        sections["model"].update(overrides.get("model", {}))
        run = RunConfig.from_dict(sections)
        if variant.equal_parameters:
            reference = RunConfig.from_dict(self.sections(Variant(self.reference, variant.corpus, table=variant.table)))
            sections["model"]["mlp_dim"] = mlp_dim_for(run.model, num_parameters(reference.model))
        return sections


def reference_among(variants: Sequence[Variant], reference: str) -> Variant:
    """What a table's variants on one corpus are compared to: that of `reference`, or REMI+ without merges, or the first."""
    by_system = {variant.system: variant for variant in variants}
    return by_system.get(reference) or by_system.get("remi") or variants[0]


@functools.cache
def num_parameters(model: ModelConfig) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(abstract_params(model)))


def mlp_dim_for(model: ModelConfig, parameters: int) -> int:
    """The mlp_dim that brings the model closest to `parameters`. Raises UserError if it would be below 1."""
    at = lambda mlp_dim: num_parameters(dataclasses.replace(model, mlp_dim=mlp_dim))
    per_unit = at(model.mlp_dim + 1) - at(model.mlp_dim)  # the number of parameters is linear in mlp_dim
    mlp_dim = model.mlp_dim + round((parameters - at(model.mlp_dim)) / per_unit)
    if mlp_dim < 1:
        raise UserError(f"{model.name} without MLPs has more parameters than the reference; raise config.run.model.mlp_dim")
    return mlp_dim
