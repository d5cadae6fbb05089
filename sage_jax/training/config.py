"""What a training run depends on: the sections of configs/sage.py as frozen dataclasses that check themselves."""

import dataclasses
import numbers
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from sage_jax.errors import UserError
from sage_jax.models.config import ModelConfig
from sage_jax.music.events import HEAD, NoteEvents
from sage_jax.music.representation import RepresentationConfig

PARALLEL = ("mesh", "pmap")
BAD_STEPS = ("stop", "skip")
Section = TypeVar("Section")
# The types that elements of a tuple may have: which values are of them, and their name in English.
ELEMENTS = {int: (numbers.Integral, "whole numbers"), float: (numbers.Real, "numbers"), str: (str, "words")}
WATCHING = ("eval_every", "eval_batches", "log_every", "checkpoint_every", "keep", "tensorboard")

# What a resumed run may change: how long it goes and how closely it is watched (more steps stretch the cosine), what its
# attention keeps in memory, on which devices it is, and where its shards are, which are known by their content.
MAY_CHANGE = frozenset({"parallel"}) | frozenset(
    f"{section}.{field}"
    for section, fields in (
        ("data", ("corpus", "shards")),
        ("mesh", ("data", "fsdp", "tensor")),
        ("model", ("query_block", "attention", "recompute")),
        ("train", ("steps", "max_minutes", "bad_steps", "spike", "max_skipped", *WATCHING)),
    )
    for field in fields
)


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which music a run reads, and in which crops.

    corpus: 'embedded', 'music21' or 'folder:PATH', for launch.preprocess.
    shards: folder of token shards; '' means `data` in the workdir.
    num_events: N, the events that the model reads of a crop. transpose: lowest and highest semitones. pack: whether pieces that
    are shorter than a crop are read several in a row, each deaf to the others: the same losses for less padding.
    """

    corpus: str = "embedded"
    shards: str = ""
    num_events: int = 256
    transpose: tuple[int, int] = (-5, 6)
    pack: bool = False

    def __post_init__(self):
        object.__setattr__(self, "transpose", tuple(self.transpose))
        _at_least(self, "data", num_events=HEAD + 2)  # a note and EOS behind it
        low_high = self.transpose
        if len(low_high) != 2 or not -24 <= low_high[0] <= 0 <= low_high[1] <= 24:
            raise UserError(f"data.transpose is {low_high}; give two numbers like (-5, 6), 0 among them")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW: linear warm-up to `learning_rate`, then cosine decay to `end_fraction` of it at the last step."""

    learning_rate: float = 1e-3
    warmup_steps: int = 100
    end_fraction: float = 0.1
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    b1: float = 0.9
    b2: float = 0.98

    def __post_init__(self):
        _at_least(self, "optimizer", learning_rate=0, warmup_steps=0, weight_decay=0, clip_norm=1e-6)
        _between(self, "optimizer", 0, 1, "end_fraction", "b1", "b2")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Length, batch and rhythm of a run.

    batch_size: crops in a step, in `accumulate` micro-batches. eval_batches: 0 means the whole valid split.
    keep: how many of the newest checkpoints stay, beside the best one. max_minutes: a guard on one call's training
    time, 0 for none; the learning rate follows `steps` alone. tensorboard: whether the metrics, and piano rolls of what the
    model writes, also go to event files in `tensorboard` in the workdir.
    bad_steps: whether a step whose loss is not finite, or above `spike` times the recent ones (0 for no limit), makes the run
    'stop' or is 'skip'ped, up to `max_skipped` in a row.
    """

    steps: int = 1000
    batch_size: int = 8
    accumulate: int = 1
    eval_every: int = 200
    eval_batches: int = 0
    log_every: int = 10
    checkpoint_every: int = 200
    keep: int = 2
    seed: int = 0
    max_minutes: float = 0.0
    bad_steps: str = "stop"
    spike: float = 0.0
    max_skipped: int = 10
    tensorboard: bool = False

    def __post_init__(self):
        ones = ("steps", "batch_size", "accumulate", "eval_every", "log_every", "checkpoint_every", "keep", "max_skipped")
        _at_least(self, "train", eval_batches=0, seed=0, max_minutes=0, spike=0, **dict.fromkeys(ones, 1))
        if self.bad_steps not in BAD_STEPS:
            raise UserError(f"train.bad_steps is {self.bad_steps!r}; choose one of {', '.join(BAD_STEPS)}")
        if 0 < self.spike <= 1:
            raise UserError(f"train.spike is {self.spike}; give a number above 1, such as 2, or 0 for no limit")
        if self.seed >= 2**31:
            raise UserError(f"train.seed is {self.seed}; give a number below 2**31")
        if self.batch_size % self.accumulate:
            raise UserError(
                f"train.batch_size is {self.batch_size}; give a multiple of train.accumulate, {self.accumulate}"
            )


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How many devices lie along each axis of the mesh (training/sharding.py).

    data: copies of the model that share the rows of a batch; 0 for as many as the devices allow. fsdp: devices that share rows
    and hold a part each of every parameter. tensor: devices that share the heads and the hidden units.
    """

    data: int = 0
    fsdp: int = 1
    tensor: int = 1

    def __post_init__(self):
        _at_least(self, "mesh", data=0, fsdp=1, tensor=1)


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Everything that decides what a run computes, and on which devices: by a 'mesh', or by 'pmap'."""

    tokenizer: NoteEvents
    representation: RepresentationConfig
    data: DataConfig
    model: ModelConfig
    optimizer: OptimizerConfig
    train: TrainConfig
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    parallel: str = "mesh"

    @classmethod
    def from_dict(cls, sections: Mapping[str, Mapping[str, Any]]) -> "RunConfig":
        """The run that `sections` (a ConfigDict or a checkpoint's JSON) tell of; others than a run's are passed over.

        Raises UserError naming the field that is unknown or has an impossible value.
        """
        tokenizer = read_section(NoteEvents, "tokenizer", sections)
        sections = {"representation": {}, "mesh": {}, "parallel": "mesh", **sections}  # a caller may leave these out
        representation = read_section(RepresentationConfig, "representation", sections)
        sizes = representation.vocab_sizes(tokenizer)
        return cls(
            tokenizer,
            representation,
            read_section(DataConfig, "data", sections),
            read_section(ModelConfig, "model", sections, vocab_sizes=sizes),
            read_section(OptimizerConfig, "optimizer", sections),
            read_section(TrainConfig, "train", sections),
            read_section(MeshConfig, "mesh", sections),
            sections["parallel"],
        )

    def __post_init__(self):
        if self.parallel not in PARALLEL:
            raise UserError(f"config.parallel is {self.parallel!r}; choose one of {', '.join(PARALLEL)}")
        if self.model.form == "delay" and self.representation.name != "events":
            raise UserError("config.model.form is delay, which knows the grammar of representation.name = events alone")
        if self.model.form == "delay" and self.data.pack:
            raise UserError("config.data.pack is True, but with model.form = delay a step reads of two events; give False")

    @property
    def context(self) -> int:
        """The steps that the model reads of a crop."""
        return self.representation.steps(self.data.num_events)

    def to_dict(self) -> dict[str, Any]:
        """The sections, JSON-ready; the vocabulary's sizes follow from the tokenizer and are left out."""
        sections = dataclasses.asdict(self)
        del sections["model"]["vocab_sizes"]
        return sections

    def differences(self, saved: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[Any, Any]]:
        """'section.field' -> (value in `saved`, value here) of what makes this another run than the one saved."""
        changed = changes(RunConfig.from_dict(saved).to_dict(), self.to_dict())
        return {name: values for name, values in changed.items() if name not in MAY_CHANGE}


def read_section(cls: type[Section], name: str, sections: Mapping[str, Mapping[str, Any]], **extra: Any) -> Section:
    """The dataclass `cls` from the section `name`. Raises UserError for a field that is not known or has a wrong value."""
    if name not in sections:
        raise UserError(f"the config has no section {name}; start from configs/sage.py")
    values = {**sections[name], **extra}
    known = {field.name: field.type for field in dataclasses.fields(cls)}
    for field, value in values.items():
        if field not in known:
            raise UserError(f"config.{name}.{field} is not a field; known are {', '.join(known)}")
        if typing.get_origin(known[field]) is tuple:
            _check_elements(f"config.{name}.{field}", value, typing.get_args(known[field])[0])
    try:
        return cls(**values)
    except UserError as error:
        raise UserError(f"config.{error}") from error  # a section's own complaint begins with section.field


def _check_elements(name: str, value: Any, kind: type) -> None:
    """Raises UserError unless `value` has elements of `kind`, of those that ELEMENTS names: ml_collections takes any."""
    fits, what = ELEMENTS[kind]
    if not isinstance(value, (tuple, list)) or any(isinstance(each, bool) or not isinstance(each, fits) for each in value):
        raise UserError(f"{name} is {value!r}; give {what} in parentheses, with commas between them")


def flat(sections: Mapping[str, Any]) -> dict[str, Any]:
    """'section.field' -> value, and what stands in no section by its name; a tuple as the list that JSON makes of it."""
    named = {}
    for name, section in sections.items():
        inside = isinstance(section, Mapping)
        named |= {f"{name}.{field}": value for field, value in section.items()} if inside else {name: section}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in named.items()}


def changes(there: Mapping[str, Any], here: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """'section.field' -> (value there, value here) where they are not the same; None for one that is not there."""
    there, here = flat(there), flat(here)
    names = sorted(there.keys() | here.keys())
    return {name: (there.get(name), here.get(name)) for name in names if there.get(name) != here.get(name)}


def _at_least(config: Any, section: str, **lows: float) -> None:
    for field, low in lows.items():
        value = getattr(config, field)
        if not value >= low:
            raise UserError(f"{section}.{field} is {value}; it must be at least {low}")


def _between(config: Any, section: str, low: float, high: float, *fields: str) -> None:
    for field in fields:
        value = getattr(config, field)
        if not low <= value <= high:
            raise UserError(f"{section}.{field} is {value}; it must lie between {low} and {high}")
