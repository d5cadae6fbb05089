"""A measurement in a process of its own: one side of the conversation between the benchmark and a system under test.

A worker is a program that takes a job as its only argument, in JSON, prints one line of JSON when it is ready, and then one
for each line that it reads, after one run each; it ends when its input does. So systems of different libraries and
environments take turns on the same cores, and nothing but the one whose turn it is runs. Only the standard library is
needed, so that a peer's environment can import this file.
"""

import json
import resource
import sys
from collections.abc import Callable
from typing import Any, Protocol


class Subject(Protocol):
    """A system that is ready to be measured.

    about: facts for its JSON line, such as parameters, cache_bytes, compile_seconds, versions, and `measures`, which says in
    a sentence what one run does and what it leaves out.
    """

    about: dict[str, Any]

    def run(self) -> dict[str, Any]:
        """Once: `seconds`, a list with the time of each note drawn or of each train step, and what else is told of a run.

        Of decoding prefill_seconds (None where there is none), and loop_seconds where all notes can be drawn in one call. The
        probe of the device tells bytes_per_second and operations_per_second instead. `peak_megabytes` is of this process's
        memory where a run doesn't tell of its device's.
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
