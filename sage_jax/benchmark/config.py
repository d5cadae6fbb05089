"""The benchmark's config and its cells: groups of systems that are compared, and each system's job."""

import dataclasses
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sage_jax.benchmark.interleaved import TIME_LIMIT, Job, WorkerFailed
from sage_jax.benchmark.peers import PEERS, PEERS_PYTHON, TRAINING_PEERS
from sage_jax.benchmark.ratios import CONTROL
from sage_jax.config import MeshConfig
from sage_jax.errors import UserError
from sage_jax.files import ROOT
from sage_jax.live.settings import LiveSettings
from sage_jax.models.presets import model_config, model_fields
from sage_jax.tokenizers import note_events as ev
from sage_jax.tokenizers.note_events import HEAD, NUM_ATTRIBUTES, NoteEvents

# The fields of config.scaling_curves, and the name of each in a cell or its model.
CURVES = {"context": "context_events", "batch": "batch", "embed_dim": "embed_dim", "num_layers": "num_layers"}
CURVE = "curve_"  # prefix of the tables of a scaling curve's points
# The lowest id of a note in each attribute: random events from these ids up are notes.
FIRST_NOTE_IDS = tuple(ev.FIRST_PROGRAM if attribute == ev.INSTRUMENT else ev.FIRST for attribute in range(NUM_ATTRIBUTES))
LIVE = dict(systems=("sage-20m",), sessions=(1,), mode="answer", qpm=120.0, lead=4.0, trade_bars=2, meter=(4, 4))
AXES = tuple(field.name for field in dataclasses.fields(MeshConfig))


@dataclasses.dataclass(frozen=True)
class Cell:
    """Systems that are compared under the same conditions. They differ in architecture and KV sharing only.

    table: the table of the report that the cell belongs to. systems: their names; CONTROL at the end of a name marks the second
      worker of an A/A pair. model: the sizes that all systems have. batch: rows. events: see the subclasses.
    """

    table: str
    systems: tuple[str, ...]
    model: Mapping[str, Any]
    batch: int
    events: int

    def check(self, config: "BenchmarkConfig") -> None:
        """Raises UserError for a cell that cannot be measured."""
        raise NotImplementedError

    def job(self, config: "BenchmarkConfig", system: str) -> Job:
        """The command of the system's worker and its job. Raises WorkerFailed if its environment is missing."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class DecodingCell(Cell):
    """events: drawn per turn; the last one fills the context of context_events events."""

    context_events: int
    task: str = "decoding"

    def __str__(self) -> str:
        tokens = self.context_events * NUM_ATTRIBUTES
        return f"batch {self.batch}, {tokens:,} tokens ({self.context_events:,} events) of context"

    @property
    def is_curve(self) -> bool:
        """Whether the cell is a point of a scaling curve."""
        return self.table.startswith(CURVE)

    def check(self, config: "BenchmarkConfig") -> None:
        if config.reference not in self.systems and not self.is_curve:
            raise UserError(f"config.tables.{self.table}.systems lacks config.reference = {config.reference}")
        for system in map(_without_control, self.systems):
            if system not in PEERS and system != "checkpoint":
                model_config(system, self.model, config.dtype)
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
            prefill=self.table != f"{CURVE}context",
            **_common(config),
        )
        if system in PEERS:
            return _peer(PEERS[system], self.model, job)
        command = [sys.executable, "-m", "sage_jax.benchmark.decode"]
        if system == "checkpoint":
            return command, {**job, "workdir": config.workdir}
        return command, {**job, "model": {**self.model, **model_fields(system)}}


@dataclasses.dataclass(frozen=True)
class TrainingCell(Cell):
    """events: per crop. steps: per turn."""

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
                model_config(system, self.model, config.dtype)

    def job(self, config: "BenchmarkConfig", system: str) -> Job:
        system = _without_control(system)
        job = dict(batch=self.batch, events=self.events, steps=self.steps, **_common(config))
        if system in TRAINING_PEERS:
            peer = TRAINING_PEERS[system]
            return _peer(peer, self.model, {**job, "head": HEAD, "bos": ev.BOS, "first_note_ids": FIRST_NOTE_IDS})
        command = [sys.executable, "-m", "sage_jax.benchmark.train"]
        return command, {**job, "model": {**self.model, **model_fields(system)}, "shards": config.shards}


@dataclasses.dataclass(frozen=True)
class CommunicationCell(Cell):
    """Train steps that are compiled, and not run, for fake devices along each axis of the mesh.

    batch: rows in all, for strong scaling. rows: per device, for weak scaling. events: per crop.
    """

    rows: int
    axes: tuple[str, ...]
    devices: int
    task: str = "communication"

    def __str__(self) -> str:
        return f"{self.devices} fake devices"

    def check(self, config: "BenchmarkConfig") -> None:
        where = "config.communication"
        ones = {field: (getattr(self, field), 1) for field in ("devices", "batch", "rows")}
        _at_least(where, events=(self.events, HEAD + 2), **ones)
        if self.batch % self.devices:
            raise UserError(f"{where}.batch is {self.batch}; give a multiple of {self.devices}, one of {where}.devices")
        if unknown := set(self.axes) - set(AXES):
            raise UserError(f"{where}.axes has {min(unknown)!r}; choose from {', '.join(AXES)}")
        for system in self.systems:
            model_config(system, self.model, config.dtype)

    def job(self, config: "BenchmarkConfig", system: str) -> Job:
        job = {field: getattr(self, field) for field in ("batch", "rows", "events", "axes", "devices")} | _common(config)
        command = [sys.executable, "-m", "sage_jax.benchmark.scaling"]
        return command, {**job, "model": {**self.model, **model_fields(system)}}


@dataclasses.dataclass(frozen=True)
class LiveCell(Cell):
    """Live play, in real time. systems: published weights by name, or folders of them or of runs.

    batch: players at once. events: seconds that they play. model: empty, since each system has its own sizes. The other fields
    are those of LiveSettings. corpus: the pieces that they replay, as data.corpus.
    """

    mode: str
    qpm: float
    lead: float
    trade_bars: int
    meter: tuple[int, int]
    corpus: str
    task: str = "live"

    def __str__(self) -> str:
        lead = f", {self.lead:g} quarters ahead" if self.mode == "accompany" else ""
        return f"{self.mode} at {self.qpm:g} quarters a minute{lead}, {self.batch} at once, {self.events:g} seconds"

    def check(self, config: "BenchmarkConfig") -> None:
        _at_least(f"config.live.{self.table}", sessions=(self.batch, 1), seconds=(self.events, 1))
        LiveSettings(**{name: getattr(self, name) for name in ("mode", "qpm", "lead", "trade_bars", "meter")})

    def job(self, config: "BenchmarkConfig", system: str) -> Job:
        job = {name: getattr(self, name) for name in ("mode", "qpm", "lead", "trade_bars", "meter", "corpus")}
        job |= dict(model=system, sessions=self.batch, seconds=self.events, seed=config.seed)
        return [sys.executable, "-m", "sage_jax.benchmark.live"], job


@dataclasses.dataclass(frozen=True)
class BenchmarkConfig:
    """What to measure. Raises UserError naming the field.

    title: of this config's part of docs/benchmarks.md.
    model: embed_dim, num_layers, num_heads, head_dim and mlp_dim of every system.
    dtype: of weights and cache in decoding, of the computation in training.
    rounds: turns of each system; the first does not count.
    events: drawn per turn.
    workdir: of a trained checkpoint to measure under the name "checkpoint"; "" for none.
    reference: the system that others are compared to. Each table of ratios has it twice, as an A/A control.
    highlighted: the system that is compared to the others in decoding.
    time_limit: seconds that a worker has to start, and for each turn.
    tables: of decoding, by name: systems, batches, contexts (in tokens), and `events` and `model` to override.
    scaling_curves: systems, and values of context (in events), batch, embed_dim and num_layers to measure them at.
    training: tables of train steps, by name: systems, batches, events (per crop), steps (per turn) and `model` to override.
    corpus: what the loader reads, as launch.preprocess takes it. shards: its folder of token shards; "" for one in the output
      folder, made if missing.
    communication: the programs to compile for fake devices: systems, devices and the other fields of CommunicationCell.
    live: of live play, by name: systems, sessions (numbers of players), seconds, corpus, and fields of LiveSettings.
    """

    title: str
    model: Mapping[str, int]
    dtype: str
    rounds: int
    events: int
    seed: int
    workdir: str
    reference: str
    highlighted: str
    tables: Mapping[str, Mapping[str, Any]]
    scaling_curves: Mapping[str, Any]
    training: Mapping[str, Mapping[str, Any]]
    communication: Mapping[str, Any]
    corpus: str = "embedded"
    shards: str = ""
    time_limit: float = TIME_LIMIT
    live: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        _at_least("config", rounds=(self.rounds, 2), events=(self.events, 1), time_limit=(self.time_limit, 1))
        for cell in self.cells():
            cell.check(self)

    def cells(self) -> Iterator[Cell]:
        """All cells: decoding (the main table first), scaling curves, training, communication, live play."""
        yield from self._decoding_cells()
        yield from self._curve_cells()
        for name, table in self.training.items():
            model = {**self.model, **table.get("model", {})}
            for context_events in table["events"]:
                for batch in table["batches"]:
                    systems = self._with_control(table["systems"])
                    yield TrainingCell(name, systems, model, batch, context_events, table["steps"])
        for devices in self.communication["devices"]:
            model = {**self.model, **self.communication["model"]}
            yield CommunicationCell(**{**self.communication, "table": "communication", "model": model, "devices": devices})
        for name, table in self.live.items():
            fields = {**LIVE, **table}
            systems, sessions, seconds = tuple(fields.pop("systems")), fields.pop("sessions"), fields.pop("seconds")
            for players in sessions:
                yield LiveCell(name, systems, {}, players, seconds, **{**fields, "meter": tuple(fields["meter"])})

    def _decoding_cells(self) -> Iterator[DecodingCell]:
        for name, table in sorted(self.tables.items(), key=lambda item: (item[0] != "main", item[0])):
            systems = (*table["systems"], *(["checkpoint"] if self.workdir and name == "main" else []))
            systems = self._with_control(systems)
            model = {**self.model, **table.get("model", {})}
            for context in table.get("contexts", (1024,)):
                for batch in table.get("batches", (1,)):
                    events = table.get("events", self.events)
                    yield DecodingCell(name, systems, model, batch, events, context // NUM_ATTRIBUTES)

    def _curve_cells(self) -> Iterator[DecodingCell]:
        defaults = dict(context_events=1024 // NUM_ATTRIBUTES, batch=1)
        for field, name in CURVES.items():
            for value in self.scaling_curves[field]:
                model = dict(self.model)
                if field in model:
                    model[field] = value
                    if field == "embed_dim":
                        model["mlp_dim"], model["head_dim"] = 3 * value, value // 8
                sizes = {**defaults, **({name: value} if name in defaults else {})}
                systems = tuple(self.scaling_curves["systems"])
                yield DecodingCell(f"{CURVE}{field}", systems, model, events=self.events, **sizes)

    def _with_control(self, systems: Sequence[str]) -> tuple[str, ...]:
        """The systems, with the reference's control if there is more than one system."""
        if len(systems) < 2:
            return tuple(systems)
        twice = lambda system: (system, system + CONTROL) if system == self.reference else (system,)
        return tuple(name for system in systems for name in twice(system))

    def cell_settings(self, cell: Cell) -> dict[str, Any]:
        """What distinguishes the measurements of a cell from those of other cells and configs, as JSON reads it back."""
        return json.loads(json.dumps({**dataclasses.asdict(cell), "dtype": self.dtype, "rounds": self.rounds}))


def _without_control(system: str) -> str:
    return system.removesuffix(CONTROL)


def _at_least(where: str, **fields: tuple[float, float]) -> None:
    """Raises UserError for the first field of `where` whose value is below its minimum."""
    for field, (value, minimum) in fields.items():
        if not value >= minimum:
            raise UserError(f"{where}.{field} is {value}; give at least {minimum}")


def _common(config: BenchmarkConfig) -> dict[str, Any]:
    return dict(dtype=config.dtype, seed=config.seed, threads=len(os.sched_getaffinity(0)))


def _peer(peer: Mapping[str, Any], model: Mapping[str, Any], job: dict[str, Any]) -> Job:
    """The command and job of a peer, with a KV head per query head."""
    if not PEERS_PYTHON.exists():
        raise WorkerFailed("its environment is missing; make it with bash launch/peers.sh")
    peer = dict(peer)
    script = ROOT / "third_party" / "peers" / peer.pop("script")
    sizes = {**model, "num_kv_heads": model["num_heads"], "vocab_sizes": list(NoteEvents().vocab_sizes)}
    return [str(PEERS_PYTHON), str(script)], {**job, **sizes, **peer}
