"""The record of one measurement: a line of measurements.jsonl."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from sage_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Measurement:
    """The measurement of one system in one cell of the benchmark. A list over rounds has one entry per counted round.

    system: its name; CONTROL at the end marks the second worker of an A/A pair.
    cell: the cell and the settings that distinguish it (BenchmarkConfig.cell_settings).
    commit: of this checkout.
    error: why the system could not be measured; "" if it was.
    metadata: facts that the worker reports once, such as parameters, cache_bytes, versions and `measures`.
    device: the probe's bytes_per_second and operations_per_second, over rounds.
    seconds: over rounds, of each timed event or train step.
    peak_megabytes: over rounds.
    events_drawn, notes_drawn, prefill_seconds, loop_seconds: of decoding, over rounds (see DecodingRun).
    loop_seconds, read_seconds, loaded_loop_seconds: of training, over rounds (see benchmark.train.Trainer.run).
    live: of live play, one entry (see benchmark.live.LivePlay.run).
    programs: of communication, one entry per compiled program (see benchmark.scaling.CommunicationCounter.run).
    """

    system: str
    cell: dict[str, Any]
    commit: str
    error: str = ""
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)
    device: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    seconds: list[list[float]] = dataclasses.field(default_factory=list)
    peak_megabytes: list[float] = dataclasses.field(default_factory=list)
    events_drawn: list[int] = dataclasses.field(default_factory=list)
    notes_drawn: list[int | None] = dataclasses.field(default_factory=list)
    prefill_seconds: list[float | None] = dataclasses.field(default_factory=list)
    loop_seconds: list[float | None] = dataclasses.field(default_factory=list)
    read_seconds: list[float] = dataclasses.field(default_factory=list)
    loaded_loop_seconds: list[float] = dataclasses.field(default_factory=list)
    programs: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    live: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether the system was measured."""
        return not self.error

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON; empty ones are left out."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Measurement":
        """The measurement that `to_json` wrote. Raises UserError for other JSON."""
        try:
            return cls(**values)
        except TypeError as error:
            raise UserError(f"measurements.jsonl is from another version ({error}); choose another --output") from error
