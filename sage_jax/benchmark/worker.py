"""The worker protocol: one system under test, in a process of its own.

A worker gets its job as JSON in its only argument. It prints one line of JSON (its metadata) when it is ready. It then does one
run per line that it reads and prints the result as one line of JSON. It ends when its input ends. Systems with different
libraries and environments can thus take turns on the same cores, and only one of them computes at a time. This module needs
only the standard library, so that a peer's environment can import it.
"""

import dataclasses
import json
import resource
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol


@dataclasses.dataclass(frozen=True)
class DecodingRun:
    """The measurements of one run of a decoder. Raises ValueError if the number of timed events is not the number drawn.

    seconds: per event, for all rows of the batch together.
    events_drawn: per row.
    notes_drawn: by all rows; None if tokens are not decoded to notes.
    prefill_seconds: None without a prefill.
    loop_seconds: for all events in one call of a compiled loop; None without such a loop.
    peak_megabytes: peak memory so far of the device, or of the process if the device does not count it.
    """

    seconds: Sequence[float]
    events_drawn: int
    notes_drawn: int | None
    prefill_seconds: float | None
    peak_megabytes: float
    loop_seconds: float | None = None

    def __post_init__(self):
        if len(self.seconds) != self.events_drawn:
            raise ValueError(f"{len(self.seconds)} events were timed, but {self.events_drawn} were drawn")


class System(Protocol):
    """A system that is ready to be measured.

    metadata: facts for its measurement, such as parameters, cache_bytes, compile_seconds and versions. `measures` describes in
      one sentence what a run does and what it leaves out.
    """

    metadata: dict[str, Any]

    def run(self) -> dict[str, Any]:
        """Does one run.

        A decoder returns the fields of a DecodingRun. A trainer returns `seconds` per train step, among others. The device
        probe returns bytes_per_second and operations_per_second. `peak_megabytes` defaults to this process's peak.
        """
        ...


def serve(build: Callable[[dict[str, Any]], System]) -> None:
    """Builds the system for the job in sys.argv[1] and does one run per line of standard input."""
    system = build(json.loads(sys.argv[1]))
    answer, sys.stdout = sys.stdout, sys.stderr  # keeps the prints of libraries out of the protocol
    print(json.dumps(system.metadata), file=answer, flush=True)
    for _ in sys.stdin:
        result = system.run()
        print(json.dumps({"peak_megabytes": peak_megabytes(), **result}), file=answer, flush=True)


def peak_megabytes() -> float:
    """Peak resident memory of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
