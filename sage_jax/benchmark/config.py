"""What a benchmark measures: cells of systems that are compared, and the job that each system's worker has in a cell."""

import dataclasses
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sage_jax.benchmark.ratios import CONTROL
from sage_jax.benchmark.systems import PEERS, PEERS_PYTHON, ROOT, TRAINING_PEERS, fields_of, model_of
from sage_jax.benchmark.turns import TIME_LIMIT, Job, WorkerFailed
from sage_jax.errors import UserError
from sage_jax.music import events
from sage_jax.music.events import HEAD, NUM_ATTRIBUTES, NoteEvents
from sage_jax.training.config import MeshConfig

GROWTH = {"context": "context_events", "batch": "batch", "width": "width", "layers": "layers"}
# The lowest ids of a note: random events from these on are notes, whoever makes them.
NOTE = tuple(events.FIRST_PROGRAM if attribute == events.INSTRUMENT else events.FIRST for attribute in range(NUM_ATTRIBUTES))
AXES = tuple(field.name for field in dataclasses.fields(MeshConfig))


@dataclasses.dataclass(frozen=True)
class Cell:
    """Systems to be compared: the same model but for its form and sharing, and the same of all that a kind of cell has.

    Each kind has check(config), which raises UserError for what can't be measured, and job(config, system). A system whose name
    ends in CONTROL is the one of that name a second time.
    """

    table: str
    systems: tuple[str, ...]
    model: Mapping[str, Any]
    batch: int
    events: int


@dataclasses.dataclass(frozen=True)
class DecodingCell(Cell):
    """events: notes in a turn, the last of which fills the context."""

    context_events: int
    task: str = "decoding"

    def __str__(self) -> str:
        tokens = self.context_events * NUM_ATTRIBUTES
        return f"batch {self.batch}, {tokens:,} tokens ({self.context_events:,} events) of context"

    def check(self, config: "BenchmarkConfig") -> None:
        if config.reference not in self.systems and not self.table.startswith("growth"):
            raise UserError(f"config.tables.{self.table}.systems lacks config.reference = {config.reference}")
        for system in map(_without_control, self.systems):
            if system not in PEERS and system != "checkpoint":
                model_of(system, self.model, config.dtype)
        if self.context_events <= self.events:
            raise UserError(
                f"config: {self.table} has a context of {self.context_events} events, too few to draw {self.events}"
            )

    def job(self, config: "BenchmarkConfig", system: str) -> Job:
        system = _without_control(system)
        job = dict(
            batch=self.batch,
            context_events=self.context_events,
            events=self.events,
            prefill=self.table != "growth_context",
            **_common(config),
        )
        if system in PEERS:
            return _peer(PEERS[system], self.model, job)
        command = [sys.executable, "-m", "sage_jax.benchmark.decode"]
        if system == "checkpoint":
            return command, {**job, "workdir": config.workdir}
        return command, {**job, "model": {**self.model, **fields_of(system)}}


@dataclasses.dataclass(frozen=True)
class TrainingCell(Cell):
    """events: of a crop. steps: in a turn."""

    steps: int
    task: str = "training"

    def __str__(self) -> str:
        return f"batch {self.batch} x {self.events:,} events ({self.events * NUM_ATTRIBUTES:,} tokens)"

    def check(self, config: "BenchmarkConfig") -> None:
        where = f"config.training.{self.table}"
        if config.reference not in self.systems:
            raise UserError(f"{where}.systems lacks config.reference = {config.reference}")
        _at_least(where, batches=(self.batch, 1), events=(self.events, HEAD + 2), steps=(self.steps, 1))
        for system in map(_without_control, self.systems):
            if system not in TRAINING_PEERS:
                model_of(system, self.model, config.dtype)

    def job(self, config: "BenchmarkConfig", system: str) -> Job:
        system = _without_control(system)
        job = dict(batch=self.batch, events=self.events, steps=self.steps, **_common(config))
        if system in TRAINING_PEERS:
            return _peer(TRAINING_PEERS[system], self.model, {**job, "head": HEAD, "bos": events.BOS, "note": NOTE})
        command = [sys.executable, "-m", "sage_jax.benchmark.train"]
        return command, {**job, "model": {**self.model, **fields_of(system)}, "shards": config.shards}


@dataclasses.dataclass(frozen=True)
class ScalingCell(Cell):
    """Train steps that are compiled for so many fake devices, along each axis of the mesh, and not run.

    batch: rows in all, where scaling is strong. rows: rows for each device, where it is weak. events: of a crop.
    """

    rows: int
    axes: tuple[str, ...]
    devices: int
    task: str = "scaling"

    def __str__(self) -> str:
        return f"{self.devices} fake devices"

    def check(self, config: "BenchmarkConfig") -> None:
        where = "config.scaling"
        ones = {field: (getattr(self, field), 1) for field in ("devices", "batch", "rows")}
        _at_least(where, events=(self.events, HEAD + 2), **ones)
        if self.batch % self.devices:
            raise UserError(f"{where}.batch is {self.batch}; give a multiple of {self.devices}, which {where}.devices has")
        if unknown := set(self.axes) - set(AXES):
            raise UserError(f"{where}.axes has {min(unknown)!r}; choose from {', '.join(AXES)}")
        for system in self.systems:
            model_of(system, self.model, config.dtype)

    def job(self, config: "BenchmarkConfig", system: str) -> Job:
        job = {field: getattr(self, field) for field in ("batch", "rows", "events", "axes", "devices")} | _common(config)
        command = [sys.executable, "-m", "sage_jax.benchmark.scaling"]
        return command, {**job, "model": {**self.model, **fields_of(system)}}


@dataclasses.dataclass(frozen=True)
class BenchmarkConfig:
    """What to measure. Raises UserError naming the field.

    title: of the part of BENCHMARKS.md that this is. model: width, layers, heads, head_width and mlp_width of every system.
    dtype: of weights and cache; in training, of what is computed. rounds: turns of each system, the first of which is not
    counted. events: drawn in a turn. workdir: of a checkpoint to measure too, under the name "checkpoint". reference: the
    system that others are compared to; it takes part twice in each table of ratios, as a control. featured: the one that is
    compared to the others in decoding. time_limit: seconds that a worker has to be ready, and for each of its turns.
    tables: of decoding, by name: the systems, batches and contexts (in tokens) of a table, and what its model has of its own.
    growth: systems, and the values of context (in events), batch, width and layers that they grow through.
    training: tables of train steps, by name: systems, batches, events (of a crop), steps (in a turn), and what its model has of
    its own. corpus: whose crops the loader reads, as launch.preprocess takes it. shards: the folder of its shards; "" for one
    in the output, which is made where it is not there.
    scaling: what is compiled for fake devices and counted: systems, devices, and the other fields of ScalingCell.
    """

    title: str
    model: Mapping[str, int]
    dtype: str
    rounds: int
    events: int
    seed: int
    workdir: str
    reference: str
    featured: str
    tables: Mapping[str, Mapping[str, Any]]
    growth: Mapping[str, Any]
    training: Mapping[str, Mapping[str, Any]]
    scaling: Mapping[str, Any]
    corpus: str = "embedded"
    shards: str = ""
    time_limit: float = TIME_LIMIT

    def __post_init__(self):
        _at_least("config", rounds=(self.rounds, 2), events=(self.events, 1), time_limit=(self.time_limit, 1))
        for cell in self.cells():
            cell.check(self)

    def cells(self) -> Iterator[Cell]:
        """Every cell: of decoding the main table, the others, and what grows; then those of training, and what is counted."""
        for name, table in sorted(self.tables.items(), key=lambda item: (item[0] != "main", item[0])):
            systems = (*table["systems"], *(["checkpoint"] if self.workdir and name == "main" else []))
            systems = self._with_control(systems)
            model = {**self.model, **table.get("model", {})}
            for context in table.get("contexts", (1024,)):
                for batch in table.get("batches", (1,)):
                    yield DecodingCell(name, systems, model, batch, table.get("events", self.events), context // NUM_ATTRIBUTES)
        usual = dict(context_events=1024 // NUM_ATTRIBUTES, batch=1)
        for field in GROWTH:
            for value in self.growth[field]:
                model = dict(self.model)
                if field in model:
                    model[field] = value
                    if field == "width":
                        model["mlp_width"], model["head_width"] = 3 * value, value // 8
                place = {**usual, **({GROWTH[field]: value} if GROWTH[field] in usual else {})}
                yield DecodingCell(f"growth_{field}", tuple(self.growth["systems"]), model, events=self.events, **place)
        for name, table in self.training.items():
            model = {**self.model, **table.get("model", {})}
            for num_events in table["events"]:
                for batch in table["batches"]:
                    systems = self._with_control(table["systems"])
                    yield TrainingCell(name, systems, model, batch, num_events, table["steps"])
        for devices in self.scaling["devices"]:
            shared = {**self.scaling, "model": {**self.model, **self.scaling["model"]}, "devices": devices}
            yield ScalingCell(table="scaling", **shared)

    def _with_control(self, systems: Sequence[str]) -> tuple[str, ...]:
        """The systems, the reference among them twice where there is something to compare it to."""
        if len(systems) < 2:
            return tuple(systems)
        twice = lambda system: (system, system + CONTROL) if system == self.reference else (system,)
        return tuple(name for system in systems for name in twice(system))

    def facts(self, cell: Cell) -> dict[str, Any]:
        """All that distinguishes a cell's measurements from those of other cells and configs, as it reads from a file."""
        return json.loads(json.dumps({**dataclasses.asdict(cell), "dtype": self.dtype, "rounds": self.rounds}))


def _without_control(system: str) -> str:
    return system.removesuffix(CONTROL)


def _at_least(where: str, **fields: tuple[float, float]) -> None:
    """Raises UserError for the first of the fields of `where` whose value is below its least."""
    for field, (value, least) in fields.items():
        if not value >= least:
            raise UserError(f"{where}.{field} is {value}; give at least {least}")


def _common(config: BenchmarkConfig) -> dict[str, Any]:
    return dict(dtype=config.dtype, seed=config.seed, threads=len(os.sched_getaffinity(0)))


def _peer(peer: Mapping[str, Any], model: Mapping[str, Any], job: dict[str, Any]) -> Job:
    """The command of the worker of a peer with all heads, and its job."""
    if not PEERS_PYTHON.exists():
        raise WorkerFailed("its environment is not there; make it with bash launch/peers.sh")
    peer = dict(peer)
    script = ROOT / "third_party" / "peers" / peer.pop("script")
    size = {**model, "kv_heads": model["heads"], "vocab_sizes": list(NoteEvents().vocab_sizes)}
    return [str(PEERS_PYTHON), str(script)], {**job, **size, **peer}
