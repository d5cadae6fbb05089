"""A measurement in a process of its own: one side of the conversation between the benchmark and a system under test.

A worker is a program that takes a job as its only argument, in JSON, prints one line of JSON when it is ready, and then one
for each line that it reads, after one run each; it ends when its input does. So systems of different libraries and
environments take turns on the same cores, and nothing but the one whose turn it is runs. Only the standard library is
needed, so that a peer's environment can import this file.
"""

import dataclasses
import json
import resource
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol


@dataclasses.dataclass(frozen=True)
class DecodingRun:
    """What one run of a decoder measured. Raises ValueError where it counts other events than it timed.

    seconds: of each event, for all rows of the batch at once. events_drawn: by each row. notes_drawn: by all rows; None where
    tokens are not turned into notes. prefill_seconds: None without a prefill. loop_seconds: of as many events in one call;
    None where there is no such call. peak_megabytes: the most memory so far, of the process or of its device.
    """

    seconds: Sequence[float]
    events_drawn: int
    notes_drawn: int | None
    prefill_seconds: float | None
    peak_megabytes: float
    loop_seconds: float | None = None

    def __post_init__(self):
        if len(self.seconds) != self.events_drawn:
            raise ValueError(f"{len(self.seconds)} events were timed, and {self.events_drawn} drawn")


class Subject(Protocol):
    """A system that is ready to be measured.

    about: facts for its JSON line, such as parameters, cache_bytes, compile_seconds, versions, and `measures`, which says in
    a sentence what one run does and what it leaves out.
    """

    about: dict[str, Any]

    def run(self) -> dict[str, Any]:
        """Once: the fields of a DecodingRun, or `seconds` of each train step and what else is measured in a run.

        The probe of the device has bytes_per_second and operations_per_second instead. `peak_megabytes` is of this process's
        memory where a run doesn't give its device's.
        """
        ...


def serve(build: Callable[[dict[str, Any]], Subject]) -> None:
    """Builds the subject of the job in sys.argv[1] and runs it for each line of standard input."""
    subject = build(json.loads(sys.argv[1]))
    answer, sys.stdout = sys.stdout, sys.stderr  # what libraries print must not come between
    print(json.dumps(subject.about), file=answer, flush=True)
    for _ in sys.stdin:
        result = subject.run()
        print(json.dumps({"peak_megabytes": peak_megabytes(), **result}), file=answer, flush=True)


def peak_megabytes() -> float:
    """The most memory that this process has had so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
