"""The best step of a run by its validation loss, and when to stop waiting for a better one."""

from typing import Any

INFINITY = float("inf")


class BestStep:
    """The lowest validation loss so far, its step, and how many evaluations came after it.

    patience: that many evaluations in a row without a lower loss end the run; 0: never. saved: what `to_dict` gave for the
    checkpoint that is resumed, None for a new run.
    """

    def __init__(self, patience: int, saved: dict[str, Any] | None = None):
        self._patience = patience
        self.step, self.loss, self.since = 0, INFINITY, 0
        if saved:
            self.step, self.loss, self.since = saved["step"], saved["loss"], saved["since"]

    @property
    def exhausted(self) -> bool:
        """Whether the run has waited long enough."""
        return 0 < self._patience <= self.since

    def add(self, step: int, loss: float) -> bool:
        """Counts an evaluation. Returns whether it is the best one."""
        if loss < self.loss:
            self.step, self.loss, self.since = step, loss, 0
            return True
        self.since += 1
        return False

    def to_dict(self) -> dict[str, Any] | None:
        """For a checkpoint, JSON-ready; None before the first evaluation."""
        return {"step": self.step, "loss": self.loss, "since": self.since} if self.step else None
