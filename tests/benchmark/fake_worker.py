"""A stand-in for interleaved.Worker that answers in this process."""

from typing import Any, ClassVar


class FakeWorker:
    """Answers each run with job["answer"]. An exception in it, or in job["start"], is raised.

    open_workers: the workers that are not closed.
    """

    open_workers: ClassVar[set["FakeWorker"]] = set()

    def __init__(self, command: list[str], job: dict[str, Any], environment: Any = None, limit: float = 0.0):
        self.job, self.metadata = job, job.get("metadata", {"measures": "nothing"})
        if isinstance(job.get("start"), Exception):
            raise job["start"]
        self.open_workers.add(self)

    def run(self) -> dict[str, Any]:
        if isinstance(self.job["answer"], Exception):
            raise self.job["answer"]
        return self.job["answer"]

    def close(self) -> None:
        self.open_workers.discard(self)
