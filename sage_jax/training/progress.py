"""What a person sees of a run: a progress bar on a terminal, a line now and then elsewhere."""

import time

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 10.0


class ProgressReport:
    """Shows how far a run of `total` steps is; `say` prints a line of its own above the bar."""

    def __init__(self, total: int, step: int, console: Console | None = None):
        self._console = console or Console()
        columns = (BarColumn(20), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
        self._bar = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._task = self._bar.add_task("", total=total, completed=step)
        self._total = total
        self._last_line = -float("inf")

    def start(self) -> None:
        self._bar.start()

    def stop(self) -> None:
        self._bar.stop()

    def say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def update(self, step: int, text: str) -> None:
        self._bar.update(self._task, completed=step, description=text)
        now = time.monotonic()
        if self._bar.disable and now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            self.say(f"step {step}/{self._total}  {text}")


class Throughput:
    """Seconds, notes, tokens and steps of training alone: what is done between `add` and `resume` is left out."""

    def __init__(self):
        self._totals = self._read = np.zeros(4)
        self.resume()

    @property
    def seconds(self) -> float:
        return float(self._totals[0])

    def resume(self) -> None:
        self._since = time.perf_counter()

    def add(self, notes: float, tokens: float) -> None:
        """Counts a step that ended now."""
        spent = time.perf_counter() - self._since
        self._totals = self._totals + (spent, notes, tokens, 1)
        self.resume()

    def read(self) -> dict[str, float]:
        """Rates since the last reading."""
        seconds, notes, tokens, steps = self._totals - self._read
        self._read = self._totals
        rates = {"notes_per_second": notes / seconds, "tokens_per_second": tokens / seconds}
        return rates | {"notes_per_step": notes / steps}
