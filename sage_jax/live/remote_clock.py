"""RemoteClock: the clock of a page or a device, seen from here."""

import collections
from typing import NamedTuple

PINGS = 10  # the samples of which the quickest counts
HISTORY = 120  # offsets that the drift is fitted to


class Ping(NamedTuple):
    """A question and its answer: sent and received in seconds of this clock, remote in seconds of the other one."""

    sent: float
    remote: float
    received: float

    @property
    def round_trip(self) -> float:
        """The seconds from question to answer."""
        return self.received - self.sent

    @property
    def offset(self) -> float:
        """The other clock minus this one, if both ways took equally long; the error is at most half the round trip."""
        return self.remote - (self.sent + self.received) / 2


class RemoteClock:
    """The offset of another clock from this one: that of the quickest of its last ten pings, and how it drifts.

    The error is at most half of the round trip, so that the quickest one is the most exact (as in NTP, RFC 5905).
    """

    def __init__(self):
        self._pings: collections.deque[Ping] = collections.deque(maxlen=PINGS)
        self._offsets: collections.deque[tuple[float, float]] = collections.deque(maxlen=HISTORY)
        self._count = 0

    def add(self, sent: float, remote: float, received: float) -> None:
        """Counts a ping. Raises ValueError for an answer before its question."""
        if not received >= sent:
            raise ValueError(f"an answer came {sent - received:.6f} s before its question; both must be of one clock")
        self._pings.append(Ping(sent, remote, received))
        self._count += 1
        if self._count % PINGS == 0:
            best = self._best()
            self._offsets.append(((best.sent + best.received) / 2, best.offset))

    def _best(self) -> Ping:
        return min(self._pings, key=lambda ping: ping.round_trip)

    @property
    def is_known(self) -> bool:
        """Whether there has been a ping."""
        return bool(self._pings)

    @property
    def offset(self) -> float:
        """The other clock minus this one, in seconds; 0 before the first ping."""
        return self._best().offset if self._pings else 0.0

    @property
    def round_trip(self) -> float:
        """The quickest round trip of the last ten, in seconds; 0 before the first ping."""
        return self._best().round_trip if self._pings else 0.0

    @property
    def drift(self) -> float:
        """Seconds that the offset grows by in each second: the slope of its least-squares line, 0 until two are known."""
        if len(self._offsets) < 2:
            return 0.0
        times, offsets = zip(*self._offsets, strict=True)
        middle, mean = sum(times) / len(times), sum(offsets) / len(offsets)
        spread = sum((time - middle) ** 2 for time in times)
        if not spread:
            return 0.0
        return sum((time - middle) * (offset - mean) for time, offset in self._offsets) / spread

    def here(self, remote: float) -> float:
        """The time of this clock at which the other one shows `remote`."""
        return remote - self.offset

    def there(self, here: float) -> float:
        """What the other clock shows at the time `here` of this one."""
        return here + self.offset
