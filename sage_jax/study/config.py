"""What the study is made of: its tables, and the cells that they need."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from sage_jax.benchmark.systems import sections_of
from sage_jax.errors import UserError
from sage_jax.evaluation.task import EvaluationConfig
from sage_jax.models.config import ModelConfig
from sage_jax.models.forms import parameter_shapes
from sage_jax.training.config import RunConfig

TABLE_FIELDS = {"systems", "train_on", "test_on", "seeds", "equal_parameters", "steps", "model"}


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the study's tables: one system, trained on one corpus.

    equal_parameters: whether its MLPs are made as wide as gives it the parameters of the reference. variant: the table whose
    steps and model it has, where that has some of its own.
    """

    system: str
    corpus: str
    equal_parameters: bool = False
    variant: str = ""

    @property
    def name(self) -> str:
        equal, variant = "-equal" if self.equal_parameters else "", f"-{self.variant}" if self.variant else ""
        return f"{self.corpus}/{self.system}{equal}{variant}"


@dataclasses.dataclass(frozen=True)
class Cell:
    """One model to be trained: a row, its seed and learning rate, and the corpora whose test split it is asked about."""

    row: Row
    seed: int
    learning_rate: float
    test_on: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of its folder. One that is only validated has its learning rate in its name instead of its seed."""
        return f"{self.row.name}/{f'seed{self.seed}' if self.test_on else f'rate{self.learning_rate:g}'}"


@dataclasses.dataclass(frozen=True)
class StudyConfig:
    """The study. Raises UserError naming the field.

    title: a word, of its part of RESULTS.md and of its files. corpora: by name, each a data.corpus, or shards:FOLDER. run:
    sections of configs/sage.py that all systems have, but for what each has of its own and for the learning rate.
    learning_rates: those that are tried, rising, on the corpus `seek_on` with the systems `seek_with`: each in the name of its family, the systems of its
    form, pooling and representation. seek_steps: of each try; 0 for as many as the run has. tables: by name, systems, the corpora
    that they are trained on, those that they are tested on (the same, if not told), seeds, equal_parameters, and the steps
    and the fields of the model that all of the table have instead of the run's.
    speed: the reference to which the others are compared, tokens of context, batch, events in a turn, and rounds, of which the
    first is not counted.
    keep_checkpoints: whether they stay when a cell is finished.
    """

    title: str
    corpora: Mapping[str, str]
    run: Mapping[str, Mapping[str, Any]]
    learning_rates: tuple[float, ...]
    seek_on: str
    seek_with: tuple[str, ...]
    seek_steps: int
    tables: Mapping[str, Mapping[str, Any]]
    evaluation: EvaluationConfig
    speed: Mapping[str, Any]
    keep_checkpoints: bool

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "StudyConfig":
        try:
            return cls(**{**values, "evaluation": EvaluationConfig.from_dict(values["evaluation"])})
        except TypeError as error:
            raise UserError(f"config: {error}") from error

    def __post_init__(self):
        if not self.title.isidentifier():
            raise UserError(f"config.title is {self.title!r}; give one word, which files are named after")
        rates = list(self.learning_rates)
        if not rates or rates != sorted(set(rates)) or rates[0] <= 0:
            raise UserError(f"config.learning_rates is {self.learning_rates!r}; give rising numbers above 0")
        if self.seek_steps < 0:
            raise UserError(f"config.seek_steps is {self.seek_steps}; give at least 1, or 0 for as many as the run has")
        for name, table in self.tables.items():
            if unknown := table.keys() - TABLE_FIELDS:
                known = ", ".join(sorted(TABLE_FIELDS))
                raise UserError(f"config.tables.{name} has no field {sorted(unknown)[0]}; known are {known}")
            for corpus in (*table["train_on"], *table.get("test_on", ())):
                if corpus not in self.corpora:
                    raise UserError(f"config.tables.{name}: {corpus} is not one of config.corpora: {', '.join(self.corpora)}")
            if table["seeds"] < 1:
                raise UserError(f"config.tables.{name}.seeds is {table['seeds']}; give at least 1")
        known = {self.family(system) for system in self.seek_with}
        for row in self.rows():
            if self.family(row.system) not in known:
                raise UserError(f"config.seek_with has no system of the family of {row.system}, which config.tables has")
            self.sections(dataclasses.replace(row, equal_parameters=False))  # raises for what can't be
        if self.seek_on not in self.corpora:
            raise UserError(f"config.seek_on is {self.seek_on!r}; choose one of config.corpora: {', '.join(self.corpora)}")

    @property
    def search_steps(self) -> int:
        """Steps of each try of a learning rate."""
        return self.seek_steps or self.run["train"]["steps"]

    def rows(self) -> list[Row]:
        """Every row of the tables, once, in their order."""
        return list(dict.fromkeys(row for name in self.tables for row in self.rows_of(name)))

    def rows_of(self, table: str) -> list[Row]:
        fields = self.tables[table]
        equal = fields.get("equal_parameters", False)
        variant = table if fields.keys() & {"steps", "model"} else ""
        # The reference is what the others are made equal to.
        return [
            Row(system, corpus, equal and system != self.speed["reference"], variant)
            for corpus in fields["train_on"]
            for system in fields["systems"]
        ]

    def cells(self, rates: Mapping[str, float]) -> Iterator[Cell]:
        """The cells of all tables at the learning rates of their families: the first seed of each row, then the second, ..."""
        seeds, tests = {}, {}
        for name, table in self.tables.items():
            for row in self.rows_of(name):
                seeds[row] = max(seeds.get(row, 0), table["seeds"])
                tests.setdefault(row, {row.corpus: None}).update(dict.fromkeys(table.get("test_on", ())))
        for seed in range(max(seeds.values())):
            for row in seeds:
                if seed < seeds[row]:
                    yield Cell(row, seed, rates[self.family(row.system)], tuple(tests[row]))

    def family(self, system: str) -> str:
        """The systems that share a learning rate."""
        sections = sections_of(system)
        model, representation = sections["model"], sections.get("representation", {}).get("name", "events")
        parts = (representation, model.get("form", "flat"), model.get("pooling", "sum"))
        usual = ("events", "flat", "sum")
        return "-".join(part for part, plain in zip(parts, usual, strict=True) if part != plain) or "flat"

    def sections(self, row: Row) -> dict[str, dict[str, Any]]:
        """The sections of the run of a row. Raises UserError for what can't be."""
        sections = {name: dict(fields) for name, fields in self.run.items()}
        for name, fields in sections_of(row.system).items():
            sections[name].update(fields)
        variant = self.tables[row.variant] if row.variant else {}
        sections["train"]["steps"] = variant.get("steps", sections["train"]["steps"])
        sections["model"].update(variant.get("model", {}))
        run = RunConfig.from_dict(sections)
        if row.equal_parameters:
            reference = RunConfig.from_dict(self.sections(Row(self.speed["reference"], row.corpus, variant=row.variant)))
            sections["model"]["mlp_width"] = width_for(run.model, num_parameters(reference.model))
        return sections


@functools.cache
def num_parameters(model: ModelConfig) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(parameter_shapes(model)))


def width_for(model: ModelConfig, parameters: int) -> int:
    """The mlp_width with which a model comes closest to as many parameters. Raises UserError where none is narrow enough."""
    at = lambda width: num_parameters(dataclasses.replace(model, mlp_width=width))
    width = model.mlp_width
    each = at(width + 1) - at(width)  # parameters are linear in it
    width += round((parameters - at(width)) / each)
    if width < 1:
        raise UserError(f"{model.name} without any MLP has more parameters than the reference; widen config.run.model.mlp_width")
    return width
