"""LiveStatistics: what a live session has done, and how long it took."""

import collections
import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

RECENT = 2_000  # measurements of a kind that are kept


@dataclasses.dataclass(frozen=True)
class LiveStatistics:
    """Counts since the session was opened, and milliseconds. A percentile without a measurement is None.

    notes: of the model that sounded. late: those given out after their due time. skipped: note-ons dropped because they were
    more than 100 ms late. lateness_*: of all notes that sounded, 0 for one on time. takeover_*: from the end of the pause, or
    the call of take_over, to the first note. after_player_*: to it from the player's last note. staleness_*: ticks between what
    the model had read of the player and the note that sounded. prefill, rollback: reading new notes, without and with going
    back. event: drawing one of each session. beyond_context: changes of notes that the model no longer reads. is_too_slow,
    advice: whether deadlines are missed, and what helps.
    """

    notes: int = 0
    late: int = 0
    skipped: int = 0
    player_notes: int = 0
    answers: int = 0
    rollbacks: int = 0
    beyond_context: int = 0
    lateness_p50: float | None = None
    lateness_p95: float | None = None
    lateness_p99: float | None = None
    takeover_p50: float | None = None
    takeover_p95: float | None = None
    after_player_p50: float | None = None
    after_player_p95: float | None = None
    staleness_p50: float | None = None
    staleness_p95: float | None = None
    prefill_p50: float | None = None
    prefill_p95: float | None = None
    rollback_p50: float | None = None
    rollback_p95: float | None = None
    event_p50: float | None = None
    event_p95: float | None = None
    is_too_slow: bool = False
    advice: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return dataclasses.asdict(self)


class Meters:
    """Recent measurements by name, each a number. Seconds are shown as milliseconds, ticks as they are."""

    SECONDS = ("takeover", "after_player", "prefill", "rollback", "event")

    def __init__(self):
        self._values: dict[str, collections.deque[float]] = collections.defaultdict(lambda: collections.deque(maxlen=RECENT))
        self._means: dict[str, tuple[float, float]] = {}
        self.counts: collections.Counter[str] = collections.Counter()

    def add(self, name: str, value: float) -> None:
        """One more measurement."""
        self._values[name].append(value)
        mean, deviation = self._means.get(name, (value, 0.0))
        deviation += (abs(value - mean) - deviation) / 16
        self._means[name] = mean + (value - mean) / 16, deviation

    def values(self, name: str) -> list[float]:
        """The recent measurements."""
        return list(self._values[name])

    def typical(self, name: str, default: float) -> float:
        """About the longest of the usual ones: the mean and two mean deviations, in which the last 16 count most."""
        mean, deviation = self._means.get(name, (default, 0.0))
        return mean + 2 * deviation

    def percentiles(self) -> dict[str, float]:
        """The fields of LiveStatistics that come from measurements."""
        found = {}
        for name in (*self.SECONDS, "staleness"):
            scale = 1e3 if name in self.SECONDS else 1.0
            found |= percentiles(name, self.values(name), (50, 95), scale)
        return found


def percentiles(name: str, values: Iterable[float], percents: Iterable[int], scale: float = 1.0) -> dict[str, float]:
    """name_p50 and so on; empty without values."""
    values = list(values)
    return {f"{name}_p{percent}": float(np.percentile(values, percent)) * scale for percent in percents} if values else {}
