"""The config of a training run: the sections of configs/sage.py as frozen dataclasses that validate their fields."""

import dataclasses
import numbers
import typing
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from sage_jax.data.augmentation import AugmentConfig
from sage_jax.errors import UserError
from sage_jax.models.config import ModelConfig
from sage_jax.tasks.config import TasksConfig
from sage_jax.tokenizers.config import RepresentationConfig
from sage_jax.tokenizers.note_events import HEAD, NoteEvents

PARTITIONERS = ("mesh", "pmap")
BAD_STEP_ACTIONS = ("stop", "skip")
Section = TypeVar("Section")  # a dataclass
# Element type of a tuple field -> (the values that it accepts, its name in error messages).
ELEMENT_TYPES = {int: (numbers.Integral, "whole numbers"), float: (numbers.Real, "numbers"), str: (str, "words")}
MONITORING_FIELDS = ("eval_every", "eval_batches", "log_every", "checkpoint_every", "max_to_keep", "tensorboard")

# Fields that may differ on resume: length, monitoring, attention memory, device placement and the path of the shards.
# More steps stretch the cosine schedule. Shards are identified by their content.
MUTABLE_ON_RESUME = frozenset({"partitioner"}) | frozenset(
    f"{section}.{field}"
    for section, fields in (
        ("data", ("corpus", "shards")),
        ("mesh", ("data", "fsdp", "tensor")),
        ("model", ("query_chunk_size", "attention_impl", "decode_impl", "remat")),
        ("train", ("steps", "patience", "init_from", "max_minutes", "max_skipped", *MONITORING_FIELDS)),
        ("train", ("on_bad_step", "loss_spike_factor")),
    )
    for field in fields
)


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The corpus of a run, and how crops are cut from it.

    corpus: 'embedded', 'music21', 'music21:COMPOSER' or 'folder:PATH', for launch.preprocess.
    shards: folder of token shards; '' means `data` in the workdir.
    context_events: N, the number of events in a crop that the model reads.
    transpose: (lowest, highest) shift of a crop, in semitones.
    pack: put several short pieces into one row, with attention masked between them: the same losses with less padding.
    max_pieces: train on so many pieces, spread evenly over the training split; 0 for all.
    """

    corpus: str = "embedded"
    shards: str = ""
    context_events: int = 256
    transpose: tuple[int, int] = (-5, 6)
    pack: bool = False
    max_pieces: int = 0

    def __post_init__(self):
        object.__setattr__(self, "transpose", tuple(self.transpose))
        _at_least(self, "data", context_events=HEAD + 2, max_pieces=0)  # at least one note and EOS
        low_high = self.transpose
        if len(low_high) != 2 or not -24 <= low_high[0] <= 0 <= low_high[1] <= 24:
            raise UserError(f"data.transpose is {low_high}; give two numbers like (-5, 6), 0 among them")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with linear warm-up to `learning_rate`, then cosine decay to `final_lr_fraction` of it at the last step."""

    learning_rate: float = 1e-3
    warmup_steps: int = 100
    final_lr_fraction: float = 0.1
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    b1: float = 0.9
    b2: float = 0.98

    def __post_init__(self):
        _at_least(self, "optimizer", learning_rate=0, warmup_steps=0, weight_decay=0, clip_norm=1e-6)
        _between(self, "optimizer", 0, 1, "final_lr_fraction", "b1", "b2")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Length, batch size and logging of a run. Fields ending in `_every` are intervals in steps.

    batch_size: crops per step over all micro-batches. grad_accum_steps: micro-batches per step.
    eval_batches: validation batches per evaluation; 0 means the whole split.
    max_to_keep: newest checkpoints to keep, in addition to the best one.
    max_minutes: limit on the training time of one call; 0 means no limit. The learning rate depends on `steps` alone.
    on_bad_step: 'stop' or 'skip' at a bad step. A step is bad if its loss is not finite or above
    `loss_spike_factor` times the recent average (0: no limit). At most `max_skipped` steps are skipped in a row.
    ema_decay: of an exponential moving average of the parameters, such as 0.999; it is what is validated, sampled and exported.
    0: none.
    patience: stop after so many evaluations in a row without a lower validation loss; 0: never.
    init_from: weights that a new run begins with, for fine-tuning: a name, a folder of launch.export, or a run's folder.
    tensorboard: also write metrics and piano rolls of sampled continuations to `tensorboard` in the workdir.
    """

    steps: int = 1000
    batch_size: int = 8
    grad_accum_steps: int = 1
    eval_every: int = 200
    eval_batches: int = 0
    log_every: int = 10
    checkpoint_every: int = 200
    max_to_keep: int = 2
    seed: int = 0
    max_minutes: float = 0.0
    on_bad_step: str = "stop"
    loss_spike_factor: float = 0.0
    max_skipped: int = 10
    ema_decay: float = 0.0
    patience: int = 0
    init_from: str = ""
    tensorboard: bool = False

    def __post_init__(self):
        positive = ("steps", "batch_size", "grad_accum_steps", "max_to_keep", "max_skipped")
        positive += ("eval_every", "log_every", "checkpoint_every")
        not_negative = ("eval_batches", "seed", "max_minutes", "loss_spike_factor", "patience")
        _at_least(self, "train", **dict.fromkeys(not_negative, 0), **dict.fromkeys(positive, 1))
        if not 0 <= self.ema_decay < 1:
            raise UserError(f"train.ema_decay is {self.ema_decay}; give a number below 1, such as 0.999, or 0 for no average")
        if self.on_bad_step not in BAD_STEP_ACTIONS:
            raise UserError(f"train.on_bad_step is {self.on_bad_step!r}; choose one of {', '.join(BAD_STEP_ACTIONS)}")
        if 0 < self.loss_spike_factor <= 1:
            raise UserError(
                f"train.loss_spike_factor is {self.loss_spike_factor}; give a number above 1, such as 2, or 0 for no limit"
            )
        if self.seed >= 2**31:
            raise UserError(f"train.seed is {self.seed}; give a number below 2**31")
        if self.batch_size % self.grad_accum_steps:
            raise UserError(
                f"train.batch_size is {self.batch_size}; give a multiple of train.grad_accum_steps, {self.grad_accum_steps}"
            )


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Number of devices along each axis of the mesh (training/sharding.py).

    data: shards the rows of a batch; 0 means all remaining devices. fsdp: shards the rows and the parameters.
    tensor: shards the heads and the hidden units.
    """

    data: int = 0
    fsdp: int = 1
    tensor: int = 1

    def __post_init__(self):
        _at_least(self, "mesh", data=0, fsdp=1, tensor=1)


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """The full config of a run. partitioner: 'mesh' (jit over a mesh of devices) or 'pmap'."""

    tokenizer: NoteEvents
    representation: RepresentationConfig
    data: DataConfig
    model: ModelConfig
    optimizer: OptimizerConfig
    train: TrainConfig
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    tasks: TasksConfig = dataclasses.field(default_factory=TasksConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    partitioner: str = "mesh"

    @classmethod
    def from_dict(cls, sections: Mapping[str, Any]) -> "RunConfig":
        """The run described by `sections`, from a ConfigDict or from a checkpoint's JSON. Unknown sections are ignored.

        Raises UserError that names the field which is unknown or has an invalid value.
        """
        tokenizer = read_section(NoteEvents, "tokenizer", sections)
        optional = {name: {} for name in ("representation", "augment", "tasks", "mesh")}
        sections = {**optional, "partitioner": "mesh", **sections}
        representation = read_section(RepresentationConfig, "representation", sections)
        fields = representation.model_fields(tokenizer)
        return cls(
            tokenizer,
            representation,
            read_section(DataConfig, "data", sections),
            read_section(ModelConfig, "model", sections, **fields),
            read_section(OptimizerConfig, "optimizer", sections),
            read_section(TrainConfig, "train", sections),
            read_section(AugmentConfig, "augment", sections),
            read_section(TasksConfig, "tasks", sections),
            read_section(MeshConfig, "mesh", sections),
            sections["partitioner"],
        )

    def __post_init__(self):
        if self.partitioner not in PARTITIONERS:
            raise UserError(f"config.partitioner is {self.partitioner!r}; choose one of {', '.join(PARTITIONERS)}")
        self.augment.check(self.representation)
        if self.tasks != TasksConfig() and self.representation.name != "roles":
            raise UserError(
                f"config.tasks is {self.tasks}, but the tokens of config.representation.name = {self.representation.name} have "
                "no given events; set config.representation.name to roles"
            )
        if self.model.architecture == "delay" and self.representation.name != "events":
            raise UserError("config.model.architecture is delay, which supports only config.representation.name = events")
        if self.model.architecture == "delay" and self.data.pack:
            raise UserError(
                "config.data.pack is True, but with model.architecture = delay one step holds tokens of several events; "
                "set it to False"
            )

    @property
    def context(self) -> int:
        """Context length in model steps (one per event for `events`)."""
        return self.representation.steps(self.data.context_events)

    def to_dict(self) -> dict[str, Any]:
        """The sections, JSON-ready, without the fields of the model that follow from the tokenizer."""
        sections = dataclasses.asdict(self)
        for field in self.representation.model_fields(self.tokenizer):
            del sections["model"][field]
        return sections

    def differences(self, saved: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """'section.field' -> (saved value, value here) for the fields that must not change on resume."""
        changed = diff(RunConfig.from_dict(saved).to_dict(), self.to_dict())
        return {name: values for name, values in changed.items() if name not in MUTABLE_ON_RESUME}


def read_section(cls: type[Section], name: str, sections: Mapping[str, Any], **extra: Any) -> Section:
    """The dataclass `cls` from the section `name`. Raises UserError for an unknown field or an invalid value."""
    if name not in sections:
        raise UserError(f"the config has no section {name}; start from configs/sage.py")
    values = {**sections[name], **extra}
    known = {field.name: field.type for field in dataclasses.fields(cast(Any, cls))}
    for field, value in values.items():
        if field not in known:
            raise UserError(f"config.{name}.{field} is not a field; known fields are {', '.join(known)}")
        if typing.get_origin(known[field]) is tuple:
            _check_elements(f"config.{name}.{field}", value, typing.get_args(known[field])[0])
    try:
        return cls(**values)
    except UserError as error:
        raise UserError(f"config.{error}") from error  # the message of a section starts with section.field


def _check_elements(name: str, value: Any, kind: type) -> None:
    """Raises UserError unless `value` is a tuple of `kind`, a key of ELEMENT_TYPES; ml_collections does not check elements."""
    accepted, what = ELEMENT_TYPES[kind]
    if not isinstance(value, tuple | list) or any(isinstance(each, bool) or not isinstance(each, accepted) for each in value):
        raise UserError(f"{name} is {value!r}; give {what} in parentheses, separated by commas")


def flatten(sections: Mapping[str, Any]) -> dict[str, Any]:
    """'section.field' -> value, or 'field' -> value outside sections. Tuples become lists, as in JSON."""
    named = {}
    for name, section in sections.items():
        is_section = isinstance(section, Mapping)
        named |= {f"{name}.{field}": value for field, value in section.items()} if is_section else {name: section}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in named.items()}


def diff(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """'section.field' -> (old value, new value) for fields that differ; None stands for a missing field."""
    old, new = flatten(old), flatten(new)
    names = sorted(old.keys() | new.keys())
    return {name: (old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)}


def _at_least(config: Any, section: str, **minima: float) -> None:
    for field, low in minima.items():
        value = getattr(config, field)
        if not value >= low:
            raise UserError(f"{section}.{field} is {value}; it must be at least {low}")


def _between(config: Any, section: str, low: float, high: float, *fields: str) -> None:
    for field in fields:
        value = getattr(config, field)
        if not low <= value <= high:
            raise UserError(f"{section}.{field} is {value}; it must be between {low} and {high}")
